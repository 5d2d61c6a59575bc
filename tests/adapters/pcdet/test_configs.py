"""Every OpenPCDet configuration that ships: its section EXPLAINER, its base, its layer.

What needs OpenPCDet's own configurations and models runs where there is a real OpenPCDet.
"""

import logging
from pathlib import Path

import pytest

pytest.importorskip('yaml')

import yaml

from explain3d.adapters.common.benchmark_plan import BenchmarkPlan
from explain3d.adapters.common.layers import PILLARS, SPARSE, find_layer
from explain3d.adapters.pcdet.benchmark import benchmark_settings
from explain3d.adapters.pcdet.config import read_config
from explain3d.adapters.pcdet.settings import settings_of
from explain3d.core.selection import Selection
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS
from explain3d.metrics.protocol import Protocol
from tests.helpers.pcdet_host import find_host

FOLDER = Path(__file__).parents[3] / 'configs' / 'pcdet'
CONFIGS = sorted(p.stem for p in FOLDER.glob('*.yaml'))
EXPLAINING = [name for name in CONFIGS if name.startswith('ffam_')]
MEASURING = [name for name in CONFIGS if name.startswith('metrics_')]
STOCK = {
    'ffam_second_kitti': 'kitti_models/second.yaml',
    'ffam_pv-rcnn_kitti': 'kitti_models/pv_rcnn.yaml',
    'ffam_voxel-rcnn_kitti': 'kitti_models/voxel_rcnn_car.yaml',
    'ffam_pointpillars_kitti': 'kitti_models/pointpillar.yaml',
    'ffam_centerpoint_nuscenes': 'nuscenes_models/cbgs_voxel01_res3d_centerpoint.yaml',
    'ffam_voxelnext_nuscenes': 'nuscenes_models/cbgs_voxel0075_voxelnext.yaml',
    'ffam_centerpoint_waymo': 'waymo_models/centerpoint.yaml',
    'ffam_pv-rcnn_waymo': 'waymo_models/pv_rcnn.yaml',
}


def own(name):
    """What is in the file itself."""
    return yaml.safe_load((FOLDER / f'{name}.yaml').read_text())


@pytest.fixture(scope='module')
def tools():
    """OpenPCDet's folder ``tools``."""
    host = find_host()
    if not host.real:
        pytest.skip(f'needs the configurations of a real OpenPCDet; this is {host.name}')
    return host.root / 'tools'


def test_there_are_configs():
    assert set(STOCK) <= set(EXPLAINING)
    assert MEASURING
    assert len(CONFIGS) > len(EXPLAINING) + len(MEASURING)


@pytest.mark.parametrize('name', EXPLAINING)
def test_method_targets_and_selection_exist(name):
    settings = settings_of(own(name))
    EXPLAINERS.build(settings.explainer)
    assert len(parse_targets(settings.targets)) == 9
    assert Selection(**settings.select).top_n == 20
    assert set(settings.outputs) <= {'dir', 'save', 'pictures'}


@pytest.mark.parametrize('name', EXPLAINING)
def test_the_base_is_stock_or_ours(name):
    base, note = own(name)['_BASE_CONFIG_'].split(' ', 1)
    assert 'explain3d.adapters.pcdet' in note  # What OpenPCDet's own reader stops with.
    assert base == f'cfgs/{STOCK[name]}' if name in STOCK else (FOLDER / base).is_file()
    # Nothing of the detector is changed.
    assert set(own(name)) == {'_BASE_CONFIG_', 'EXPLAINER'}


@pytest.mark.parametrize('name', sorted(set(CONFIGS) - set(STOCK)))
def test_configs_of_ours_resolve_without_openpcdet(name):
    config = read_config(FOLDER / f'{name}.yaml')
    assert '_BASE_CONFIG_' not in str(config)
    assert {'CLASS_NAMES', 'DATA_CONFIG', 'MODEL'} <= set(config)
    assert ('EXPLAINER' in config) == (name in EXPLAINING + MEASURING)


def test_the_benchmark_is_that_of_mmdetection3d():
    pytest.importorskip('mmengine')
    from mmengine.config import Config

    twin = Config.fromfile(FOLDER.parent / 'benchmark' / 'benchmark_second_miniworld.py')
    twin = twin.benchmark.to_dict()
    found = benchmark_settings(FOLDER / 'benchmark_second_small_miniworld.yaml', {})
    plan = BenchmarkPlan.of(found, config='x')
    assert plan.methods.keys() == twin['methods'].keys()
    for name, method in plan.methods.items():
        ours, theirs = (EXPLAINERS.build(m).settings() for m in (method, twin['methods'][name]))
        assert ours == theirs, name
    for name in ('targets', 'metrics'):
        assert list(found[name]) == list(twin[name])


