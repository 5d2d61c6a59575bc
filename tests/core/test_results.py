"""Results on disk: what is written comes back, and nothing else is taken for a result."""

import errno
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from explain3d.core import results, results_atomic
from explain3d.core.errors import InputError, ResultFileError
from explain3d.core.results import AsyncWriter, ResultStore
from explain3d.core.structures import Detections, Explanation, Maps

N, K, R = 40, 3, 5
SETTINGS = {'type': 'FFAM', 'layer': 'stride4', 'nmf': {'rank': 5, 'tol': 1e-4}, 'shape': (1, 2)}


def make_detections(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Detections(
        boxes=torch.rand(count, 7, generator=generator),
        scores=torch.rand(count, generator=generator),
        labels=torch.arange(count) % 2,
        class_names=('Car', 'Pédestrian'),
    )


def make_explanation(frame_id='000008', n=N, k=K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Explanation(
        frame_id=frame_id,
        points=torch.randn(n, 4, generator=generator),
        detections=make_detections(k),
        maps=Maps(
            saliency={t: torch.rand(k, n, generator=generator) for t in ('all', 'yaw')},
            global_map=torch.rand(n, generator=generator),
            concepts=torch.rand(R, n, generator=generator),
            info={'iterations': 12, 'residual': 0.25, 'converged': True, 'solver': 'hals'},
        ),
        method='FFAM',
        ground_truth=make_detections(2, seed=1),
        detection_indices=torch.arange(k) * 2,
        settings=SETTINGS,
        versions={'explain3d': '0.1.0', 'torch': '2.0'},
    )


def assert_same(a, b, concept_tolerance=2**-11):
    assert torch.equal(a.points, b.points)
    assert list(a.maps.saliency) == list(b.maps.saliency)
    for target in a.maps.saliency:
        assert torch.equal(a.maps.saliency[target], b.maps.saliency[target])
        assert b.maps.saliency[target].dtype == torch.float32
    assert torch.equal(a.maps.global_map, b.maps.global_map)
    torch.testing.assert_close(
        a.maps.concepts, b.maps.concepts, rtol=concept_tolerance, atol=2**-24
    )
    for x, y in ((a.detections, b.detections), (a.ground_truth, b.ground_truth)):
        assert torch.equal(x.boxes, y.boxes)
        assert torch.equal(x.scores, y.scores)
        assert torch.equal(x.labels, y.labels)
        assert x.class_names == y.class_names
    assert torch.equal(a.detection_indices, b.detection_indices)
    assert (a.frame_id, a.method, a.versions) == (b.frame_id, b.method, b.versions)
    assert a.maps.info == b.maps.info
    assert results.plain(a.settings) == b.settings


# --- one file ------------------------------------------------------------------------------------


def test_everything_comes_back(tmp_path):
    explanation = make_explanation()
    path = results.save(tmp_path / 'new' / 'folder' / 'a.npz', explanation)
    assert_same(explanation, results.load(path))
    assert os.listdir(path.parent) == ['a.npz']


def test_optional_parts_stay_absent(tmp_path):
    full = make_explanation()
    bare = replace(
        full,
        maps=Maps({'all': full.saliency}),
        ground_truth=None,
        detection_indices=None,
        settings={},
        versions={},
    )
    loaded = results.load(results.save(tmp_path / 'a.npz', bare))
    assert loaded.maps.global_map is None
    assert loaded.maps.concepts is None
    assert loaded.ground_truth is None
    assert loaded.detection_indices is None
    assert loaded.targets == ('all',)


@pytest.mark.parametrize(('n', 'k'), [(0, 0), (0, 2), (7, 0), (1, 1)])
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_empty_frames(tmp_path, n, k, dtype):
    explanation = make_explanation(n=n, k=k)
    path = results.save(tmp_path / 'a.npz', explanation, saliency_dtype=dtype)
    loaded = results.load(path)
    assert loaded.maps.saliency['yaw'].shape == (k, n)
    assert loaded.maps.concepts.shape == (R, n)
    assert results.is_complete(path)


def test_no_target(tmp_path):
    explanation = replace(make_explanation(), maps=Maps({}))
    assert results.load(results.save(tmp_path / 'a.npz', explanation)).targets == ()


@pytest.mark.parametrize('scale', [1e-12, 1.0, 1e9])
def test_half_precision_keeps_its_promise_at_any_scale(tmp_path, scale):
    explanation = make_explanation(n=500)
    exact = explanation.saliency * scale
    exact[1] = 0.0
    explanation.maps.saliency['all'] = exact
    path = results.save(tmp_path / 'a.npz', explanation, saliency_dtype='float16')
    loaded = results.load(path).saliency.double()
    top = exact.double().max(1, keepdim=True).values
    bound = torch.maximum(exact.double() * 2.0**-11, top * 2.0**-25)
    # The scaling and its inverse add two float32 roundings.
    assert ((loaded - exact.double()).abs() <= bound + exact.double() * 2.0**-22).all()
    assert (loaded[1] == 0).all()
    full = results.save(tmp_path / 'b.npz', explanation)
    assert path.stat().st_size < full.stat().st_size


def test_numpy_alone_reads_the_file(tmp_path):
    explanation = make_explanation()
    path = results.save(tmp_path / 'a.npz', explanation)
    with np.load(path, allow_pickle=False) as file:
        assert file['saliency'].shape == (2, K, N)
        np.testing.assert_array_equal(file['saliency'][1], explanation.maps.saliency['yaw'])
        assert file['concepts'].dtype == np.float16
        assert b'"frame_id": "000008"' in file['metadata'].tobytes()


def test_equal_explanations_give_equal_bytes(tmp_path):
    a = results.save(tmp_path / 'a.npz', make_explanation())
    b = results.save(tmp_path / 'b.npz', make_explanation())
    assert a.read_bytes() == b.read_bytes()


def test_half_and_graph_tensors_are_accepted(tmp_path):
    explanation = make_explanation()
    saliency = explanation.saliency.to(torch.bfloat16)
    explanation.maps.saliency['all'] = saliency.requires_grad_()
    loaded = results.load(results.save(tmp_path / 'a.npz', explanation))
    assert torch.equal(loaded.saliency, saliency.detach().float())


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda e: e.maps.saliency.update(yaw=torch.rand(K, N + 1)), r"'yaw'.*expected \(3, 40\)"),
        (lambda e: setattr(e.maps, 'global_map', torch.rand(N, 1)), r'global map.*expected \(40\)'),
        (lambda e: setattr(e.maps, 'concepts', torch.rand(N)), r'concepts.*expected \(\*, 40\)'),
        (lambda e: e.maps.saliency['yaw'][0, 3:4].fill_(math.nan), "'yaw' of FFAM .*not finite"),
        (lambda e: e.maps.concepts[1, 1:2].fill_(math.inf), 'concepts of FFAM .*not finite'),
        (lambda e: setattr(e, 'detection_indices', torch.arange(2)), r'indices.*expected \(3\)'),
        (lambda e: e.settings.update(x=object()), 'settings.x is a object: expected plain data'),
    ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, change, text):
    explanation = replace(make_explanation(), settings={})
    change(explanation)
    with pytest.raises(InputError, match=text):
        results.save(tmp_path / 'a.npz', explanation)
    assert os.listdir(tmp_path) == []


