"""What the adapter builds on is there in OpenPCDet, and in the stand-in just the same.

The same assertions run on the real package where there is one: they are what keeps the stand-in
honest.
"""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from explain3d.adapters.pcdet.config import read_config

ROOT = Path(__file__).parents[3]
NAMES = ['second_small_miniworld', 'centerpoint_small_miniworld']


@pytest.fixture(scope='module', params=NAMES)
def ran(request, pcdet_host, pcdet_kitti, converted):
    """Configuration, model, batch after a pass, and what the pass returned."""
    import logging

    from pcdet.config import EasyDict
    from pcdet.datasets import build_dataloader
    from pcdet.models import build_network, load_data_to_gpu

    cfg = EasyDict(read_config(ROOT / 'configs' / 'pcdet' / f'{request.param}.yaml'))
    cfg.DATA_CONFIG.DATA_PATH = str(pcdet_kitti)
    dataset, loader, sampler = build_dataloader(
        dataset_cfg=cfg.DATA_CONFIG, class_names=cfg.CLASS_NAMES, batch_size=2, dist=False,
        workers=0, logger=None, training=False,
    )  # fmt: skip
    assert sampler is None
    model = build_network(model_cfg=cfg.MODEL, num_class=3, dataset=dataset)
    model.load_params_from_file(str(converted(request.param)), logging.getLogger('pcdet'), True)
    batch = next(iter(loader))
    load_data_to_gpu(batch)
    with torch.no_grad():
        found, recall = model.eval()(batch)
    return cfg, model, batch, found, recall


def test_modules_stand_where_the_topology_says(ran):
    _, model, _, _, _ = ran
    assert model.module_topology == [
        'vfe', 'backbone_3d', 'map_to_bev_module', 'pfe',
        'backbone_2d', 'dense_head', 'point_head', 'roi_head',
    ]  # fmt: skip
    for name in ('vfe', 'backbone_3d', 'map_to_bev_module', 'backbone_2d', 'dense_head'):
        assert isinstance(getattr(model, name), torch.nn.Module)
    assert model.pfe is None
    assert model.roi_head is None
    assert model.dataset.grid_size.tolist() == [512, 512, 40]
    assert model.class_names == ['Pedestrian', 'Cyclist', 'Car']


def test_the_batch_holds_the_inputs(ran):
    _, _, batch, _, _ = ran
    assert batch['batch_size'] == 2
    assert list(batch['frame_id']) == ['000200', '000201']
    assert batch['points'].shape[1] == 5
    assert batch['voxels'].shape[1:] == (5, 4)
    assert batch['voxel_coords'].shape[1] == 4
    assert batch['points'][:, 0].unique().tolist() == [0, 1]
    cells = batch['voxel_coords'].long()
    assert (cells[:, 1:].amax(0) < torch.tensor([40, 512, 512])).all()
    # Each voxel's first point lies in its cell.
    low = torch.tensor([0, -25.6, -3])
    centre = low + (cells[:, [3, 2, 1]] + 0.5) * 0.1
    assert ((batch['voxels'][:, 0, :3] - centre).abs() < 0.051).all()
    assert batch['gt_boxes'].shape[::2] == (2, 8)
    assert batch['image_shape'].shape == (2, 2)