@pytest.mark.parametrize('name', MEASURING)
def test_metrics_and_protocol_are_the_defaults_of_the_benchmark(name):
    settings = settings_of(read_config(FOLDER / f'{name}.yaml'))
    evaluator = settings.measure().evaluator
    assert evaluator.metrics == ('deletion', 'insertion', 'vea', 'pg', 'enpg')
    assert evaluator.protocol == Protocol()
    assert settings.explainer['type'] == 'FFAM'
    assert Selection(**settings.select).matched == 'tp'


def test_the_small_detector_for_waymo_has_the_size_of_its_twin():
    """MMDetection3D's file says the same where the two overlap."""
    pytest.importorskip('mmengine')
    from mmengine.config import Config

    path = FOLDER.parent / 'centerpoint' / 'centerpoint_small_mini-waymo.py'
    twin = Config.fromfile(path).model
    config = read_config(FOLDER / 'centerpoint_small_mini-waymo.yaml')
    data, model = config['DATA_CONFIG'], config['MODEL']
    voxels = twin.data_preprocessor.voxel_layer
    assert data['POINT_CLOUD_RANGE'] == voxels.point_cloud_range
    assert data['DATA_PROCESSOR'][-1]['VOXEL_SIZE'] == voxels.voxel_size
    limits = data['DATA_PROCESSOR'][-1]['MAX_NUMBER_OF_VOXELS']
    assert (limits['train'], limits['test']) == tuple(voxels.max_voxels)
    assert model['BACKBONE_2D']['NUM_FILTERS'] == twin.pts_backbone.out_channels
    assert model['BACKBONE_2D']['UPSAMPLE_STRIDES'] == twin.pts_neck.upsample_strides
    # Two heights are left of 41 after three halvings and the last layer.
    assert model['MAP_TO_BEV']['NUM_BEV_FEATURES'] == twin.pts_backbone.in_channels
    assert twin.pts_backbone.in_channels == 2 * twin.pts_middle_encoder.output_channels
    head, ours = twin.pts_bbox_head, model['DENSE_HEAD']
    assert ours['SHARED_CONV_CHANNEL'] == head.share_conv_channel
    assert ours['TARGET_ASSIGNER_CONFIG']['FEATURE_MAP_STRIDE'] == head.bbox_coder.out_size_factor
    classes = [name.replace('Car', 'Vehicle') for name in head.tasks[0].class_names]
    assert ours['CLASS_NAMES_EACH_HEAD'] == [classes]
    assert config['CLASS_NAMES'] == classes
    nms = ours['POST_PROCESSING']['NMS_CONFIG']
    assert nms['NMS_THRESH'] == twin.test_cfg.pts.nms_thr
    limit = ours['POST_PROCESSING']['POST_CENTER_LIMIT_RANGE']
    assert limit == head.bbox_coder.post_center_range


@pytest.mark.parametrize('name', sorted(STOCK))
def test_stock_configs_resolve(name, tools):
    config = read_config(FOLDER / f'{name}.yaml', tools)
    assert '_BASE_CONFIG_' not in str(config)
    assert config['DATA_CONFIG']['DATASET'].removesuffix('Dataset').lower() in name.lower()
    assert config['MODEL']['POST_PROCESSING']['EVAL_METRIC'] in ('kitti', 'waymo')


@pytest.mark.slow
@pytest.mark.parametrize('name', EXPLAINING)
def test_the_layer_is_there(name, tools, pcdet_host):
    from easydict import EasyDict
    from pcdet.datasets.dataset import DatasetTemplate
    from pcdet.models import build_network

    from explain3d.adapters.pcdet.layers import layers

    config = EasyDict(read_config(FOLDER / f'{name}.yaml', tools))
    dataset = DatasetTemplate(
        config.DATA_CONFIG, config.CLASS_NAMES, False, Path('none'), logging.getLogger()
    )
    model = build_network(config.MODEL, len(config.CLASS_NAMES), dataset).eval()
    wanted = settings_of(config).explainer['layer']
    found = find_layer(layers(model), wanted)
    if wanted == 'pillars':
        assert (found.kind, found.stride, found.channels) == (PILLARS, 1, 64)
    else:
        assert (found.kind, found.stride, found.channels) == (SPARSE, 4, 64)
