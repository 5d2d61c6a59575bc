"""Detectors that cannot be explained are refused with the reason, before the first frame."""

from types import SimpleNamespace

import pcdet_scenes as scenes
import pytest
import torch
from torch import nn

from explain3d.adapters.pcdet import explain, layers
from explain3d.adapters.pcdet.applicability import require_voxels_alone
from explain3d.adapters.pcdet.black_box import PcdetBlackBox
from explain3d.adapters.pcdet.raw_scores import reports_logits
from explain3d.adapters.pcdet.tracer import Tracer
from explain3d.core.errors import NotApplicableError


def detector(name='Mine', processor=(), **parts):
    """A detector of that class with these modules; a string is a module of a class called so."""
    model = type(name, (nn.Module,), {})()
    model.dataset = SimpleNamespace(dataset_cfg={'DATA_PROCESSOR': list(processor)})
    for part, module in parts.items():
        if isinstance(module, str):
            module = type(module, (nn.Module,), {})()
        setattr(model, part, module)
    return model


def with_pictures():
    backbone = nn.Identity()
    backbone.use_img = True
    return backbone


CASES = {
    'BevFusion': (
        dict(vfe='MeanVFE', image_backbone='Swin', fuser='ConvFuser', vtransform='DepthLSS'),
        r'fuses cameras and LiDAR: .*sensor_shares\(model, item\) .*sensor_report\(model, dataset',
    ),
    'CaDDN': (dict(vfe='ImageVFE', backbone_2d='BaseBEVBackbone'), 'sees pictures of a camera'),
    'VoxelRCNN': (dict(vfe='MeanVFE', backbone_3d=with_pictures()), 'sees pictures of a camera'),
    'MPPNet': (dict(roi_head='MPPNetHead'), 'joins the proposals of many frames, .*memory'),
    'MPPNetE2E': (dict(vfe='DynMeanVFE', roi_head='X'), 'joins the proposals of many frames'),
    'PointRCNN': (
        dict(backbone_3d='PointNet2MSG', point_head='PointHeadBox'),
        'works on points, and has no voxel grid of its own: expected a LiDAR detector',
    ),
    'VoxelNeXt': (
        dict(
            vfe='MeanVFE', processor=[{'NAME': 'transform_points_to_voxels', 'DOUBLE_FLIP': True}]
        ),
        'merges the predictions of flipped copies .*without DOUBLE_FLIP',
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_the_reason_and_the_remedy_are_told(name):
    parts, message = CASES[name]
    with pytest.raises(NotApplicableError, match=f'^{name} {message}'):
        require_voxels_alone(detector(name, **parts))


def test_a_head_that_merges_flipped_copies_is_refused():
    head = nn.Identity()
    head.double_flip = True
    with pytest.raises(NotApplicableError, match='DOUBLE_FLIP'):
        require_voxels_alone(detector(vfe='MeanVFE', dense_head=head))


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def model(request, pcdet_host):
    return scenes.build(request.param)


def test_attaching_refuses(model, monkeypatch):
    monkeypatch.setattr(model, 'image_backbone', nn.Identity(), raising=False)
    for attach in (
        layers,
        lambda m: Tracer(m, 'stride4'),
        PcdetBlackBox,
        lambda m: explain(m, scenes.cloud(1), 'ODAM'),
    ):
        with pytest.raises(NotApplicableError, match='sees pictures of a camera'):
            attach(model)


def test_raw_scores_change_nothing(model, monkeypatch):
    """The option makes an anchor head's scores logits, and no difference to a center head."""
    options = dict(method='ODAM', targets=['score', 'x'], layer='stride4')
    options['select'] = {'score_thr': 0.0, 'top_n': 3}
    plain = explain(model, scenes.cloud(1), **options)
    monkeypatch.setitem(model.model_cfg.POST_PROCESSING, 'OUTPUT_RAW_SCORE', True)
    raw = explain(model, scenes.cloud(1), **options)
    assert torch.equal(raw.detections.boxes, plain.detections.boxes)
    torch.testing.assert_close(raw.detections.scores, plain.detections.scores)
    for target, values in plain.maps.saliency.items():
        assert values.any()
        torch.testing.assert_close(raw.maps.saliency[target], values)


@pytest.mark.parametrize(
    ('settings', 'scores', 'more', 'expected'),
    [
        ({}, [3.0], {}, False),
        ({'OUTPUT_RAW_SCORE': False}, [3.0], {}, False),
        ({'OUTPUT_RAW_SCORE': True}, [3.0], {}, True),
        ({'OUTPUT_RAW_SCORE': True}, [0.5, 1.0], {}, False),
        ({'OUTPUT_RAW_SCORE': True}, [3.0], {'pred_cls_scores': torch.ones(1)}, False),
        ({'OUTPUT_RAW_SCORE': True, 'NMS_CONFIG': {'MULTI_CLASSES_NMS': True}}, [3.0], {}, False),
    ],
)
def test_when_scores_are_logits(settings, scores, more, expected):
    """Of a detector with a post-processing of its own."""
    model = detector(dense_head='MyHead')
    type(model).post_processing = lambda self, batch: None
    model.model_cfg = {'POST_PROCESSING': settings}
    assert reports_logits(model, {'pred_scores': torch.tensor(scores), **more}) is expected


def test_a_pass_whose_candidates_are_others_is_refused(model):
    """Boxes after suppression are others with other features; anchors are always the same."""
    several = dict(method='IntegratedGradients', targets='score', head='any', steps=2)
    several |= dict(layer='stride4', select={'score_thr': 0.0, 'top_n': 1})
    if type(model).__name__ == 'CenterPoint':
        with pytest.raises(NotApplicableError, match='other candidates are chosen .suppression'):
            explain(model, scenes.cloud(1), **several)
    else:
        assert explain(model, scenes.cloud(1), **several).saliency.any()
