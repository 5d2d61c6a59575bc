"""Writes explanations in the background, so that the model does not wait for zlib and the disk."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from .results_codec import Arrays
from .results_store import ResultStore
from .structures import Explanation

logger = logging.getLogger(__name__)


class AsyncWriter:
    """Saves explanations to a store from one background thread.

    ``save`` checks the explanation and copies it off its device at once, and only waits if
    ``max_pending`` frames are being written already. What goes wrong in the background is raised
    by the next call of ``save``, ``flush`` or ``close``; the frames in the queue are written all
    the same. Arrays on the CPU are not copied: do not change them after ``save``.

    Args:
        store: Where to save; temporary files of killed runs are removed from it first.
        max_pending: Bound on the number of frames held in memory.

    Examples:
        >>> with AsyncWriter(ResultStore('work_dirs/ffam')) as writer:  # doctest: +SKIP
        ...     for frame in frames:
        ...         writer.save(explain(frame))
    """

    def __init__(self, store: ResultStore, max_pending: int = 4) -> None:
        if max_pending < 1:
            raise ValueError(f'max_pending is {max_pending}: expected at least 1.')
        self.store = store
        store.remove_stale()
        self._slots = threading.Semaphore(max_pending)
        self._max_pending = max_pending
        self._error: BaseException | None = None
        # An executor's threads are joined when the interpreter exits: nothing queued is lost.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix='explain3d-writer')

    def save(self, explanation: Explanation) -> None:
        """Hands one frame over.

        Raises:
            InputError: If it cannot be stored, see ``results.save``.
            ResultFileError: If an earlier frame could not be written; this one is not taken then.
            RuntimeError: If the writer is closed.
        """
        self._raise_error()
        arrays = self.store.encode(explanation)
        self._slots.acquire()
        try:
            self._executor.submit(self._write, explanation.frame_id, arrays)
        except BaseException:
            self._slots.release()
            raise

    def _write(self, frame_id: str, arrays: Arrays) -> None:
        try:
            self.store.write(frame_id, arrays)
        except BaseException as error:
            if self._error is None:
                self._error = error
            else:
                logger.error('%s', error)
        finally:
            self._slots.release()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def flush(self) -> None:
        """Waits until everything handed over is on the disk.

        Raises:
            ResultFileError: If something could not be written.
        """
        for _ in range(self._max_pending):
            self._slots.acquire()
        self._slots.release(self._max_pending)
        self._raise_error()

    def close(self) -> None:
        """Waits for what is left and ends the thread; may be called twice.

        Raises:
            ResultFileError: If something could not be written.
        """
        self._executor.shutdown(wait=True)
        self._raise_error()

    def __enter__(self) -> AsyncWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as second:  # The first error is the one to see.
            logger.error('%s', second)
