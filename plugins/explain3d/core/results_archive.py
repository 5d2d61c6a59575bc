"""Archives of arrays (.npz) that are not believed: sizes are checked before memory is taken."""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import ResultFileError

Arrays = dict[str, np.ndarray]

# Saliency is mostly zeros: higher levels take several times as long and save a few per cent.
COMPRESSION_LEVEL = 1
#: Zlib turns a byte into at most 1032, and a few at the end.
_MOST_A_BYTE = 1032
#: The header of an array of numbers, flags or text as NumPy writes it.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=](?:b1|[iu][1248]|f[248]|U\d{1,4}))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d+, ?)*\d*)\), \} *\n"
)
_MOST_HEADER, _CHUNK = 10_000, 1 << 22

#: What zipfile, zlib, json and numpy raise over damaged bytes.
UNSOUND = (
    OSError,
    RuntimeError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def write_archive(file: BinaryIO, arrays: Arrays) -> None:
    """Writes arrays as a compressed ``.npz``; equal arrays give equal bytes.

    Args:
        file: Open for writing.
        arrays: By name, without objects.
    """
    with zipfile.ZipFile(
        file, 'w', zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL
    ) as archive:
        for name, array in arrays.items():
            # Members opened by name carry a fixed date, so that equal data give equal bytes.
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


@contextlib.contextmanager
def open_archive(
    path: str | os.PathLike,
    what: str = 'result file',
    remedy: str = 'Delete it, or run again with resume: the frame will be recomputed.',
    fault: str | None = None,
) -> Iterator[Archive]:
    """Opens an archive; whatever is wrong with it becomes one kind of error.

    Args:
        path: The file.
        what: What it should be, for messages.
        remedy: What to do about it, a sentence.
        fault: What is wrong with it, a verb and its object; default that it is not sound.

    Yields:
        Its arrays, read on demand. What the block raises over their content counts as damage.

    Raises:
        FileNotFoundError: If there is no file.
        ResultFileError: If it is a folder, cannot be read, or is not sound.
    """
    refuse_folder(path, what)
    try:
        with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
            yield Archive(archive, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise
    except UNSOUND as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ResultFileError(
            f'{path} {fault or f"is not a sound {what}"} ({text}): expected one that explain3d '
            f'wrote. {remedy}'
        ) from error


def refuse_folder(path: str | os.PathLike, what: str) -> None:
    """Raises if a folder has the name that a file should have.

    Raises:
        ResultFileError: If so.
    """
    if Path(path).is_dir():
        raise ResultFileError(
            f'{path} is a folder: expected a {what}, or nothing. Move the folder away, or choose '
            'another one for the results.'
        )


class Archive:
    """The arrays of an open archive.

    Args:
        archive: The open file.
        size: Its length in bytes.

    Raises:
        ResultFileError: If its table of contents cannot be true, or asks for more memory than the
            machine has.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._archive = archive
        self._members = {}
        for member in archive.infolist():
            name = member.filename.removesuffix('.npy')
            if name == member.filename or name in self._members:
                raise ResultFileError(f'its part {member.filename!r} is not ours, or there twice')
            _check_member(member)
            self._members[name] = member
        if sum(member.compress_size for member in self._members.values()) > size:
            raise ResultFileError('its parts are longer than the file')
        wanted, memory = sum(member.file_size for member in self._members.values()), _memory()
        if wanted > memory:
            raise ResultFileError(
                f'its arrays take {wanted / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f}'
            )

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return list(self._members)

    def read(self, name: str) -> np.ndarray:
        """Returns an array.

        Raises:
            ResultFileError: If there is none of that name, or its size is not what it says.
        """
        if name not in self._members:
            raise ResultFileError(f'it has no part {name!r}')
        member = self._members[name]
        with self._archive.open(member) as file:
            dtype, order, shape, length = _header(file, name)
            count = math.prod(shape) * dtype.itemsize
            if length + count != member.file_size:
                raise ResultFileError(
                    f'its part {name!r} has {member.file_size} bytes: expected {length + count} '
                    f'for the shape {shape} of {dtype}'
                )
            content = bytearray(count)
            view, filled = memoryview(content), 0
            while filled < count:
                read = file.readinto(view[filled : filled + _CHUNK])
                if not read:
                    raise ResultFileError(f'its part {name!r} ends early')
                filled += read
            file.read(1)  # At its end the checksum is compared.
        return np.ndarray(shape, dtype, content, order=order)

    def read_all(self) -> Arrays:
        """Returns all arrays; raises as ``read``."""
        return {name: self.read(name) for name in self._members}


def _check_member(member: zipfile.ZipInfo) -> None:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ResultFileError(
            f'its part {member.filename!r} is compressed by method {member.compress_type}, '
            f'not by zlib ({zipfile.ZIP_DEFLATED})'
        )
    most = member.compress_size
    if member.compress_type == zipfile.ZIP_DEFLATED:
        most = _MOST_A_BYTE * (most + 1)
    if not 0 <= member.file_size <= most:
        raise ResultFileError(
            f'its part {member.filename!r} says that {member.compress_size} bytes hold '
            f'{member.file_size}'
        )


def _header(file: BinaryIO, name: str) -> tuple[np.dtype, str, tuple[int, ...], int]:
    """Type, order, shape and length of the header of an array; nothing in it is evaluated."""
    start = file.read(8)
    if start[:6] != b'\x93NUMPY' or len(start) < 8 or start[6] not in (1, 2, 3):
        raise ResultFileError(f'its part {name!r} is no array')
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), 'little')
    text = file.read(min(length, _MOST_HEADER))
    found = _HEADER.fullmatch(text) if len(text) == length else None
    if found is None:
        raise ResultFileError(f'its part {name!r} is no array of numbers, flags or text')
    shape = tuple(int(n) for n in found[3].replace(b' ', b'').split(b',') if n)
    order = 'F' if found[2] == b'True' else 'C'
    return np.dtype(found[1].decode()), order, shape, 8 + width + length


def _memory() -> float:
    """Bytes of memory that the machine has; infinite where the system does not tell."""
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError, OSError):
        return math.inf