def test_the_batch_holds_the_features(ran):
    _, model, batch, _, _ = ran
    strides = {f'x_conv{i + 1}': 2**i for i in range(4)}
    assert batch['multi_scale_3d_strides'] == strides
    channels = model.backbone_3d.backbone_channels
    for name, stride in strides.items():
        tensor = batch['multi_scale_3d_features'][name]
        assert tensor.features.shape[1] == channels[name]
        assert tensor.spatial_shape[1:] == [512 // stride, 512 // stride]
        assert tensor.indices.shape == (len(tensor.features), 4)
    assert batch['voxel_features'].shape == (len(batch['voxels']), 4)
    assert batch['spatial_features'].shape == (2, 256, 64, 64)
    assert batch['spatial_features_2d'].shape == (2, 128, 128, 128)
    encoded = batch['encoded_spconv_tensor']
    dense = encoded.dense()  # (B, C, D, H, W)
    assert torch.equal(batch['spatial_features'], dense.flatten(1, 2))


def test_the_head_keeps_its_raw_outputs(ran):
    cfg, model, batch, _, _ = ran
    kept = model.dense_head.forward_ret_dict
    if cfg.MODEL.NAME == 'SECONDNet':
        assert kept['cls_preds'].shape == (2, 128, 128, 6 * 3)
        assert kept['box_preds'].shape == (2, 128, 128, 6 * 7)
        assert kept['dir_cls_preds'].shape == (2, 128, 128, 6 * 2)
        assert batch['batch_cls_preds'].shape == (2, 128 * 128 * 6, 3)
        assert batch['batch_box_preds'].shape == (2, 128 * 128 * 6, 7)
        assert batch['cls_preds_normalized'] is False
        assert model.dense_head.num_anchors_per_location == 6
        assert [tuple(a.shape) for a in model.dense_head.anchors] == [(1, 128, 128, 1, 2, 7)] * 3
        assert_anchors(model.dense_head.anchors[2])
    else:
        assert [sorted(task) for task in kept['pred_dicts']] == [
            ['center', 'center_z', 'dim', 'hm', 'rot', 'vel']
        ] * 3
        assert kept['pred_dicts'][0]['hm'].shape == (2, 1, 128, 128)
        assert len(batch['final_box_dicts']) == 2
        ids = [mapping.tolist() for mapping in model.dense_head.class_id_mapping_each_head]
        assert ids == [[0], [1], [2]]


def assert_anchors(anchors):
    """Cars' anchors: from border to border, standing on -1.78 m, along x and turned."""
    first, last = anchors[0, 0, 0, 0, 0], anchors[0, -1, -1, 0, 1]
    expected = [0, -25.6, -1.78 + 0.78, 3.9, 1.6, 1.56, 0]
    torch.testing.assert_close(first, torch.tensor(expected), atol=1e-5, rtol=0)
    expected = [51.2, 25.6, -1.0, 3.9, 1.6, 1.56, 1.57]
    torch.testing.assert_close(last, torch.tensor(expected), atol=1e-4, rtol=0)


def test_detections_are_boxes_scores_and_labels_from_1(ran):
    cfg, model, batch, found, recall = ran
    assert len(found) == 2
    for frame in found:
        count = len(frame['pred_boxes'])
        assert count > 10
        assert frame['pred_boxes'].shape[1] == (7 if cfg.MODEL.NAME == 'SECONDNet' else 9)
        assert frame['pred_scores'].shape == frame['pred_labels'].shape == (count,)
        assert frame['pred_labels'].dtype == torch.int64
        assert set(frame['pred_labels'].tolist()) <= {1, 2, 3}
        assert float(frame['pred_scores'].min()) >= 0.1
    # Most of the annotated objects are found: the conversion and the geometry are right.
    assert recall['gt'] == int(batch['gt_boxes'].any(2).sum())
    assert recall['rcnn_0.3'] > 0.7 * recall['gt']
    assert recall['rcnn_0.3'] >= recall['rcnn_0.5'] >= recall['rcnn_0.7'] > 0
    assert recall['roi_0.5'] == 0


def test_records_of_predictions_are_in_the_cameras_frame(ran):
    _, model, batch, found, _ = ran
    annos = model.dataset.generate_prediction_dicts(batch, found, model.class_names)
    assert [anno['frame_id'] for anno in annos] == ['000200', '000201']
    for anno, frame in zip(annos, found, strict=True):
        boxes = frame['pred_boxes'].numpy()
        np.testing.assert_array_equal(anno['boxes_lidar'], boxes)
        # The rectified camera looks along x: depth is x but for the mounting offset of 0.27 m.
        np.testing.assert_allclose(anno['location'][:, 2], boxes[:, 0] - 0.27, atol=1e-4)
        np.testing.assert_allclose(anno['rotation_y'], -boxes[:, 6] - np.pi / 2, atol=1e-6)
        np.testing.assert_allclose(anno['dimensions'], boxes[:, [3, 5, 4]])
        names = np.array(model.class_names)[frame['pred_labels'].numpy() - 1]
        assert anno['name'].tolist() == names.tolist()
        # As near boxes are cut at the image's border, only those in front are compared in size.
        assert (anno['bbox'][:, 2] >= anno['bbox'][:, 0]).all()


@pytest.mark.parametrize(
    ('path', 'names'),
    [
        ('pcdet.config:cfg_from_list', ['cfg_list', 'config']),
        ('pcdet.models:build_network', ['model_cfg', 'num_class', 'dataset']),
        ('pcdet.models.model_utils.model_nms_utils:class_agnostic_nms',
         ['box_scores', 'box_preds', 'nms_config', 'score_thresh']),
        ('pcdet.models.detectors.detector3d_template:Detector3DTemplate._load_state_dict',
         ['self', 'model_state_disk', 'strict']),
        ('pcdet.models.detectors.detector3d_template:Detector3DTemplate.post_processing',
         ['self', 'batch_dict']),
        ('pcdet.models.dense_heads.anchor_head_single:AnchorHeadSingle.generate_predicted_boxes',
         ['self', 'batch_size', 'cls_preds', 'box_preds', 'dir_cls_preds']),
        ('pcdet.models.dense_heads.center_head:CenterHead.generate_predicted_boxes',
         ['self', 'batch_size', 'pred_dicts']),
        ('pcdet.models.roi_heads.roi_head_template:RoIHeadTemplate.proposal_layer',
         ['self', 'batch_dict', 'nms_config']),
        ('pcdet.models.roi_heads.roi_head_template:RoIHeadTemplate.generate_predicted_boxes',
         ['self', 'batch_size', 'rois', 'cls_preds', 'box_preds']),
        ('pcdet.datasets.kitti.kitti_dataset:KittiDataset.generate_prediction_dicts',
         ['batch_dict', 'pred_dicts', 'class_names', 'output_path']),
        ('pcdet.utils.common_utils:merge_results_dist', ['result_part', 'size', 'tmpdir']),
        ('pcdet.utils.common_utils:create_logger', ['log_file', 'rank', 'log_level']),
    ],
)  # fmt: skip
def test_functions_take_what_the_adapter_gives(pcdet_host, path, names):
    import importlib

    module, _, attribute = path.partition(':')
    found = importlib.import_module(module)
    for name in attribute.split('.'):
        found = getattr(found, name)
    assert list(inspect.signature(found).parameters) == names


def test_the_runner_calls_its_evaluation_as_an_attribute(pcdet_host):
    script = (pcdet_host.root / 'tools' / 'test.py').read_text()
    assert 'eval_utils.eval_one_epoch(' in script
    evaluation = (pcdet_host.root / 'tools' / 'eval_utils' / 'eval_utils.py').read_text()
    scope = {}
    head = evaluation[evaluation.index('def eval_one_epoch(') :].partition(':\n')[0]
    exec(f'{head}: pass', scope)
    assert list(inspect.signature(scope['eval_one_epoch']).parameters) == [
        'cfg', 'args', 'model', 'dataloader', 'epoch_id', 'logger', 'dist_test', 'result_dir',
    ]  # fmt: skip


def test_detectors_are_looked_up_by_name(pcdet_host):
    from pcdet.models import detectors

    assert {'SECONDNet', 'CenterPoint', 'VoxelRCNN'} <= detectors.__all__.keys()
    assert detectors.__all__['SECONDNet'] is detectors.SECONDNet


def test_settings_on_the_command_line_keep_their_type(pcdet_host):
    from pcdet.config import EasyDict, cfg_from_list

    cfg = EasyDict({'MODEL': {'SCORE_THRESH': 0.1, 'NAME': 'a'}})
    cfg_from_list(['MODEL.SCORE_THRESH', '0.3', 'MODEL.NAME', 'b'], cfg)
    assert cfg.MODEL == {'SCORE_THRESH': 0.3, 'NAME': 'b'}
    with pytest.raises(AssertionError, match='NotFoundKey'):
        cfg_from_list(['MODEL.OTHER', '1'], cfg)


def test_a_second_stage_refines_detached_proposals(pcdet_host, pcdet_kitti):
    """The stand-in's head in the manner of Voxel R-CNN, whose real operators are compiled."""
    if pcdet_host.real:
        pytest.skip('the real head has other parameters; its pooling has tests of its own')
    from pcdet.config import EasyDict
    from pcdet.datasets import build_dataloader
    from pcdet.models import build_network, load_data_to_gpu

    cfg = EasyDict(read_config(ROOT / 'configs' / 'pcdet' / 'second_small_miniworld.yaml'))
    cfg.DATA_CONFIG.DATA_PATH = str(pcdet_kitti)
    cfg.MODEL.NAME = 'VoxelRCNN'
    nms = {'NMS_TYPE': 'nms_gpu', 'NMS_THRESH': 0.7, 'MULTI_CLASSES_NMS': False}
    nms |= {'NMS_PRE_MAXSIZE': 40, 'NMS_POST_MAXSIZE': 8}
    cfg.MODEL.ROI_HEAD = {
        'NAME': 'VoxelRCNNHead', 'CLASS_AGNOSTIC': True, 'SHARED_FC': [8], 'CLS_FC': [8],
        'REG_FC': [8], 'NMS_CONFIG': {'TEST': nms}, 'TARGET_CONFIG': {'BOX_CODER': 'ResidualCoder'},
        'ROI_GRID_POOL': {'FEATURES_SOURCE': ['x_conv3', 'x_conv4'], 'GRID_SIZE': 2},
    }  # fmt: skip
    torch.manual_seed(0)
    dataset, _, _ = build_dataloader(cfg.DATA_CONFIG, cfg.CLASS_NAMES, 1, False, training=False)
    model = build_network(cfg.MODEL, 3, dataset).eval()
    batch = dataset.collate_batch([dataset[0], dataset[1]])
    load_data_to_gpu(batch)
    found, recall = model(batch)
    assert batch['rois'].shape == (2, 8, 7)
    assert not batch['rois'].requires_grad
    assert batch['batch_cls_preds'].shape == (2, 8, 1)
    assert batch['batch_box_preds'].requires_grad
    assert set(batch['roi_labels'].flatten().tolist()) <= {1, 2, 3}
    assert set(found[0]['pred_labels'].tolist()) <= set(batch['roi_labels'][0].tolist())
    assert len(found) == 2
    assert recall['gt'] > 0
    # A proposal's own box is what no refinement gives back.
    head = model.roi_head
    zero = torch.zeros(16, 7)
    _, same = head.generate_predicted_boxes(2, batch['rois'], zero[:, :1], zero)
    torch.testing.assert_close(same, batch['rois'])
