"""A folder of explanations, one file a frame."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .results_atomic import remove_stale
from .results_codec import Arrays, encode
from .results_file import check_frame, is_complete, load, load_metadata, write_arrays
from .results_settings import check_settings
from .structures import Explanation

_SAFE = re.compile(r'[A-Za-z0-9_+=,-][A-Za-z0-9_+=,.-]{0,99}')
SUFFIX = '.npz'


def file_stem(frame_id: str) -> str:
    """Returns a name for a frame's files, different for different frames.

    Ordinary names are used as they are. In others whatever is not a letter, digit or one of
    ``_+=,.-`` becomes ``_``, and ``~`` with a digest of the whole name follows.
    """
    if _SAFE.fullmatch(frame_id):
        return frame_id
    readable = re.sub(r'[^A-Za-z0-9_+=,.-]', '_', frame_id)[:80].lstrip('.') or 'frame'
    return f'{readable}~{hashlib.sha256(frame_id.encode()).hexdigest()[:16]}'


class ResultStore:
    """The explanations in a folder; several processes may write different frames to it.

    Args:
        folder: Where the files are; made at the first ``save``.
        settings: Settings of this run. With them, ``has`` is true only for frames that were
            explained with the same, and ``save`` takes nothing else.
        on_mismatch: What ``has`` does about a frame with other settings: ``'raise'``, or
            ``'recompute'`` (it counts as missing).
        saliency_dtype: ``'float32'`` or ``'float16'``, see ``save``.

    Examples:
        >>> store = ResultStore('work_dirs/ffam')
        >>> [explanation.frame_id for explanation in store]
        []
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        settings: Mapping[str, Any] | None = None,
        *,
        on_mismatch: str = 'raise',
        saliency_dtype: str = 'float32',
    ) -> None:
        self.folder = Path(folder)
        self.settings = settings
        self.on_mismatch = on_mismatch
        self.saliency_dtype = saliency_dtype

    def path_of(self, frame_id: str) -> Path:
        """Returns the file of a frame, whether it is there or not."""
        return self.folder / (file_stem(frame_id) + SUFFIX)

    def has(self, frame_id: str) -> bool:
        """Tells whether a frame is done; a damaged file counts as missing, with a warning.

        Raises:
            ResultFileError: If a folder has the file's name.
            SettingsMismatchError: If it was made with other settings and ``on_mismatch`` says so.
        """
        return is_complete(
            self.path_of(frame_id),
            self.settings,
            on_mismatch=self.on_mismatch,
            frame_id=frame_id,
        )

    __contains__ = has

    def save(self, explanation: Explanation) -> Path:
        """Writes one frame and returns its file; errors as ``results.save``.

        Raises:
            SettingsMismatchError: If its settings are not the store's: ``has`` would never find
                it again.
        """
        return self.write(explanation.frame_id, self.encode(explanation))

    def encode(self, explanation: Explanation) -> Arrays:
        """First half of ``save``: checks the explanation and copies it off its device."""
        if self.settings is not None:
            check_settings(f'Frame {explanation.frame_id!r}', explanation.settings, self.settings)
        return encode(explanation, self.saliency_dtype)

    def write(self, frame_id: str, arrays: Arrays) -> Path:
        """Second half of ``save``: compresses and writes."""
        return write_arrays(self.path_of(frame_id), arrays, frame_id)

    def load(self, frame_id: str) -> Explanation:
        """Reads one frame; errors as ``results.load``, also if the file is of another frame."""
        path = self.path_of(frame_id)
        found = load(path)
        check_frame(path, found, frame_id)
        return found

    def paths(self) -> dict[str, Path]:
        """Returns the file of each frame that is there, sorted by frame.

        Raises:
            ResultFileError: If the frame of a file cannot be told because it is damaged.
        """
        files = sorted(self.folder.glob(f'[!.]*{SUFFIX}'))
        return dict(sorted((_frame_of(path), path) for path in files))

    def __iter__(self) -> Iterator[Explanation]:
        """Reads all frames, one at a time, sorted by frame."""
        return (load(path) for path in self.paths().values())

    def __len__(self) -> int:
        return len(self.paths())

    def remove_stale(self) -> list[Path]:
        """Removes temporary files of killed runs, see ``results_atomic.remove_stale``."""
        return remove_stale(self.folder)


def _frame_of(path: Path) -> str:
    return load_metadata(path)['frame_id'] if '~' in path.stem else path.stem