def test_unknown_saliency_dtype(tmp_path):
    with pytest.raises(InputError, match="'int8'.*float16"):
        results.save(tmp_path / 'a.npz', make_explanation(), saliency_dtype='int8')


# --- damage --------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        results.load(tmp_path / 'a.npz')
    assert not results.is_complete(tmp_path / 'a.npz')


@pytest.mark.parametrize('keep', [0, 1, 100, 0.5, 0.9, -1])
def test_truncated_file(tmp_path, keep, caplog):
    path = results.save(tmp_path / 'a.npz', make_explanation())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ResultFileError, match='not a sound result file.*recomputed'):
        results.load(path)
    assert not results.is_complete(path)
    assert 'will be recomputed' in caplog.text


@pytest.mark.parametrize('kind', ['text', 'npy', 'other npz', 'pickle', 'other version'])
def test_foreign_file(tmp_path, kind):
    path = tmp_path / 'a.npz'
    if kind == 'text':
        path.write_text('frame 8')
    elif kind == 'npy':
        with open(path, 'wb') as file:
            np.save(file, np.arange(3))
    elif kind == 'other npz':
        np.savez(path, points=np.arange(3))
    elif kind == 'pickle':
        np.savez(path, metadata=np.array([{}], dtype=object))
    else:
        meta = b'{"format": "explain3d.explanation", "version": 99}'
        np.savez(path, metadata=np.frombuffer(meta, np.uint8))
    with pytest.raises(ResultFileError, match='version 99' if 'version' in kind else 'Delete it'):
        results.load(path)
    assert not results.is_complete(path)


