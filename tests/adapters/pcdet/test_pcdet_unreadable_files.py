"""Files of OpenPCDet's data sets that cannot be read: named by the run, or clouds skipped."""

import logging
import shutil

import pytest
from pcdet_runs import ROOT

from explain3d.adapters.pcdet.config import read_config
from explain3d.adapters.pcdet.reading import readable_frames
from explain3d.core.errors import InputError


@pytest.fixture
def data(pcdet_kitti, tmp_path):
    """A copy of the two frames."""
    return shutil.copytree(pcdet_kitti, tmp_path / 'data')


def velodyne(data):
    return sorted((data / 'training/velodyne').glob('*.bin'))[-2:]


def dataset_of(data):
    from pcdet.config import EasyDict
    from pcdet.datasets.kitti.kitti_dataset import KittiDataset

    config = EasyDict(read_config(ROOT / 'configs/pcdet/second_small_miniworld.yaml'))
    log = logging.getLogger('pcdet')
    return KittiDataset(config.DATA_CONFIG, config.CLASS_NAMES, False, data, log)


def break_file(path, how):
    if how == 'missing':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize('how', ['missing', 'cut'])
def test_the_frame_the_folder_and_the_remedy_are_named(pcdet_host, data, how):
    dataset = dataset_of(data)
    path = velodyne(data)[0]
    before = type(dataset).__getitem__
    with readable_frames(dataset, 'raise', logging.getLogger('pcdet')):
        assert len(dataset[0]['points'])
        break_file(path, how)
        with pytest.raises(InputError, match=f"'{path.stem}' in .*data cannot be read.*leave the"):
            dataset[0]
        (data / f'training/calib/{velodyne(data)[-1].stem}.txt').unlink()
        with pytest.raises(InputError, match='Frame 1 of the data set in .*cannot be loaded'):
            dataset[1]
    assert type(dataset).__getitem__ is before
    assert 'get_lidar' not in vars(dataset)
