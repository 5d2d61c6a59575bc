"""One explanation as one file: a compressed .npz that ``numpy.load`` reads too."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ResultFileError
from .results_archive import open_archive, refuse_folder, write_archive
from .results_atomic import atomic_write
from .results_codec import Arrays, decode, decode_metadata, encode
from .results_settings import SettingsMismatchError, check_settings
from .structures import Explanation

logger = logging.getLogger(__name__)


def save(
    path: str | os.PathLike, explanation: Explanation, *, saliency_dtype: str = 'float32'
) -> Path:
    """Writes an explanation: afterwards the file is complete, or it is as it was before.

    Equal explanations give equal bytes.

    Args:
        path: The file's name; its folder is made if needed, an existing file is replaced.
        explanation: What to write, on any device.
        saliency_dtype: ``'float32'``, or ``'float16'`` for half the size (see ``encode``).

    Returns:
        The path.

    Raises:
        InputError: If shapes disagree, a map is not finite, or the settings are not plain data.
        ResultFileError: If the file cannot be written.
    """
    return write_arrays(path, encode(explanation, saliency_dtype), explanation.frame_id)


def write_arrays(path: str | os.PathLike, arrays: Arrays, frame_id: str) -> Path:
    """Writes what ``encode`` returned; see ``save``."""
    with atomic_write(path, f'the explanation of frame {frame_id!r}') as file:
        write_archive(file, arrays)
    return Path(path)


def load(path: str | os.PathLike) -> Explanation:
    """Reads an explanation back as tensors on the CPU.

    Saliency comes back as float32. Tuples among the settings come back as lists.

    Args:
        path: A file that ``save`` wrote.

    Raises:
        FileNotFoundError: If there is none.
        ResultFileError: If it is damaged, truncated, not ours, or of an unknown version, if its
            arrays do not fit each other, or are not those that were written.
    """
    with open_archive(path) as archive:
        return decode(archive.read_all())


def load_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Reads frame, method, targets, class names, settings, versions and info, but no arrays.

    Raises:
        FileNotFoundError: If there is no file.
        ResultFileError: As ``load``, as far as these entries tell.
    """
    with open_archive(path) as archive:
        return decode_metadata(archive.read('metadata'))


def is_complete(
    path: str | os.PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    on_mismatch: str = 'raise',
    frame_id: str | None = None,
) -> bool:
    """Tells whether a frame is done: the file is there, sound, and made with these settings.

    It is read and checked as ``load`` does, which therefore works if this returns True.

    Args:
        path: The frame's file.
        settings: What ``Explanation.settings`` would be now; None: any settings will do.
        on_mismatch: If the settings differ, ``'raise'``, or ``'recompute'``: return False.
        frame_id: The frame that the file should be of; None: any.

    Raises:
        ResultFileError: If a folder has the file's name.
        SettingsMismatchError: If the settings differ; the message lists the keys.
    """
    if on_mismatch not in ('raise', 'recompute'):
        raise ValueError(f"on_mismatch is {on_mismatch!r}: expected 'raise' or 'recompute'.")
    refuse_folder(path, 'result file')
    try:
        found = load(path)
        check_frame(path, found, frame_id)
    except FileNotFoundError:
        return False
    except ResultFileError as error:
        logger.warning('%s It will be recomputed.', error)
        return False
    if settings is None:
        return True
    try:
        check_settings(path, found.settings, settings)
    except SettingsMismatchError:
        if on_mismatch == 'raise':
            raise
        return False
    return True


def check_frame(path: str | os.PathLike, found: Explanation, frame_id: str | None) -> None:
    """Raises if a file is not of the frame that it should be of.

    Raises:
        ResultFileError: If so.
    """
    if frame_id is not None and found.frame_id != frame_id:
        raise ResultFileError(
            f'{path} holds frame {found.frame_id!r}: expected {frame_id!r}. Was it renamed or '
            'copied? Delete it, and the frame will be recomputed.'
        )