def test_any_flipped_byte_is_found_or_harmless(tmp_path):
    explanation = make_explanation(n=3, k=1)
    path = results.save(tmp_path / 'a.npz', explanation)
    data = bytearray(path.read_bytes())
    refused = 0
    positions = range(0, len(data), 11)
    for position in positions:
        for mask in (0x01, 0x80):
            data[position] ^= mask
            path.write_bytes(data)
            complete = results.is_complete(path)
            try:
                assert_same(explanation, results.load(path))
            except ResultFileError:
                refused += 1
                assert not complete
            data[position] ^= mask
    # Dates, permissions and the like may change unnoticed; the data may not.
    assert refused > len(positions)


# --- settings ------------------------------------------------------------------------------------


def test_settings_decide_whether_a_frame_is_done(tmp_path):
    path = results.save(tmp_path / 'a.npz', make_explanation())
    assert results.is_complete(path)
    reordered = {key: SETTINGS[key] for key in reversed(SETTINGS)}
    assert results.is_complete(path, {**reordered, 'shape': [1, 2]})
    other = {**SETTINGS, 'nmf': {'rank': 6, 'tol': 1e-4}, 'new': None}
    assert not results.is_complete(path, other, on_mismatch='recompute')
    with pytest.raises(results.SettingsMismatchError) as caught:
        results.is_complete(path, other)
    assert 'nmf.rank: 5 -> 6; new: not set -> None' in str(caught.value)
    assert 'layer' not in str(caught.value)
    with pytest.raises(ValueError, match="'ignore'.*recompute"):
        results.is_complete(path, other, on_mismatch='ignore')


def test_fingerprint():
    assert results.fingerprint({'a': 1, 'b': (1, 2)}) == results.fingerprint({'b': [1, 2], 'a': 1})
    assert results.fingerprint({'a': 1}) != results.fingerprint({'a': 1.5})
    assert results.fingerprint({'a': torch.ones(3)}) != results.fingerprint({'a': torch.zeros(3)})
    assert results.fingerprint({'a': {'x', 'y', 'z'}}) == results.fingerprint(
        {'a': ['x', 'y', 'z']}
    )


def test_plain():
    value = {
        1: (np.float32(0.5), np.int64(3), True, None),
        'path': Path('a/b'),
        'device': torch.device('cpu'),
        'dtype': torch.float16,
        'call': math.sqrt,
        'scalar': torch.tensor(2.0),
    }
    assert results.plain(value) == {
        '1': [0.5, 3, True, None],
        'path': 'a/b',
        'device': 'cpu',
        'dtype': 'torch.float16',
        'call': 'math.sqrt',
        'scalar': 2.0,
    }
    with pytest.raises(InputError, match=r'settings\.a\[1\] is a object'):
        results.plain({'a': [1, object()]})


# --- atomic writing ------------------------------------------------------------------------------


class Boom(Exception):
    pass


