"""Converted weights fit the models that the hosts build, stock ones included, and compute alike."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d', reason='one of the two hosts is MMDetection3D')

from explain3d.adapters.checkpoint_convert import convert_checkpoint  # noqa: E402
from explain3d.adapters.pcdet.config import read_config  # noqa: E402

ROOT = Path(__file__).parents[3]
KITTI = ['Car', 'Pedestrian', 'Cyclist']
NUSCENES = [
    ['car'], ['truck', 'construction_vehicle'], ['bus', 'trailer'], ['barrier'],
    ['motorcycle', 'bicycle'], ['pedestrian', 'traffic_cone'],
]  # fmt: skip
MMDET3D = {
    'second': 'second_hv_secfpn_kitti.py',
    'centerpoint': 'centerpoint_voxel01_second_secfpn_nus.py',
}
PCDET = {
    'second': 'kitti_models/second.yaml',
    'centerpoint': 'nuscenes_models/cbgs_voxel01_res3d_centerpoint.yaml',
}
#: Range, voxel and number of point features of the two.
GRIDS = {
    'second': ([0, -40, -3, 70.4, 40, 1], [0.05, 0.05, 0.1], 4),
    'centerpoint': ([-51.2, -51.2, -5, 51.2, 51.2, 3], [0.1, 0.1, 0.2], 5),
}
#: A few metres of them: the convolutions' weights do not depend on the extent.
SMALL = {
    'second': ([0, -1.6, -3, 3.2, 1.6, 1], GRIDS['second'][1], 4),
    'centerpoint': ([-3.2, -3.2, -5, 3.2, 3.2, 3], GRIDS['centerpoint'][1], 5),
}


def stock_section(host, detector):
    """The section MODEL of OpenPCDet's stock file; without OpenPCDet one made of ours."""
    if host.real:
        tools = host.root / 'tools'
        return read_config(tools / 'cfgs' / PCDET[detector], tools)['MODEL']
    model = read_config(ROOT / 'configs' / 'pcdet' / f'{detector}_small_miniworld.yaml')['MODEL']
    model['BACKBONE_2D'].update(
        LAYER_NUMS=[5, 5], NUM_FILTERS=[128, 256], UPSAMPLE_STRIDES=[1, 2],
        NUM_UPSAMPLE_FILTERS=[256, 256],
    )  # fmt: skip
    head = model['DENSE_HEAD']
    if detector == 'second':
        anchors = {one['class_name']: one for one in head['ANCHOR_GENERATOR_CONFIG']}
        for one in anchors.values():
            one['feature_map_stride'] = 8
        head['ANCHOR_GENERATOR_CONFIG'] = [anchors[name] for name in KITTI]
    else:
        model['BACKBONE_3D']['NAME'] = 'VoxelResBackBone8x'
        head.update(
            CLASS_NAMES_EACH_HEAD=NUSCENES, SHARED_CONV_CHANNEL=64, USE_BIAS_BEFORE_NORM=True
        )
    return model


def pcdet_model(host, detector, grid):
    from pcdet.config import EasyDict
    from pcdet.models import build_network

    limits, voxel, features = grid
    limits = np.array(limits, np.float32)
    dataset = EasyDict(
        class_names=KITTI if detector == 'second' else sum(NUSCENES, []),
        point_feature_encoder={'num_point_features': features},
        voxel_size=voxel, depth_downsample_factor=None, dataset_cfg={},
    )  # fmt: skip
    dataset.point_cloud_range = limits
    dataset.grid_size = np.round((limits[3:] - limits[:3]) / np.array(voxel)).astype(np.int64)
    section = EasyDict(stock_section(host, detector))
    return build_network(section, len(dataset.class_names), dataset).eval()


def mmdet3d_model(detector, grid):
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet3d')
    model = Config.fromfile(_base_file(MMDET3D[detector])).model
    limits, voxel, _ = grid
    model.data_preprocessor.voxel_layer.point_cloud_range = limits
    extent = np.round((np.array(limits[3:]) - limits[:3]) / voxel).astype(int)[::-1]
    encoder = model.middle_encoder if detector == 'second' else model.pts_middle_encoder
    encoder.sparse_shape = (extent + [1, 0, 0]).tolist()
    if detector == 'centerpoint':
        model.pts_bbox_head.bbox_coder.pc_range = limits[:2]
    return MODELS.build(model).eval()


def _base_file(name):
    import mmdet3d

    return Path(mmdet3d.__file__).parent / '.mim' / 'configs' / '_base_' / 'models' / name


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def stock(request, pcdet_host):
    """Detector, MMDetection3D's model and OpenPCDet's on a small grid, all numbers random."""
    torch.manual_seed(0)
    detector = request.param
    mm, pc = (
        mmdet3d_model(detector, SMALL[detector]),
        pcdet_model(pcdet_host, detector, SMALL[detector]),
    )
    for model in (mm, pc):
        for name, value in model.state_dict().items():
            if name.endswith(('running_mean', 'bias')):
                value.normal_()
            elif name.endswith('running_var') or ('weight' in name and value.ndim == 1):
                value.uniform_(0.5, 1.5)
    return detector, mm, pc


def test_names_and_shapes_are_those_of_the_other_hosts_stock_model(stock):
    detector, mm, pc = stock
    there = convert_checkpoint({'state_dict': mm.state_dict()})['model_state']
    assert shapes(there) == shapes(pc.state_dict())
    back = convert_checkpoint({'model_state': pc.state_dict()})['state_dict']
    assert shapes(back) == shapes(mm.state_dict())


