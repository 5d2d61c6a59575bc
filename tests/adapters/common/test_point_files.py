"""Files of points: read by their kind, or refused with what was expected."""

import io
import struct

import numpy as np
import pytest
import torch

from explain3d.adapters.common.pcd import decompressed
from explain3d.adapters.common.point_columns import PointColumns
from explain3d.adapters.common.point_files import read_points
from explain3d.core.errors import InputError

COLUMNS = PointColumns(4, 'load_dim of LoadPointsFromFile')
NAMES = ('x', 'y', 'z', 'intensity')


def cloud(count=400, width=4, seed=0):
    """Points as a LiDAR measures them, with an intensity and columns of the beam and time."""
    rng = np.random.default_rng(seed)
    angle, distance = rng.uniform(-0.7, 0.7, count), rng.uniform(2, 60, count)
    columns = [distance * np.cos(angle), distance * np.sin(angle), rng.normal(-1, 0.7, count)]
    columns += [rng.uniform(0, 1, count), rng.integers(0, 32, count), rng.uniform(0, 0.1, count)]
    return np.stack(columns[:width], 1).astype(np.float32)


POINTS = cloud()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def ply(points, names=NAMES, kind='float', text=False):
    layout = 'ascii' if text else 'binary_little_endian'
    head = f'ply\nformat {layout} 1.0\nelement vertex {len(points)}\n'
    head += ''.join(f'property {kind} {name}\n' for name in names) + 'end_header\n'
    if text:
        return (head + '\n'.join(' '.join(map(str, row)) for row in points) + '\n').encode()
    return head.encode() + points.astype({'float': '<f4', 'double': '<f8'}[kind]).tobytes()


def pcd(points, kind, names=NAMES, counts=None, body=None):
    counts = counts or [1] * len(names)
    head = f'# .PCD v0.7\nVERSION 0.7\nFIELDS {" ".join(names)}\nSIZE {"4 " * len(names)}\n'
    head += f'TYPE {"F " * len(names)}\nCOUNT {" ".join(map(str, counts))}\nWIDTH {len(points)}\n'
    head += f'HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA {kind}\n'
    if body is None and kind == 'ascii':
        body = '\n'.join(' '.join(map(repr, row.tolist())) for row in points).encode()
    elif body is None and kind == 'binary_compressed':
        body = packed(points.T.tobytes())
    return head.encode() + (points.tobytes() if body is None else body)


def packed(data):
    """What LZF unpacks to ``data``: literals only."""
    parts = (data[i : i + 32] for i in range(0, len(data), 32))
    body = b''.join(bytes([len(part) - 1]) + part for part in parts)
    return struct.pack('<II', len(body), len(data)) + body


RECORD = np.zeros(len(POINTS), [('i', 'f8'), ('z', 'f4'), ('y', 'f4'), ('x', 'f4'), ('ring', 'u2')])
for _i, _name in enumerate(('x', 'y', 'z', 'i')):
    RECORD[_name] = POINTS[:, _i]
PADDED = np.c_[POINTS[:, :3], cloud(width=6)[:, 4:], POINTS[:, 3]].astype(np.float32)

READ = {
    'a.bin': POINTS.tobytes(),
    'no_suffix': POINTS.tobytes(),
    'a.pcd.bin': POINTS.tobytes(),  # nuScenes' name for raw files.
    'a.npy': npy(POINTS),
    'b.NPY': npy(POINTS.astype(np.float64)),
    'c.npy': npy(RECORD),
    'renamed.bin': npy(POINTS),
    'a.npz': npz(points=POINTS, labels=np.zeros(3)),
    'b.npz': npz(whatever=POINTS),
    'a.ply': ply(POINTS),
    'b.ply': ply(POINTS.astype(np.float64), kind='double'),
    'c.ply': ply(POINTS, text=True),
    'd.ply': ply(PADDED, ('X', 'Y', 'Z', 'red', 'nx', 'scalar_Intensity')),
    'a.pcd': pcd(POINTS, 'ascii'),
    'b.pcd': pcd(POINTS, 'binary'),
    'c.pcd': pcd(POINTS, 'binary_compressed'),
    'd.pcd': pcd(PADDED, 'binary', ('x', 'y', 'z', '_', 'intensity'), (1, 1, 1, 2, 1)),
    'e.pcd': pcd(PADDED, 'ascii', ('x', 'y', 'z', 'normal', 'intensity'), (1, 1, 1, 2, 1)),
    'renamed_pcd.bin': pcd(POINTS, 'binary'),
}


@pytest.mark.parametrize('name', READ)
def test_the_usual_kinds_give_the_same_points(name):
    found = read_points(READ[name], f'folder/{name}', COLUMNS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, POINTS, rtol=1e-6)
    found[0] = 0  # They are the caller's own.


