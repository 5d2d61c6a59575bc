"""Reading PCD files, version 0.7: ascii, binary and binary_compressed."""

from __future__ import annotations

import io
import struct

import numpy as np

from ...core.errors import InputError

_TYPES = {'F': 'f', 'I': 'i', 'U': 'u'}
#: A header is a few lines; one that does not end is none.
_LONGEST_HEADER = 65536


def read_pcd(content: bytes, what: str) -> dict[str, np.ndarray]:
    """Returns the fields of a PCD file by name, each (N,), in the order of the file.

    Fields of several numbers (``COUNT`` above 1) and padding (``_``) are left out.

    Args:
        content: The whole file.
        what: Names the file in messages.

    Raises:
        InputError: If the file is damaged, cut off, or no PCD file.
    """
    try:
        header, kind, body = _header(content)
        row = _row_type(header)
        points = int(header['POINTS'][0]) if 'POINTS' in header else _size(header)
        if points < 0:
            raise ValueError(f'POINTS is {points}')
        table = {'ascii': _ascii, 'binary': _binary, 'binary_compressed': _compressed}[kind](
            body, row, points
        )
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise InputError(
            f'{what} cannot be read as PCD ({type(error).__name__}: {error}): expected a complete '
            'file of version 0.7 (ascii, binary or binary_compressed). Write it again, or give the '
            'points as an array.'
        ) from error
    return {name: table[name] for name in _single_fields(header)}


def _header(content: bytes) -> tuple[dict[str, list[str]], str, bytes]:
    """Returns the entries of the header, the kind of data, and the data."""
    header: dict[str, list[str]] = {}
    place = 0
    while place < min(len(content), _LONGEST_HEADER):
        end = content.find(b'\n', place)
        if end < 0:
            break
        words = content[place:end].decode('ascii', 'replace').split()
        place = end + 1
        if not words or words[0].startswith('#'):
            continue
        key = 'FIELDS' if words[0] == 'COLUMNS' else words[0]
        if key == 'DATA':
            return header, words[1].lower(), content[place:]
        header[key] = words[1:]
    raise ValueError('the header has no line DATA')


def _size(header: dict[str, list[str]]) -> int:
    return int(header['WIDTH'][0]) * int(header.get('HEIGHT', ['1'])[0])


def _counts(header: dict[str, list[str]]) -> list[int]:
    return [int(n) for n in header.get('COUNT', ['1'] * len(header['FIELDS']))]


def _single_fields(header: dict[str, list[str]]) -> list[str]:
    pairs = zip(header['FIELDS'], _counts(header), strict=True)
    return [name for name, count in pairs if count == 1 and name != '_']


def _row_type(header: dict[str, list[str]]) -> np.dtype:
    names = [n if n != '_' else f'_{i}' for i, n in enumerate(header['FIELDS'])]
    entries = zip(names, header['TYPE'], header['SIZE'], _counts(header), strict=True)
    return np.dtype(
        [(n, f'<{_TYPES[t]}{int(size)}', (c,) if c != 1 else ()) for n, t, size, c in entries]
    )


def _ascii(body: bytes, row: np.dtype, points: int) -> dict[str, np.ndarray]:
    numbers = np.loadtxt(io.BytesIO(body), dtype=np.float64, ndmin=2, max_rows=points)
    widths = [int(np.prod(row[name].shape, dtype=int)) for name in row.names]
    if numbers.shape != (points, sum(widths)):
        raise ValueError(f'there are {numbers.shape} numbers for {(points, sum(widths))}')
    starts = np.cumsum([0, *widths])
    return {name: numbers[:, start] for name, start in zip(row.names, starts, strict=False)}


def _binary(body: bytes, row: np.dtype, points: int) -> dict[str, np.ndarray]:
    if len(body) < points * row.itemsize:
        raise ValueError(f'there are {len(body)} bytes for {points} points of {row.itemsize}')
    table = np.frombuffer(body, row, points)
    return {name: table[name] for name in row.names}


def _compressed(body: bytes, row: np.dtype, points: int) -> dict[str, np.ndarray]:
    packed, unpacked = struct.unpack_from('<II', body)
    if unpacked != points * row.itemsize or len(body) < 8 + packed:
        raise ValueError(f'{packed} bytes unpack to {unpacked}: {points} points of {row.itemsize}')
    data, table, place = decompressed(body[8 : 8 + packed], unpacked), {}, 0
    for name in row.names:  # One field after the other.
        kind = row[name]
        table[name] = np.frombuffer(
            data, kind.base, points * int(np.prod(kind.shape, dtype=int)), place
        )
        place += points * kind.itemsize
    return table


def decompressed(data: bytes, size: int) -> bytes:
    """Unpacks what LZF packed.

    Args:
        data: Literals (a byte n < 32, then n + 1 bytes) and references to what was unpacked before
            (3 bits of length, 13 of distance, a byte more of length if these are all set).
        size: How many bytes it unpacks to.

    Raises:
        ValueError: If it unpacks to more or less, or refers to what there is not.
    """
    out, place = bytearray(), 0
    while place < len(data):
        control = data[place]
        place += 1
        if control < 32:
            out += data[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[place]
            place += 1
        start = len(out) - ((control & 31) << 8) - data[place] - 1
        place += 1
        if start < 0:
            raise ValueError('it refers to what is before its beginning')
        length += 2
        part = out[start : start + length]
        while len(part) < length:  # What is referred to may overlap what it makes.
            part += part[: length - len(part)]
        out += part
        if len(out) > size:
            break
    if len(out) != size:
        raise ValueError(f'it unpacks to {len(out)} bytes: expected {size}')
    return bytes(out)
