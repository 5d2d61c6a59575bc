"""Reading a cloud from a file by its kind: raw float32, NumPy, PCD and PLY."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import PurePath

import numpy as np

from ...core.errors import InputError
from .pcd import read_pcd
from .point_columns import PointColumns

#: What files begin with whose name does not say their kind.
_MAGIC = {b'\x93NUMPY': '.npy', b'PK\x03\x04': '.npz', b'ply': '.ply', b'# .PCD': '.pcd'}
_KINDS = 'raw float32 (.bin), NumPy (.npy, .npz), PCD (.pcd) and PLY (.ply)'


def read_points(content: bytes, path: str, columns: PointColumns) -> np.ndarray:
    """Returns the points of a file as the data pipeline expects them.

    Args:
        content: The whole file.
        path: Its path; its end says the kind, unless the content begins as another kind does.
        columns: What the pipeline expects. A raw or NumPy file has to have these columns; of PCD
            and PLY they are taken by their names.

    Returns:
        (N, ``columns.width``) float32.

    Raises:
        InputError: If the file is empty, damaged, of another kind, or has other columns; the
            message names the file, what is expected, and what to do.
    """
    what = f'The file {path}'
    if not content:
        raise InputError(f'{what} is empty: expected points, {columns}.')
    suffix = PurePath(path).suffix.lower()
    for magic, kind in _MAGIC.items():
        if suffix in ('', '.bin') and content.startswith(magic):
            suffix = kind
    readers: dict[str, Callable[[bytes, str, PointColumns], np.ndarray]] = {
        '': _read_raw,
        '.bin': _read_raw,
        '.npy': _read_npy,
        '.npz': _read_npz,
        '.pcd': lambda data, name, wanted: wanted.of_named(read_pcd(data, name), name),
        '.ply': _read_ply,
    }
    if suffix not in readers:
        raise InputError(
            f'{what} is of a kind that is not read: expected one of {_KINDS}, {columns}. Convert '
            'it, or give its points as an array.'
        )
    return columns.checked(readers[suffix](content, what, columns), what)


def _read_raw(content: bytes, what: str, columns: PointColumns) -> np.ndarray:
    if len(content) % 4:
        raise InputError(
            f'{what} has {len(content)} bytes: expected float32 numbers (4 bytes each), {columns}. '
            'Save the points as float32 without a header, or as .npy, .pcd or .ply.'
        )
    return columns.of_raw(np.frombuffer(content, np.float32), what)


def _read_npy(content: bytes, what: str, columns: PointColumns) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f'{what} cannot be read as a NumPy array ({error}): expected one that numpy.save '
            f'wrote, without Python objects, {columns}.'
        ) from error
    return _of_array(array, what, columns)


def _read_npz(content: bytes, what: str, columns: PointColumns) -> np.ndarray:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = list(arrays)
            name = 'points' if 'points' in names else names[0] if len(names) == 1 else None
            array = None if name is None else arrays[name]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f'{what} cannot be read as an archive of NumPy arrays ({error}): expected one that '
            'numpy.savez wrote, without Python objects.'
        ) from error
    if array is None:
        raise InputError(
            f"{what} has the arrays {names}: expected one of the name 'points', or a single one."
        )
    return _of_array(array, what, columns)


def _of_array(array: np.ndarray, what: str, columns: PointColumns) -> np.ndarray:
    if array.dtype.names is None:
        return array
    flat = array.reshape(-1)
    return columns.of_named({name: flat[name] for name in array.dtype.names}, what)


def _read_ply(content: bytes, what: str, columns: PointColumns) -> np.ndarray:
    try:
        from plyfile import PlyData, PlyParseError
    except ImportError as error:
        raise InputError(
            f'{what} is a PLY file, which needs the package plyfile: pip install plyfile, or give '
            'the points as an array.'
        ) from error
    try:
        vertices = PlyData.read(io.BytesIO(content))['vertex'].data
    except (PlyParseError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f'{what} cannot be read as PLY ({type(error).__name__}: {error}): expected an element '
            f'"vertex" with {columns}.'
        ) from error
    return columns.of_named({name: vertices[name] for name in vertices.dtype.names}, what)
