"""Detections rebuilt with a graph: their values, their gradients, and what is left behind."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_detectors as tiny
import torch
from torch import nn

from explain3d.adapters.common.candidates import identify
from explain3d.adapters.mmdet3d.frames import detections_of, one_frame
from explain3d.adapters.mmdet3d.heads import HEADS, candidates_class
from explain3d.adapters.mmdet3d.heads.center import CenterCandidates
from explain3d.adapters.mmdet3d.tracer import Tracer
from explain3d.core.capture import cell_order
from explain3d.core.errors import InputError, NotApplicableError
from explain3d.core.structures import ATTRIBUTES, BOX_ATTRIBUTES, Detections


def two_stage(name):
    import tiny_two_stage

    return getattr(tiny_two_stage, name)


def multi_level():
    """Anchors on two maps of different stride, as FPN models have them."""
    config = tiny.second()
    config['neck'] = None
    head = tiny.anchor_head()
    head.update(in_channels=16, feat_channels=16)
    head['anchor_generator'].update(type='AlignedAnchor3DRangeGenerator', scales=[1, 2])
    head['anchor_generator'].update(size_per_range=True)
    config['bbox_head'] = head
    return config


def no_sigmoid():
    config = tiny.second()
    config['bbox_head']['loss_cls'] = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False)
    return config


def free_anchor():
    config = tiny.second()
    config['bbox_head']['type'] = 'FreeAnchor3DHead'
    return config


def turned_directions():
    config = tiny.second()
    config['bbox_head'].update(dir_offset=0.7854, dir_limit_offset=0)
    return config


def shape_aware():
    config = tiny.second()
    head = config['bbox_head']
    head.update(type='ShapeAwareHead', assign_per_class=True)
    shared = dict(shared_conv_channels=(16,))
    head['tasks'] = [
        dict(num_class=2, class_names=['a', 'b'], shared_conv_strides=(1,), **shared),
        dict(num_class=1, class_names=['c'], shared_conv_strides=(2,), **shared),
    ]
    head['anchor_generator'].update(type='AlignedAnchor3DRangeGeneratorPerCls')
    head['anchor_generator']['ranges'] = [[0, -6.4, -1.0, 12.8, 6.4, -1.0]] * 3
    return config


def deformable():
    config = tiny.centerpoint_voxel()
    config['pts_bbox_head']['separate_head'] = dict(
        type='DCNSeparateHead',
        dcn_config=dict(
            type='DCN', in_channels=16, out_channels=16, kernel_size=3, padding=1, groups=4
        ),
        init_bias=-2.19,
        final_kernel=3,
    )
    return config


def sizes_as_they_are():
    config = tiny.centerpoint_voxel()
    config['pts_bbox_head']['norm_bbox'] = False
    return config


MODELS = {
    **tiny.MODELS,
    'multi_level': multi_level,
    'no_sigmoid': no_sigmoid,
    'free_anchor': free_anchor,
    'turned_directions': turned_directions,
    'shape_aware': shape_aware,
    'deformable': deformable,
    'sizes_as_they_are': sizes_as_they_are,
    'pv_rcnn': lambda: two_stage('pv_rcnn')(),
    'parta2': lambda: two_stage('parta2')(),
}
LAYERS = {'pointpillars': 'pillars', 'centerpoint_pillar': 'pillars'}


class Scene:
    """A detector and its predictions for a batch of two."""

    def __init__(self, name, layer=None):
        self.model = tiny.build(MODELS[name]())
        with torch.no_grad():
            data = self.model.data_preprocessor(tiny.batch(tiny.cloud(0), tiny.cloud(1)), False)
            self.frames = [one_frame(data['inputs'], i, 2) for i in (0, 1)]
            self.samples = self.model(**data, mode='predict')
        self.tracer = Tracer(self.model, layer or LAYERS.get(name, 'stride4'))

    def detections(self, i):
        logits = self.tracer.candidates.reports_logits
        return detections_of(self.samples[i], tiny.CLASSES, str(i), logits)

    def inputs(self, i):
        return copy.deepcopy(self.frames[i])

    def candidates(self, i=0):
        with torch.no_grad():
            return self.tracer._run(self.model.predict, self.inputs(i), self.samples[i])

    def trace(self, i, detections=None):
        detections = self.detections(i) if detections is None else detections
        return self.tracer.trace(
            self.model.predict, self.inputs(i), self.samples[i], detections, str(i)
        )


@pytest.mark.parametrize('name', MODELS)
def test_attributes_are_those_of_the_detections(name):
    scene = Scene(name)
    for i in (0, 1):
        detections, trace = scene.detections(i), scene.trace(i)
        assert len(detections) >= 5
        assert len(set(detections.labels.tolist())) > 1
        found = torch.stack([trace.attributes[a] for a in BOX_ATTRIBUTES], 1)
        torch.testing.assert_close(found.detach(), detections.boxes, atol=1e-5, rtol=1e-5)
        score, logit = trace.attributes['score'].detach(), trace.attributes['logit'].detach()
        torch.testing.assert_close(score, detections.scores, atol=1e-6, rtol=1e-5)
        if name != 'no_sigmoid':
            torch.testing.assert_close(logit.sigmoid(), score)
        assert set(trace.attributes) == set(ATTRIBUTES)


def values_of(candidates, index, labels):
    values = dict(zip(BOX_ATTRIBUTES, candidates.boxes(index).unbind(1), strict=True))
    values['score'] = candidates.scores(index, labels)
    return {**values, 'logit': candidates.logits(index, labels)}


def in_float64(scene):
    scene.model.double()
    for frame in scene.frames:
        frame['points'] = [points.double() for points in frame['points']]
        frame['voxels']['voxels'] = frame['voxels']['voxels'].double()
    return scene


# Without the models whose operators know float32 only, or are not smooth (a pooled occupancy).
@pytest.mark.parametrize(
    'name', [name for name in MODELS if name not in ('deformable', 'pv_rcnn', 'parta2')]
)
def test_gradients_are_difference_quotients_in_float64(name):
    scene = in_float64(Scene(name))
    candidates, labels = scene.candidates(), torch.arange(3)
    pools = [candidates.of_label(label) for label in labels.tolist()]
    index = torch.stack([pool[(137 * k + 5) % len(pool)] for k, pool in enumerate(pools)])
    values = values_of(candidates, index, labels)
    boxes = torch.stack([values[a] for a in BOX_ATTRIBUTES], 1)
    detections = Detections(boxes, values['score'], labels, tuple(tiny.CLASSES))
    trace = scene.trace(0, detections)

    torch.manual_seed(3)
    direction, step = torch.randn_like(trace.leaf), 3e-8
    sides = []
    for sign in (1, -1):
        handle = scene.tracer.module.register_forward_hook(
            lambda _m, _i, out, move=sign * step * direction: (
                # The leaf's rows stand by cell, the network's as they come.
                out.replace_feature(out.features + move[cell_order(out.indices).argsort()])
                if hasattr(out, 'replace_feature')
                else out + move
            )
        )
        sides.append(values_of(scene.candidates(), index, labels))
        handle.remove()
    for attribute in ATTRIBUTES:
        quotient = (sides[0][attribute] - sides[1][attribute]) / (2 * step)
        for k in range(len(index)):
            value = trace.attributes[attribute][k]
            torch.testing.assert_close(value.detach(), values[attribute][k], atol=1e-9, rtol=1e-9)
            (gradient,) = torch.autograd.grad(value, trace.leaf, retain_graph=True)
            found = (gradient * direction).sum()
            torch.testing.assert_close(found, quotient[k], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ('name', 'layer', 'kind'),
    [
        ('second', 'stride4', 'sparse'),
        ('second', 'bev', 'bev'),
        ('second', 'backbone.blocks.0.1', 'bev'),
        ('second', 'neck', 'bev'),
        ('second', 'voxel_encoder', 'pillars'),
        ('pointpillars', 'pillars', 'pillars'),
        ('centerpoint_voxel', 'stride2', 'sparse'),
        ('centerpoint_voxel', 'pts_middle_encoder.conv_out', 'sparse'),
    ],
)
def test_rows_of_each_kind_of_layer(name, layer, kind):
    scene = Scene(name, layer=layer)
    trace, info = scene.trace(1), scene.tracer.layer
    features = trace.features
    assert info.kind == kind
    assert features.values.shape == (len(features.coords), info.channels)
    assert not features.values.requires_grad
    assert features.coords.dtype == torch.int64
    assert (features.coords >= 0).all()
    assert (features.coords < torch.tensor(features.spatial_shape)).all()
    assert len(features.coords.unique(dim=0)) == len(features.coords)
    rows = trace.rows(torch.arange(trace.leaf.numel()).view_as(trace.leaf).float())
    assert rows.shape == features.values.shape
    torch.testing.assert_close(trace.rows(trace.leaf.detach()), features.values)
    if kind == 'bev':  # Row r is the cell that its coordinates say.
        z, y, x = features.coords.unbind(1)
        torch.testing.assert_close(trace.leaf.detach()[0, :, y, x].T, features.values)
    torch.testing.assert_close(trace.points, torch.as_tensor(tiny.cloud(1)))


def test_voxels_lie_at_the_points_they_come_from():
    """Features of the first layer sit where the cloud is: coordinates, geometry and order agree."""
    scene = Scene('second', layer='stride1')
    trace = scene.trace(0)
    centers = trace.features.geometry.centers(trace.features.coords)
    distance = torch.cdist(trace.points[:, :3], centers, p=float('inf')).amin(1)
    assert (distance <= 0.1 + 1e-4).all()


def test_values_are_the_same_with_and_without_the_graph():
    scene = Scene('second')
    outputs = []
    handle = scene.tracer.module.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    with torch.no_grad():
        scene.model.predict(scene.inputs(0), [scene.samples[0]])
    handle.remove()
    trace = scene.trace(0)
    order = cell_order(outputs[0].indices)
    assert torch.equal(trace.features.values, outputs[0].features[order])
    assert torch.equal(trace.features.coords, outputs[0].indices[order, 1:].long())


@pytest.mark.parametrize('change', ['box', 'score', 'label'])
def test_a_foreign_detection_is_refused_by_name(change):
    scene = Scene('second')
    detections = scene.detections(0)
    if change == 'box':
        boxes = detections.boxes.clone()
        boxes[3, 1] += 0.3
        detections = replace(detections, boxes=boxes)
    elif change == 'score':
        scores = detections.scores.clone()
        scores[3] += 0.3
        detections = replace(detections, scores=scores)
    else:
        scores = detections.scores + torch.arange(len(detections)).eq(3) * 0.2
        detections = replace(detections, scores=scores)
    name = detections.names()[3]
    with pytest.raises(InputError, match=f"Frame '0': the detection {name} .* deviates by 0."):
        scene.trace(0, detections)


def test_a_layer_that_the_boxes_do_not_depend_on_is_refused():
    """The proposals of a two-stage detector are detached: its neck explains nothing."""
    scene = Scene('pv_rcnn', layer='neck')
    with pytest.raises(NotApplicableError, match="do not depend on layer 'neck'"):
        scene.trace(0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_maps_keep_their_cells(dtype):
    """Under autocast a head gives half precision, in which 200.3 is 200 or 200.25."""
    from mmdet3d.models.task_modules import CenterPointBBoxCoder

    coder = CenterPointBBoxCoder(
        pc_range=[-80.0, -80.0],
        post_center_range=[-100] * 3 + [100] * 3,
        out_size_factor=4,
        voxel_size=[0.2, 0.2],
        max_num=20,
        code_size=7,
    )
    head = SimpleNamespace(num_classes=[1], norm_bbox=True, bbox_coder=coder)
    generator = torch.Generator().manual_seed(0)
    channels = dict(heatmap=1, reg=2, height=1, dim=3, rot=2)
    maps = {
        name: torch.rand(1, count, 200, 220, generator=generator).to(dtype)
        for name, count in channels.items()
    }
    rot = maps['rot'][:, :1], maps['rot'][:, 1:]
    host = coder.decode(
        maps['heatmap'].sigmoid(), *rot, maps['height'], maps['dim'].exp(), None, maps['reg']
    )[0]
    found = CenterCandidates(head, [[maps]])
    detections = Detections(
        host['bboxes'][:, :7].float(), host['scores'].float(), host['labels'].long()
    )
    index = identify(found, detections, 'half')
    rounding = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        found.boxes(index)[:, :2], detections.boxes[:, :2], atol=rounding, rtol=0
    )


def test_an_unknown_head_is_refused_with_the_known_ones():
    with pytest.raises(NotApplicableError) as error:
        candidates_class(nn.Linear(1, 1))
    assert 'Linear' in str(error.value)
    assert all(name in str(error.value) for name in HEADS)


def test_subclasses_of_a_head_count_as_their_parent():
    class Mine(type('Anchor3DHead', (nn.Module,), {})):
        pass

    assert candidates_class(Mine()) is HEADS['Anchor3DHead']


@pytest.mark.parametrize('fails', [False, True])
@pytest.mark.parametrize('name', ['second', 'centerpoint_pillar', 'parta2'])
def test_the_model_is_left_as_found(name, fails):
    scene = Scene(name)
    model = scene.model
    next(model.parameters()).requires_grad_(False)
    model.backbone.train() if hasattr(model, 'backbone') else model.pts_backbone.train()
    before = state_of(model)
    predict = model.predict
    if fails:

        def predict(inputs, samples):
            model.predict(inputs, samples)
            raise AssertionError('the pass ends at the head')

        Broken.intercepts = scene.tracer.candidates.intercepts
        scene.tracer.candidates = Broken
        with pytest.raises(ZeroDivisionError):
            scene.tracer.trace(predict, scene.inputs(0), scene.samples[0], None, '0')
    else:
        scene.trace(0)
    assert state_of(model) == before


class Broken:
    def __init__(self, *args, **kwargs):
        raise ZeroDivisionError


def state_of(model):
    """Everything of a model that a pass could leave changed, in a form that compares."""
    return dict(
        training=[m.training for m in model.modules()],
        requires_grad=[p.requires_grad for p in model.parameters()],
        grads=[p.grad is None for p in model.parameters()],
        hooks=[len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        attributes=[sorted(vars(m)) for m in model.modules()],
        weights=[v.double().sum().item() for v in model.state_dict().values()],
        generator=torch.get_rng_state().tolist(),
    )
