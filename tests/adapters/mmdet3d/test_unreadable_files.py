"""Files of a data set that cannot be read: named by the run, and clouds skipped if asked for."""

import copy
import pickle

import numpy as np
import pytest
import tiny_detectors as tiny
import tiny_run
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from test_hook import run

from explain3d.adapters.mmdet3d.reading import readable_frames
from explain3d.core.errors import InputError
from explain3d.core.results import ResultStore

HOOK = dict(explainer=dict(type='ODAM', layer='stride4'), select=dict(score_thr=0.0, top_n=2))


@pytest.fixture(autouse=True)
def _no_scope_is_left(monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', copy.copy(DefaultScope._instance_dict))


@pytest.fixture
def data(tmp_path):
    """Frames that are right, cut, empty and missing."""
    folder = tiny_run.write_dataset(tmp_path / 'data', frames=4)
    clouds = folder / 'velodyne'
    (clouds / '000001.bin').write_bytes((clouds / '000001.bin').read_bytes()[:-4])
    (clouds / '000002.bin').write_bytes(b'')
    (clouds / '000003.bin').unlink()
    return folder


def config(tmp_path, data, **hook):
    path = tmp_path / 'config.py'
    path.write_text(tiny_run.config_text(data, hook={**HOOK, **hook}))
    return Config.fromfile(path)


def dataset_of(tmp_path, data, **changes):
    found = config(tmp_path, data).test_dataloader.dataset
    found.update(changes)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return DATASETS.build(found)


def test_clouds_that_cannot_be_read_are_skipped(tmp_path, data):
    settings = config(tmp_path, data, on_error='skip')
    settings.test_dataloader.num_workers = 1
    settings.work_dir = str(tmp_path / 'work')
    runner = Runner.from_cfg(settings)
    metrics = runner.test()
    assert metrics['explained'] == 2
    assert [e.frame_id for e in ResultStore(tmp_path / 'work/explanations')] == ['000000']
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'velodyne/000001.bin cannot be read (3199 numbers are no multiple of' in log
    assert 'velodyne/000003.bin cannot be read (FileNotFoundError' in log
    assert '3 failed' in log
    dataset = runner.test_dataloader.dataset
    assert 'prepare_data' not in vars(dataset)
    assert '_load_points' not in vars(dataset.pipeline.transforms[0])


@pytest.mark.parametrize(
    ('index', 'message'),
    [
        (1, r'velodyne/000001\.bin cannot be read \(\d+ numbers are no multiple of load_dim=4\)'),
        (3, r'velodyne/000003\.bin cannot be read \(FileNotFoundError: .*Mend or fetch the file'),
    ],
)
def test_the_file_and_the_remedy_are_named(tmp_path, data, index, message):
    dataset = dataset_of(tmp_path, data)
    both = ConcatDataset([dataset, dataset_of(tmp_path, data)])
    with readable_frames(both, 'raise'):
        assert len(both[0]['inputs']['points'])
        for place in (index, len(dataset) + index):
            with pytest.raises(InputError, match=message):
                both[place]
        with pytest.raises(InputError, match=message):
            pickle.loads(pickle.dumps(dataset))[index]  # As workers that are spawned get it.
    with pytest.raises((ValueError, FileNotFoundError)):
        dataset[index]


@pytest.mark.parametrize('content', [None, b'no picture'])
def test_pictures_that_cannot_be_read_are_named(tmp_path, data, content):
    dataset = dataset_of(
        tmp_path,
        data,
        modality=dict(use_lidar=True, use_camera=True),
        data_prefix=dict(pts='velodyne', img='images'),
        pipeline=[dict(type='LoadMultiViewImageFromFiles'), dict(type='Pack3DDetInputs', keys=[])],
    )
    if content is not None:
        (data / 'images').mkdir()
        (data / 'images/000000.png').write_bytes(content)
    for on_error in ('raise', 'skip'):
        with (
            readable_frames(dataset, on_error),
            pytest.raises(InputError, match=r'Frame 0 .*images/000000\.png.*leave the frame out'),
        ):
            dataset[0]


def test_what_is_no_data_set_is_left_alone():
    for thing in (None, [1, 2], np.zeros(3), tiny):
        with readable_frames(thing, 'skip'):
            pass


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_a_broken_camera_picture_does_not_lose_the_maps(tmp_path, on_error):
    second = tiny.build(tiny.second())
    picture = tmp_path / 'broken.png'
    picture.write_bytes(b'no picture')
    batches = [tiny.batch(tiny.cloud(i), names=[f'frame{i}']) for i in range(2)]
    batches[0]['data_samples'][0].set_metainfo(dict(img_path=str(picture)))
    settings = dict(HOOK, on_error=on_error, outputs=dict(pictures=['sheet']), targets='score')
    if on_error == 'raise':
        with pytest.raises(InputError, match=r'broken\.png cannot be read .*: expected a complete'):
            run(second, tmp_path, batches, **settings)
        stored = ['frame0']
    else:
        samples = run(second, tmp_path, batches, **settings)
        assert 'broken.png' in samples[0].explanation.maps.info['error']
        stored = ['frame0', 'frame1']
    assert [e.frame_id for e in ResultStore(tmp_path / 'explanations')] == stored


def test_a_missing_camera_picture_is_told(tmp_path, monkeypatch):
    second = tiny.build(tiny.second())
    batches = [tiny.batch(tiny.cloud(0))]
    batches[0]['data_samples'][0].set_metainfo(dict(img_path=str(tmp_path / 'none.png')))
    told = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', told.append)
    run(second, tmp_path, batches, **HOOK, outputs=dict(pictures=['sheet']), targets='score')
    assert any('none.png is not there: the sheet is drawn without it' in line for line in told)
    assert list((tmp_path / 'explanations/pictures').glob('*sheet*'))
