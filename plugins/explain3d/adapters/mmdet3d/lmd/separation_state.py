"""The figures of samples that are done, on the disk: a separation test that was killed goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from ....core.results import atomic_write, fingerprint
from ....core.results_atomic import remove_stale
from ....metrics.moments import Moments
from ...common.recorder import require_writable

_FIELDS = ('count', 'excluded', 'mean', 'squares')


class SeparationState:
    """One file a sample in a folder; several processes may write different samples to it.

    A file holds the sample's ``Moments`` as they are, to the last bit, with digests of itself and
    of all that decides them. What is damaged, or was made with other settings or weights, counts
    as missing.

    Args:
        folder: Where the files are; made at the first ``save``.
        settings: What decides the figures of a sample, as plain data; digests stand for weights.
        columns: Names of the C figures.
    """

    def __init__(
        self, folder: str | os.PathLike, settings: Mapping[str, Any], columns: Sequence[str]
    ) -> None:
        self.folder = Path(folder)
        self.key = fingerprint({'settings': settings, 'columns': list(columns)})

    def path_of(self, index: int) -> Path:
        """Returns the file of a sample, whether it is there or not."""
        return self.folder / f'{index:06d}.npz'

    def load(self, index: int) -> Moments | None:
        """Returns the figures of a sample, or None if they have to be computed."""
        path = self.path_of(index)
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in (*_FIELDS, 'key', 'digest')}
            arrays = [found[name] for name in _FIELDS]
            sound = found['digest'].item() == _digest(arrays)
        except FileNotFoundError:
            return None
        except Exception as error:  # zipfile, zlib and numpy have a dozen ways to say "damaged".
            MMLogger.get_current_instance().warning(
                f'{path} is damaged ({type(error).__name__}): sample {index} is computed again.'
            )
            return None
        if not sound or found['key'].item() != self.key:
            reason = 'was made with other settings or weights' if sound else 'is damaged'
            MMLogger.get_current_instance().warning(
                f'{path} {reason}: sample {index} is computed again.'
            )
            return None
        return Moments(*arrays)

    def save(self, index: int, moments: Moments) -> None:
        """Writes the figures of a sample, atomically.

        Raises:
            ResultFileError: If the file cannot be written; those before are intact.
        """
        arrays = {name: getattr(moments, name) for name in _FIELDS}
        with atomic_write(self.path_of(index), f'the figures of sample {index}') as file:
            np.savez(file, **arrays, key=self.key, digest=_digest(list(arrays.values())))

    def prepare(self) -> None:
        """Removes what killed runs left behind, and finds out whether files can be written.

        Raises:
            ResultFileError: If they cannot.
        """
        require_writable(self.folder)
        remove_stale(self.folder)


def _digest(arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f'{array.shape} {array.dtype}'.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
