"""One explanation as one file: a compressed .npz that ``numpy.load`` reads too."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ResultFileError
from .results_atomic import atomic_write
from .results_codec import Arrays, check_names, decode, decode_metadata, encode
from .results_settings import SettingsMismatchError, check_settings
from .structures import Explanation

# Saliency is mostly zeros: higher levels take several times as long and save a few per cent.
COMPRESSION_LEVEL = 1

#: What zipfile, zlib, json and numpy raise over damaged bytes.
_UNSOUND = (
    OSError,
    RuntimeError,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

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
    with (
        atomic_write(path, f'the explanation of frame {frame_id!r}') as file,
        zipfile.ZipFile(
            file, 'w', zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL
        ) as archive,
    ):
        for name, array in arrays.items():
            # Members opened by name carry a fixed date, so that equal data give equal bytes.
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return Path(path)


def load(path: str | os.PathLike) -> Explanation:
    """Reads an explanation back as tensors on the CPU.

    Saliency comes back as float32. Tuples among the settings come back as lists.

    Args:
        path: A file that ``save`` wrote.

    Raises:
        FileNotFoundError: If there is none.
        ResultFileError: If it is damaged, truncated, not ours, or of an unknown version.
    """
    with _reading(path) as archive:
        return decode({name: _read_array(archive, name) for name in _names(archive)})


def load_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Reads frame, method, targets, class names, settings, versions and info, but no arrays.

    Raises:
        FileNotFoundError: If there is no file.
        ResultFileError: As ``load``, as far as these entries tell.
    """
    with _reading(path) as archive:
        return decode_metadata(_read_array(archive, 'metadata'))


def is_complete(
    path: str | os.PathLike,
    settings: Mapping[str, Any] | None = None,
    *,
    on_mismatch: str = 'raise',
) -> bool:
    """Tells whether a frame is done: the file is there, sound, and made with these settings.

    Every byte is held against its checksum, so that ``load`` works if this returns True.

    Args:
        path: The frame's file.
        settings: What ``Explanation.settings`` would be now; None: any settings will do.
        on_mismatch: If the settings differ, ``'raise'``, or ``'recompute'``: return False.

    Raises:
        SettingsMismatchError: If the settings differ; the message lists the keys.
    """
    if on_mismatch not in ('raise', 'recompute'):
        raise ValueError(f"on_mismatch is {on_mismatch!r}: expected 'raise' or 'recompute'.")
    try:
        with _reading(path) as archive:
            meta = decode_metadata(_read_array(archive, 'metadata'))
            check_names(meta, _names(archive))
            damaged = archive.testzip()
            if damaged:
                raise ResultFileError(f'its part {damaged} is damaged')
    except FileNotFoundError:
        return False
    except ResultFileError as error:
        logger.warning('%s It will be recomputed.', error)
        return False
    if settings is None:
        return True
    try:
        check_settings(path, meta['settings'], settings)
    except SettingsMismatchError:
        if on_mismatch == 'raise':
            raise
        return False
    return True


@contextlib.contextmanager
def _reading(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Opens a result file; whatever is wrong with its content becomes a ResultFileError."""
    with open(path, 'rb') as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except _UNSOUND as error:
            raise ResultFileError(
                f'{path} is not a sound result file ({error}): expected one that explain3d '
                'wrote. Delete it, or run again with resume: the frame will be recomputed.'
            ) from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix('.npy') for name in archive.namelist()]


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    # The whole member first: its checksum is tested before its header is believed.
    content = io.BytesIO(archive.read(f'{name}.npy'))
    return np.lib.format.read_array(content, allow_pickle=False)
