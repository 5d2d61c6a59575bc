"""A folder belongs to one run, a name to one frame, in all processes of the run."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import distributed

from explain3d.adapters.common import frame_names
from explain3d.adapters.common.frame_names import FrameNames, name_of_path, parts_needed
from explain3d.adapters.common.frames import digest_of
from explain3d.adapters.common.recorder import Recorder
from explain3d.adapters.common.run_folder import MANIFEST, FrameClaims, claim_folder
from explain3d.core.errors import InputError
from explain3d.core.results import ResultStore, SettingsMismatchError, save
from explain3d.core.results_atomic import create
from tests.helpers.toy_explanation import toy_explanation

SETTINGS = {'explainer': {'type': 'FFAM', 'rank': 8}, 'model': 'abc'}
OTHER = {'explainer': {'type': 'FFAM', 'rank': 16}, 'model': 'abc'}


def manifest(folder):
    return json.loads((folder / MANIFEST).read_text())


def test_a_folder_with_results_is_one_runs(tmp_path):
    claim_folder(tmp_path, SETTINGS, {'data set': 'Kitti'})
    first = (tmp_path / MANIFEST).read_bytes()
    (tmp_path / '000001.npz').write_bytes(b'')
    claim_folder(tmp_path, SETTINGS, {'data set': 'Kitti', 'points': 'training'})
    claim_folder(tmp_path, SETTINGS)
    with pytest.raises(SettingsMismatchError, match=r'explainer.rank: 8 -> 16 .*--out-dir'):
        claim_folder(tmp_path, OTHER)
    with pytest.raises(SettingsMismatchError, match="data set: 'Kitti' -> 'Waymo'"):
        claim_folder(tmp_path, SETTINGS, {'data set': 'Waymo'})
    assert (tmp_path / MANIFEST).read_bytes() == first
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith('.')] == []


def test_a_folder_without_results_is_free_again_unless_its_run_is_at_work(tmp_path):
    path = tmp_path / MANIFEST
    claim_folder(tmp_path, SETTINGS)
    claim_folder(tmp_path, OTHER)  # The first run of this process left nothing.
    assert manifest(tmp_path)['settings'] == OTHER
    path.write_text(json.dumps({**manifest(tmp_path), 'process': os.getppid()}))
    with pytest.raises(SettingsMismatchError, match='explainer.rank: 16 -> 8'):
        claim_folder(tmp_path, SETTINGS)
    path.write_text(json.dumps({**manifest(tmp_path), 'host': 'another'}))
    with pytest.raises(SettingsMismatchError, match='explainer.rank: 16 -> 8'):
        claim_folder(tmp_path, SETTINGS)
    os.utime(path, (0, 0))
    claim_folder(tmp_path, SETTINGS)
    assert manifest(tmp_path)['settings'] == SETTINGS
    for damaged in ('', '{"format": "explain3d.run"', '[]', '{"format": "x", "settings": {}}'):
        path.write_text(damaged)
        claim_folder(tmp_path, OTHER)
        assert manifest(tmp_path)['settings'] == OTHER


def test_folders_of_older_versions_are_known_by_their_files(tmp_path):
    explanation = toy_explanation()
    (tmp_path / '000000.npz').write_bytes(b'damaged')
    save(tmp_path / '000007.npz', explanation)
    with pytest.raises(SettingsMismatchError, match='belongs to another run'):
        claim_folder(tmp_path, SETTINGS)
    assert not (tmp_path / MANIFEST).exists()
    claim_folder(tmp_path, explanation.settings)
    assert manifest(tmp_path)['settings'] == explanation.settings


@pytest.mark.parametrize('links', [True, False])
def test_one_of_many_makes_the_manifest(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, 'link', lambda *_: (_ for _ in ()).throw(OSError(1, 'no links')))
    claim_folder(tmp_path, SETTINGS)
    assert manifest(tmp_path)['settings'] == SETTINGS
    if not links:
        return
    folder = tmp_path / 'many'
    folder.mkdir()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: create(folder / MANIFEST, '', b'%d' % i), range(32)))
    assert sum(made) == 1
    assert (folder / MANIFEST).read_text() == f'{made.index(True)}'
    assert [path.name for path in folder.iterdir()] == [MANIFEST]


def test_processes_of_a_run_share_their_names(tmp_path, monkeypatch):
    assert FrameClaims(tmp_path).claim('a', 'x') == 'x'  # Alone, as without a folder.
    store = distributed.HashStore()
    distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        monkeypatch.setattr(distributed, 'get_world_size', lambda: 2)
        ranks = []
        for _ in range(2):
            monkeypatch.setattr(FrameClaims, '_runs', {})  # Each process counts by itself.
            ranks.append(Recorder(SETTINGS, dir=tmp_path, background=False, remedy='Do so.'))
        first, second = ranks
        first.claim('000001', 'a/000001.bin')
        second.claim('000001', 'a/000001.bin')  # As a sampler repeats it.
        second.claim('000002', 'b/000002.bin')
        with pytest.raises(InputError, match='000002.*b/000002.bin and a/000002.bin.*Do so'):
            first.claim('000002', 'a/000002.bin')
        again = Recorder(SETTINGS, dir=tmp_path, background=False)  # The next run of this one.
        again.claim('000002', 'a/000002.bin')
    finally:
        distributed.destroy_process_group()


def test_frames_that_only_their_points_tell_apart(tmp_path):
    recorder = Recorder(toy_explanation().settings, dir=tmp_path, background=False)
    recorder.add(toy_explanation(), unsourced=True)
    recorder.add(toy_explanation(), unsourced=True)
    other = toy_explanation()
    other.points = other.points + 1
    before = recorder.store.path_of(other.frame_id).read_bytes()
    with pytest.raises(InputError, match='Two frames are called .*points of digest'):
        recorder.add(other, unsourced=True)
    assert recorder.store.path_of(other.frame_id).read_bytes() == before
    assert len(ResultStore(tmp_path)) == 1


@pytest.mark.parametrize('world', [1, 2, 3, 5])
def test_numbers_count_over_the_whole_run(monkeypatch, world):
    """As samplers hand out 7 frames in batches of 2: in turns, the first ones again at the end."""
    rounds, found, repeats = -(-7 // world), {}, []
    for rank in range(world):
        monkeypatch.setattr(frame_names, 'process', lambda r=rank: (r, world))
        names, left = FrameNames(count=7), rounds
        while left:
            size = min(2, left)
            left -= size
            for number in names.numbers(size):
                name = names.name(None, number)
                repeats += [name] if names.is_repeat(number) else []
                found.setdefault(name, set()).add(number % 7)
    assert sorted(found) == [f'frame_{i:06d}' for i in range(7)]
    assert all(len(numbers) == 1 for numbers in found.values())
    assert len(repeats) == world * rounds - 7


def test_paths_are_named_by_as_many_folders_as_tell_them_apart():
    drives = ['d/0001/points/000001.bin', 'd/0002/points/000001.bin', 'd/0001/points/000002.bin']
    assert parts_needed(drives[::2]) == 1
    assert parts_needed(drives) == 3
    assert name_of_path(drives[0], 3) == '0001/points/000001'
    assert name_of_path('C:\\data\\000001.bin') == '000001'
    assert parts_needed([]) == parts_needed(['a/1.bin', 'a/1.npy']) == 1
    names = FrameNames(repeated={'7'})
    assert [names.name('7', 3), names.name('8', 4)] == ['7+000003', '8']


def test_frames_without_a_name_are_told_of_once(caplog):
    names = FrameNames(remedy='Add meta_keys.')
    assert [names.name(None, 0), names.name(None, 1)] == ['frame_000000', 'frame_000001']
    assert [record.message.endswith('Add meta_keys.') for record in caplog.records] == [True]


def test_digests_tell_names_shapes_and_values_apart():
    points = torch.arange(6.0)
    digests = {
        digest_of({'a': points}),
        digest_of({'b': points}),
        digest_of({'a': points.view(2, 3)}),
        digest_of({'a': points + 1}),
        digest_of({'a': points.double()}),
    }
    assert len(digests) == 5
    both = {'a': points, 'b': points.numpy()}
    assert digest_of(both) == digest_of(dict(reversed(both.items())))
