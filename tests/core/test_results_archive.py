"""Archives are not believed: what they declare is held against what they are."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from explain3d.core import results

from .test_results import N, make_explanation
from .test_results_damage import refused


def repack(path, compression=zipfile.ZIP_DEFLATED, **changed):
    """Writes the members anew, some with other bytes or another header."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for name, content in changed.items():
        old = members[f'{name}.npy']
        members[f'{name}.npy'] = content(old) if callable(content) else content
    with zipfile.ZipFile(path, 'w', compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def header(descr, shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {'descr': descr, 'fortran_order': False, 'shape': shape}
    )
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    return results.save(tmp_path / 'a.npz', make_explanation())


def test_a_bomb_takes_no_memory(path):
    zeros = header('<f4', (1 << 24,)) + bytes(1 << 26)
    bomb = repack(path, zipfile.ZIP_BZIP2, saliency=zeros)
    assert bomb.stat().st_size < 10_000
    del zeros
    tracemalloc.start()
    try:
        refused(bomb, 'compressed by method 12, not by zlib')
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('compression', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(path, compression):
    refused(repack(path, compression), 'compressed by method')


@pytest.mark.parametrize('shape', [(10**13,), (10**7, 10**7), (2**63, 2), (0, 10**30), (41,)])
def test_shapes_are_held_against_the_bytes(path, shape):
    changed = header('<f4', shape) + bytes(160)
    refused(repack(path, global_map=changed), "'global_map' has|has the shape|too large|memory")


@pytest.mark.parametrize(
    'descr', ['|O', '<f16', '<c8', '|V8', '<M8[s]', [('a', '<f4')], '|S4', '<f4 ']
)
def test_types_that_we_do_not_write_are_refused(path, descr):
    refused(repack(path, global_map=header(descr, (N,)) + bytes(160)), 'no array of numbers')


@pytest.mark.parametrize(
    'start',
    [
        b'',
        b'\x93NUMPY',
        b'\x93NUMPY\x01\x00\xff\xff',
        b'\x93NUMPY\x02\x00\xff\xff\xff\xff',
        b'\x93NUMPY\x09\x00\x02\x00{}',
        b"\x93NUMPY\x01\x00\x40\x00{'descr': __import__('os')," + b' ' * 36 + b'\n',
        b'(' * 5000,
    ],
)
def test_headers_are_not_evaluated(path, start):
    refused(repack(path, global_map=start), "'global_map' is no array")


def test_declared_sizes_are_held_against_the_compressed(path):
    data = bytearray(path.read_bytes())
    at = data.rindex(b'saliency.npy') - 46  # Its entry of the table of contents.
    assert data[at : at + 4] == b'PK\x01\x02'
    data[at + 24 : at + 28] = (0x7FFFFFFF).to_bytes(4, 'little')
    path.write_bytes(data)
    refused(path, 'bytes hold 2147483647')


def test_more_than_the_memory_is_refused(path, monkeypatch):
    monkeypatch.setattr('explain3d.core.results_archive._memory', lambda: 1000)
    refused(path, 'this machine has 0.0')


def test_names_that_are_there_twice_are_refused(path):
    with zipfile.ZipFile(path, 'a') as file, pytest.warns(UserWarning, match='Duplicate'):
        file.writestr('points.npy', header('<f4', (N, 4)) + bytes(640))
    refused(path, "'points.npy' is not ours, or there twice")


def test_members_that_are_no_arrays_are_refused(path):
    with zipfile.ZipFile(path, 'a') as file:
        file.writestr('../evil.sh', b'true')
    refused(path, 'evil.sh')


def test_deep_metadata_are_refused(path):
    text = b'[' * 100_000
    refused(repack(path, metadata=header('|u1', (len(text),)) + text))
