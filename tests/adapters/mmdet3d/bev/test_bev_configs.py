"""Configs of SimpleBEV: pipelines build, and fit the model that stands beside them."""

from pathlib import Path

import pytest

pytest.importorskip('mmdet3d')

from mmcv.transforms import Compose
from mmengine.config import Config

from explain3d.registry import METRICS

FOLDER = Path(__file__).parents[4] / 'configs' / 'simplebev'
CONFIGS = sorted(path.name for path in FOLDER.glob('*.py'))


def transforms(dataloader):
    return {t.type.removeprefix('explain3d.'): t for t in dataloader.dataset.pipeline}


def test_there_are_configs():
    assert len(CONFIGS) >= 7


@pytest.mark.parametrize('name', CONFIGS)
def test_data_and_model_fit(name):
    config = Config.fromfile(FOLDER / name)
    for dataloader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        Compose(dataloader.dataset.pipeline)
        steps = transforms(dataloader)
        assert steps['VehicleBEVMaps'].grid == config.model.grid
        loaded = {
            'radar': 'LoadRadarSweeps' in steps or 'LoadRadarArray' in steps,
            'lidar': 'LoadLidarSweeps' in steps,
        }
        assert {sensor for sensor, there in loaded.items() if there} == set(
            config.model.rasterizers
        )
        assert 'radar-' in name or not loaded['radar']
        assert 'lidar-' in name or not loaded['lidar']
    METRICS.build(config.test_evaluator)


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('simplebev_r101')])
def test_full_size_is_that_of_the_paper(name):
    config = Config.fromfile(FOLDER / name)
    assert transforms(config.test_dataloader)['ResizeCropCameras'].size == (224, 400)
    assert [config.model.grid[axis][2] for axis in 'zyx'] == [200, 8, 200]
    if 'radar-' in name:
        radar = transforms(config.test_dataloader)['LoadRadarSweeps']
        assert radar.sweeps == 5
        assert len(config.model.rasterizers.radar.features) == 16


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'small' in name])
def test_training_blanks_each_sensor_at_times_and_testing_none(name):
    config = Config.fromfile(FOLDER / name)
    dropped = transforms(config.train_dataloader)['BlankSensor'].sensors
    assert set(dropped) == {'camera', *config.model.rasterizers}
    assert 'BlankSensor' not in transforms(config.test_dataloader)
    assert config.test_dataloader.dataset.blank_sensors == []