@pytest.mark.parametrize('error', [Boom(), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def write():
        with results.atomic_write(path, 'a test') as file:
            file.write(b'new')
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_full_disk(tmp_path, monkeypatch, step):
    path = results.save(tmp_path / 'a.npz', make_explanation())
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(results_atomic.os, step, full)
    with pytest.raises(ResultFileError) as caught:
        results.save(path, make_explanation(frame_id='000009'))
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    for part in ("frame '000009'", 'No space left', str(path), 'before are intact'):
        assert part in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ['a.npz']


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
def test_really_full_device(tmp_path, monkeypatch):
    # The temporary "file" is the device that has no space: real errors from real writes.
    (tmp_path / 'tmp').symlink_to('/dev/full')
    monkeypatch.setattr(results_atomic, '_temporary_name', lambda: 'tmp')
    opener = lambda path, _: open(path, 'wb')  # noqa: E731, SIM115
    monkeypatch.setattr(results_atomic, 'open', opener, raising=False)
    with pytest.raises(ResultFileError, match='No space left on device'):
        results.save(tmp_path / 'a.npz', make_explanation())
    assert os.listdir(tmp_path) == []


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(ResultFileError, match='Could not write .* choose another folder'):
        results.save(tmp_path / 'a' / 'b.npz', make_explanation())
    assert (tmp_path / 'a').read_text() == ''


def test_only_dead_runs_are_cleaned_up(tmp_path):
    dead = subprocess.run([sys.executable, '-c', 'import os; print(os.getpid())'],
                          capture_output=True, check=True, text=True).stdout.strip()  # fmt: skip
    own, hour, day = results_atomic._host(), 3600, 25 * 3600

    def make(host, pid, age):
        path = tmp_path / f'.explain3d-{host}-{pid}-0123abcd.tmp'
        path.write_bytes(b'x')
        os.utime(path, (time.time() - age,) * 2)
        return path

    stale = {make(own, dead, hour), make('elsewhere', 77, day), make(own, os.getppid(), day)}
    kept = {make(own, os.getpid(), hour), make('elsewhere', 78, hour), tmp_path / 'other.tmp'}
    (tmp_path / 'other.tmp').write_bytes(b'x')
    os.utime(tmp_path / 'other.tmp', (0, 0))
    fresh = tmp_path / f'.explain3d-{own}-{dead}-89abcdef.tmp'
    fresh.write_bytes(b'x')
    assert set(ResultStore(tmp_path).remove_stale()) == stale
    assert set(tmp_path.iterdir()) == kept | {fresh}
    assert ResultStore(tmp_path / 'missing').remove_stale() == []


# --- a folder ------------------------------------------------------------------------------------

NUSCENES = 'n015-2018-07-24-11-22-45+0800__LIDAR_TOP__1532402927647951'
FRAMES = ['10', '9', 'a/b', 'a_b', 'a b', '../up', '.hidden', '', 'ü', 'v1.2', 'a.npz', NUSCENES]
FRAMES += ['x' * 300, 'x' * 299 + 'y']


def test_any_frame_name_has_its_own_file(tmp_path):
    store = ResultStore(tmp_path / 'results')
    for i, frame in enumerate(FRAMES):
        store.save(make_explanation(frame, n=5, seed=i))
    files = [store.path_of(frame) for frame in FRAMES]
    assert all(file.parent == store.folder and len(file.name) < 130 for file in files)
    assert len({str(file).lower() for file in files}) == len(FRAMES) == len(store)
    assert store.path_of('10').name == '10.npz'
    assert list(store.paths()) == sorted(FRAMES)
    assert [e.frame_id for e in store] == sorted(FRAMES)
    for i, frame in enumerate(FRAMES):
        assert frame in store
        assert_same(make_explanation(frame, n=5, seed=i), store.load(frame))
    # A frame cannot take the name that another one was given.
    disguised = store.path_of('a/b').stem
    assert store.path_of(disguised) != store.path_of('a/b')


def test_store_looks_at_settings(tmp_path):
    ResultStore(tmp_path, SETTINGS).save(make_explanation())
    assert ResultStore(tmp_path, SETTINGS).has('000008')
    assert not ResultStore(tmp_path, SETTINGS).has('000009')
    other = ResultStore(tmp_path, {**SETTINGS, 'layer': 'stride2'})
    with pytest.raises(results.SettingsMismatchError, match="layer: 'stride4' -> 'stride2'"):
        other.has('000008')
    other.on_mismatch = 'recompute'
    assert not other.has('000008')
    with pytest.raises(results.SettingsMismatchError, match='layer'):
        other.save(make_explanation())


def test_damaged_frame_counts_as_missing_until_it_is_written_again(tmp_path):
    store = ResultStore(tmp_path)
    path = store.save(make_explanation())
    path.write_bytes(path.read_bytes()[:-30])
    assert not store.has('000008')
    store.save(make_explanation())
    assert store.has('000008')


# --- in the background ---------------------------------------------------------------------------


def test_writer_writes_everything(tmp_path):
    store = ResultStore(tmp_path)
    with AsyncWriter(store, max_pending=2) as writer:
        for i in range(6):
            writer.save(make_explanation(str(i), n=5, seed=i))
        writer.flush()
        assert len(store) == 6
        writer.save(make_explanation('6', n=5))
    assert [e.frame_id for e in store] == list('0123456')
    with pytest.raises(RuntimeError):
        writer.save(make_explanation('7'))


class GatedStore(ResultStore):
    """Writes only while its gate is open; fails on frames called ``bad...``."""

    def __init__(self, folder):
        super().__init__(folder)
        self.gate = threading.Event()

    def write(self, frame_id, arrays):
        assert self.gate.wait(10)
        if frame_id.startswith('bad'):
            raise ResultFileError(f'no space for {frame_id}')
        return super().write(frame_id, arrays)


def test_writer_blocks_only_when_its_queue_is_full(tmp_path):
    store = GatedStore(tmp_path)
    writer = AsyncWriter(store, max_pending=2)
    for i in range(2):
        writer.save(make_explanation(str(i), n=5))
    third = threading.Thread(target=writer.save, args=(make_explanation('2', n=5),))
    third.start()
    third.join(0.1)
    assert third.is_alive()
    assert len(store) == 0
    store.gate.set()
    third.join(10)
    assert not third.is_alive()
    writer.close()
    writer.close()
    assert len(store) == 3


def test_writer_raises_at_the_next_call_and_loses_nothing_else(tmp_path):
    store = GatedStore(tmp_path)
    writer = AsyncWriter(store)
    for frame in ('a', 'bad', 'b'):
        writer.save(make_explanation(frame, n=5))
    store.gate.set()
    with pytest.raises(ResultFileError, match='no space for bad'):
        writer.flush()
    assert list(store.paths()) == ['a', 'b']
    writer.save(make_explanation('bad2', n=5))
    with pytest.raises(ResultFileError, match='no space for bad2'):
        writer.close()


def test_writer_refuses_bad_frames_at_once(tmp_path):
    explanation = make_explanation()
    explanation.maps.saliency['all'] = torch.full((K, N), math.nan)
    with AsyncWriter(ResultStore(tmp_path)) as writer:
        with pytest.raises(InputError, match='not finite'):
            writer.save(explanation)
        writer.save(make_explanation())
    with pytest.raises(ValueError, match='max_pending is 0'):
        AsyncWriter(ResultStore(tmp_path), max_pending=0)


def test_error_of_the_body_is_the_one_seen(tmp_path, caplog):
    store = GatedStore(tmp_path)
    store.gate.set()

    def run():
        with AsyncWriter(store) as writer:
            writer.save(make_explanation('a', n=5))
            writer.save(make_explanation('bad', n=5))
            raise Boom

    with pytest.raises(Boom):
        run()
    assert store.has('a')
    assert 'no space for bad' in caplog.text


# Leaves by os._exit in the middle of a frame, as a killed process does.
KILLED = """
import os, sys
import torch
from explain3d.core import results_archive
from explain3d.core.results import ResultStore
from explain3d.core.structures import Detections, Explanation, Maps
boxes = Detections(torch.zeros(1, 7), torch.zeros(1), torch.zeros(1, dtype=torch.long))
frame = lambda i: Explanation(i, torch.zeros(9, 4), boxes, Maps({'all': torch.ones(1, 9)}), 'FFAM')
store = ResultStore(sys.argv[1])
store.save(frame('done'))
write = results_archive.np.lib.format.write_array
def write_array(file, array, **kwargs):
    write(file, array, **kwargs)
    if array.shape == (1, 1, 9):
        file.flush()
        os._exit(9)
results_archive.np.lib.format.write_array = write_array
store.save(frame('half'))
"""


def test_killed_process_leaves_whole_frames_only(tmp_path):
    code = subprocess.run([sys.executable, '-c', KILLED, str(tmp_path)], env=os.environ).returncode
    assert code == 9
    store = ResultStore(tmp_path)
    (temporary,) = (path for path in tmp_path.iterdir() if path.suffix == '.tmp')
    assert list(store.paths()) == ['done']
    assert store.has('done')
    assert not store.has('half')
    os.utime(temporary, (time.time() - 100,) * 2)
    with AsyncWriter(store):
        assert not temporary.exists()


# --- tables --------------------------------------------------------------------------------------


def test_summary():
    # A box of 4 x 2 x 2 turned by 90 degrees: its length lies along y.
    boxes = torch.tensor([[3.0, 4.0, 0.0, 4.0, 2.0, 2.0, math.pi / 2]])
    points = torch.tensor([[3.0, 5.9, 0.0], [4.5, 4.0, 0.0], [3.0, 4.0, 1.0], [0.0, 0.0, 0.0]])
    saliency = {
        'all': torch.tensor([[3.0, 1.0, 0.0, 1.0]]),
        'yaw': torch.tensor([[2.0, 2.0, 0.0, 0.0]]),
        'x': torch.zeros(1, 4),
    }
    detections = Detections(boxes, torch.tensor([0.5]), torch.tensor([4]), ('Car',))
    explanation = Explanation('f', points, detections, Maps(saliency), 'FFAM')
    rows = results.summarize(explanation)
    assert [row['target'] for row in rows] == ['all', 'yaw', 'x']
    assert rows[0] | {'target': 0, 'inside': 0, 'top_inside': 0} == {
        'frame': 'f',
        'detection': 0,
        'class': 'class 4',
        'score': 0.5,
        'distance': 5.0,
        'points': 2,
        'target': 0,
        'inside': 0,
        'top_inside': 0,
    }
    assert (rows[0]['inside'], rows[0]['top_inside']) == (pytest.approx(0.6), 1.0)
    assert (rows[1]['inside'], rows[1]['top_inside']) == (0.5, 0.5)
    assert math.isnan(rows[2]['inside'])
    assert math.isnan(rows[2]['top_inside'])
    numbered = replace(explanation, detection_indices=torch.tensor([7]))
    (row,) = results.summarize(numbered, targets=['yaw'])
    assert row['detection'] == 7


def test_summary_of_empty_frames():
    assert results.summarize(make_explanation(k=0)) == []
    rows = results.summarize(make_explanation(n=0))
    assert len(rows) == 2 * K
    assert all(math.isnan(row['inside']) and row['points'] == 0 for row in rows)


def test_table():
    rows = [{'class': 'Car', 'inside': 0.51234}, {'class': 'Pedestrian', 'inside': math.nan}]
    assert results.format_table(rows).splitlines() == [
        'class       inside',
        '----------  ------',
        'Car          0.512',
        'Pedestrian       -',
    ]
    assert results.format_table(rows, ['inside']).splitlines()[2] == ' 0.512'
    assert results.format_table([]).split('\n')[0].split()[:3] == ['frame', 'detection', 'class']