@torch.no_grad()
def raw_outputs(detector, mm, pc):
    """Raw outputs of both in float64, MMDetection3D's as OpenPCDet lays them out."""
    torch.manual_seed(1)
    mm, pc = copy.deepcopy(mm).double(), copy.deepcopy(pc).double()
    depth, height, width = pc.backbone_3d.sparse_shape
    cells = torch.randperm(depth * height * width)[:300]
    z, rest = cells // (height * width), cells % (height * width)
    coords = torch.stack([torch.zeros_like(z), z, rest // width, rest % width], 1).int()
    voxels = torch.randn(300, 3, SMALL[detector][2], dtype=torch.float64)
    count = torch.full((300,), 3)
    pc.dense_head.generate_predicted_boxes = lambda *args, **kwargs: (None, None)
    batch = {'voxels': voxels, 'voxel_coords': coords, 'voxel_num_points': count, 'batch_size': 1}
    for module in pc.module_list:
        batch = module(batch)
    p = '' if detector == 'second' else 'pts_'
    x = getattr(mm, f'{p}voxel_encoder')(voxels, count, coords)
    x = getattr(mm, f'{p}middle_encoder')(x, coords, 1)
    made = getattr(mm, f'{p}bbox_head')(getattr(mm, f'{p}neck')(getattr(mm, f'{p}backbone')(x)))
    if detector == 'second':
        ours = [maps[0].permute(0, 2, 3, 1) for maps in made]
        kept = pc.dense_head.forward_ret_dict
        return ours, [kept[f'{name}_preds'] for name in ('cls', 'box', 'dir_cls')]
    heads = pc.dense_head.forward_ret_dict['pred_dicts']
    names = {'heatmap': 'hm', 'reg': 'center', 'height': 'center_z', 'dim': 'dim', 'vel': 'vel'}
    ours = [task[0][name] for task in made for name in names]
    theirs = [task[name] for task in heads for name in names.values()]
    ours += [task[0]['rot'][:, [1, 0]] for task in made]
    return ours, theirs + [task['rot'] for task in heads]


def compare(detector, mm, pc):
    for ours, theirs in zip(*raw_outputs(detector, mm, pc), strict=True):
        assert float(ours.std()) > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_stock_models_compute_the_same_with_openpcdets_weights(stock):
    """With random biases before the norms, which go into their means."""
    detector, mm, pc = stock
    mm = copy.deepcopy(mm)
    # In float64, so that the means are not rounded to float32 on the way.
    state = {k: v.double() if v.is_floating_point() else v for k, v in pc.state_dict().items()}
    made = convert_checkpoint({'model_state': state})['state_dict']
    mm.double().load_state_dict(made, strict=True)
    compare(detector, mm, pc)


def test_stock_models_compute_the_same_with_mmdetection3ds_weights(stock):
    detector, mm, pc = stock
    pc = copy.deepcopy(pc)
    made = convert_checkpoint({'state_dict': mm.state_dict()})['model_state']
    state = pc.state_dict()
    state.update(made)
    pc.load_state_dict(state, strict=True)
    compare(detector, mm, pc)


@pytest.mark.parametrize('stock', ['second'], indirect=True)
def test_a_stock_second_in_the_other_hosts_order_of_classes(stock):
    """Scores of one class at the anchors of one class are the same, wherever they stand."""
    detector, mm, pc = stock
    pc, order = copy.deepcopy(pc), ['Pedestrian', 'Cyclist', 'Car']
    made = convert_checkpoint({'state_dict': mm.state_dict()}, KITTI, source_classes=order)
    state = pc.state_dict()
    state.update(made['model_state'])
    pc.load_state_dict(state, strict=True)
    # The anchors of both hosts, in the order of the channels: the car's are the longest.
    sizes = [float(group[0, 0, 0, 0, 0, 3]) for group in pc.dense_head.anchors]
    generator = mm.bbox_head.prior_generator
    assert [size[0] for size in generator.sizes] == pytest.approx(
        [sizes[KITTI.index(c)] for c in order]
    )
    at = [order.index(name) for name in KITTI]
    for i, (ours, theirs) in enumerate(zip(*raw_outputs(detector, mm, pc), strict=True)):
        shape = (*ours.shape[:3], 3, 2, -1)
        moved = ours.reshape(shape)[:, :, :, at]
        moved = moved[..., at] if i == 0 else moved
        torch.testing.assert_close(moved, theirs.reshape(shape), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('detector', ['second', 'centerpoint'])
def test_shipped_configurations_build_what_the_weights_are_for(
    pcdet_host, pcdet_kitti, converted, detector
):
    from pcdet.config import EasyDict
    from pcdet.datasets import build_dataloader
    from pcdet.models import build_network

    name = f'{detector}_small_miniworld'
    cfg = EasyDict(read_config(ROOT / 'configs' / 'pcdet' / f'ffam_{name}.yaml'))
    cfg.DATA_CONFIG.DATA_PATH = str(pcdet_kitti)
    dataset, _, _ = build_dataloader(
        cfg.DATA_CONFIG, cfg.CLASS_NAMES, batch_size=1, dist=False, workers=0, training=False
    )
    assert len(dataset) == 2
    model = build_network(cfg.MODEL, 3, dataset)
    given = torch.load(converted(name))['model_state']
    # Biases before a norm are of configurations that have them; here they are zero.
    own = shapes(model.state_dict())
    assert {k: v for k, v in shapes(given).items() if k in own} == own
    assert not any(given[k].any() for k in given.keys() - own.keys())