REFUSED = {
    'empty.bin': (b'', 'is empty'),
    'cut.bin': (POINTS.tobytes()[:-3], '6397 bytes: expected float32'),
    'row.bin': (POINTS.tobytes()[:-4], 'no multiple of 16'),
    'double.bin': (POINTS.astype(np.float64).tobytes(), 'They are points in float64'),
    'half.bin': (POINTS.astype(np.float16).tobytes(), 'does not hold such points'),
    'integers.bin': ((100 * POINTS).astype(np.int32).tobytes(), 'does not hold such points'),
    'text.bin': (b'12.5 3.25 -1.75 0.5\n' * 400, 'does not hold such points'),
    'nan.bin': (np.full((400, 4), np.nan, np.float32).tobytes(), 'does not hold such points'),
    'five.bin': (cloud(width=5).tobytes(), 'looks like 5 columns, not like 4'),
    'zeros.bin': (np.pad(POINTS, ((0, 0), (0, 1))).tobytes(), 'looks like 5 columns'),
    'three.bin': (cloud(width=3).tobytes(), 'looks like 3 columns'),
    'six.bin': (cloud(width=6).tobytes(), 'looks like 6 columns'),
    'five.npy': (npy(cloud(width=5)), r'expected points of shape \(N, 4\)'),
    'flat.npy': (npy(POINTS.ravel()), r'expected points of shape \(N, 4\)'),
    'words.npy': (npy(np.full((5, 4), 'x')), r'expected points of shape \(N, 4\)'),
    'objects.npy': (npy(np.array([{}], dtype=object)), 'without Python objects'),
    'cut.npy': (npy(POINTS)[:200], 'cannot be read as a NumPy array'),
    'two.npz': (npz(a=POINTS, b=POINTS), r"has the arrays \['a', 'b'\]"),
    'bad.npz': (b'PK\x03\x04' + b'0' * 50, 'cannot be read as an archive'),
    'map.npy': (npy(POINTS + np.float32([4e5, 5e6, 0, 0])), 'coordinates that no LiDAR measures'),
    'xyz.ply': (ply(POINTS[:, :3], NAMES[:3]), r"\['intensity'\] are missing"),
    'cut.ply': (ply(POINTS)[:-1], 'cannot be read as PLY'),
    'no.ply': (b'not a ply file\n', 'cannot be read as PLY'),
    'xyz.pcd': (pcd(POINTS[:, :3], 'binary', NAMES[:3]), r"\['intensity'\] are missing"),
    'cut.pcd': (pcd(POINTS, 'binary')[:-1], 'cannot be read as PCD'),
    'cut_ascii.pcd': (pcd(POINTS, 'ascii')[:-900], 'cannot be read as PCD'),
    'head.pcd': (b'# .PCD v0.7\nVERSION 0.7\n', 'the header has no line DATA'),
    'kind.pcd': (pcd(POINTS, 'zipped'), 'cannot be read as PCD'),
    'size.pcd': (pcd(POINTS, 'binary_compressed', body=packed(b'0' * 99)), 'unpack to 99'),
    'cloud.las': (b'LASF', 'of a kind that is not read'),
    'cloud.csv': (b'1,2,3,4\n', 'of a kind that is not read'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_read_is_told_with_the_file_and_the_columns(name):
    content, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as raised:
        read_points(content, f'folder/{name}', COLUMNS)
    assert f'folder/{name}' in str(raised.value)
    assert 'expected' in str(raised.value)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('width', [3, 4, 5, 6])
def test_files_of_the_right_width_are_taken(width, seed):
    for points in (
        cloud(1200, width, seed),
        np.random.default_rng(seed).uniform(-1, 1, (1200, width)).astype(np.float32),
        np.zeros((1200, width), np.float32),
        cloud(7, width, seed),
    ):
        found = read_points(points.tobytes(), 'a.bin', PointColumns(width, 'the test'))
        assert np.array_equal(found, points)


def test_columns_of_a_known_name_are_taken_by_it():
    table = {
        't': np.arange(5),
        'z': np.ones(5),
        'y': np.zeros(5),
        'x': np.zeros(5),
        'i': np.ones(5),
    }
    timed = PointColumns(5, 'the test', (*NAMES, 't'))
    assert timed.of_named(table, 'a')[:, 4].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"\['ring'\] are missing"):
        PointColumns(5, 'the test', (*NAMES, 'ring')).of_named(table, 'a')
    # Without names there is one column left for the fifth place, but two are too many.
    assert PointColumns(5, 'the test').of_named(table, 'a')[:, 4].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match='expected 5 columns'):
        PointColumns(5, 'the test').of_named({**table, 'ring': np.ones(5)}, 'a')


def test_arrays_and_tensors_are_checked_as_files_are():
    for points in (POINTS, POINTS.astype(np.float64), torch.as_tensor(POINTS)):
        assert np.array_equal(COLUMNS.checked(points, 'points'), POINTS)
    with_nan = POINTS.copy()
    with_nan[::2] = np.nan  # Returns that are none: the pipeline's to remove.
    assert np.array_equal(COLUMNS.checked(with_nan, 'points'), with_nan, equal_nan=True)
    for wrong in (POINTS[:, :3], POINTS[0], cloud(width=5), POINTS > 0, POINTS * 1e5):
        with pytest.raises(InputError, match='points: .*expected .*load_dim of LoadPointsFromFile'):
            COLUMNS.checked(wrong, 'points')


def test_references_of_lzf():
    # 'ab', then 7 bytes from 2 before, which overlap what they make; a long one; a literal.
    data = bytes([1]) + b'ab' + bytes([5 << 5, 1]) + bytes([7 << 5, 3, 0]) + bytes([0]) + b'c'
    assert decompressed(data, 22) == b'ab' + b'abababa' + b'a' * 12 + b'c'
    with pytest.raises(ValueError, match='before its beginning'):
        decompressed(bytes([5 << 5, 1]), 7)
    with pytest.raises(ValueError, match='expected 21'):
        decompressed(data, 21)
