"""Two-stage detectors of OpenPCDet: the refinement alone, or the path through the proposal too."""

import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.pcdet import explain
from explain3d.adapters.pcdet.frames import detections_of, frames_of
from explain3d.adapters.pcdet.heads.roi import RoICandidates
from explain3d.adapters.pcdet.proposals import Proposals, with_graph
from explain3d.adapters.pcdet.tracer import Tracer
from explain3d.core.errors import NotApplicableError
from explain3d.core.structures import BOX_ATTRIBUTES

NMS = {
    'NMS_TYPE': 'nms_gpu', 'NMS_THRESH': 0.7, 'MULTI_CLASSES_NMS': False,
    'NMS_PRE_MAXSIZE': 200, 'NMS_POST_MAXSIZE': 10, 'USE_FAST_NMS': False, 'SCORE_THRESH': 0.0,
}  # fmt: skip
POOL = {
    'MLPS': [[8, 8]], 'QUERY_RANGES': [[4, 4, 4]], 'NSAMPLE': [16], 'POOL_METHOD': 'max_pool',
}  # fmt: skip
ROI_HEAD = {
    'NAME': 'VoxelRCNNHead', 'CLASS_AGNOSTIC': True, 'DP_RATIO': 0.3,
    'SHARED_FC': [16], 'CLS_FC': [16], 'REG_FC': [16],
    'NMS_CONFIG': {'TRAIN': NMS, 'TEST': NMS},
    'TARGET_CONFIG': {'BOX_CODER': 'ResidualCoder'},
    'LOSS_CONFIG': {'LOSS_WEIGHTS': {'code_weights': [1.0] * 7}},
    'ROI_GRID_POOL': {
        'FEATURES_SOURCE': ['x_conv3', 'x_conv4'], 'GRID_SIZE': 3, 'PRE_MLP': True,
        'POOL_LAYERS': {
            'x_conv3': {**POOL, 'POOL_RADIUS': [0.8]}, 'x_conv4': {**POOL, 'POOL_RADIUS': [1.6]},
        },
    },
}  # fmt: skip


@pytest.fixture(scope='module')
def model(pcdet_host):
    """Voxel R-CNN on the small SECOND; its refinement is as large as its proposals vary."""

    def two_stages(config):
        config['MODEL'].update(NAME='VoxelRCNN', ROI_HEAD=ROI_HEAD)

    model = scenes.build('second', two_stages)
    torch.nn.init.normal_(model.roi_head.reg_pred_layer.weight, std=0.1)
    torch.nn.init.normal_(model.roi_head.cls_pred_layer.weight, std=0.3)
    return model


def traced(model, layer='stride4', through=False, count=3):
    batch = scenes.batch(model, scenes.cloud(1), scenes.cloud(2))
    with torch.no_grad():
        found = model(dict(batch))[0][1]
    detections = detections_of(found, model.class_names, 'f')[:count]
    tracer = Tracer(model, layer, through_proposals=through)
    return tracer, tracer.trace(model.forward, frames_of(batch)[1], detections)


def gradient(trace, name, k=0):
    return torch.autograd.grad(trace.attributes[name][k], trace.leaf, retain_graph=True)[0]


@pytest.mark.parametrize('through', [False, True])
def test_attributes_are_what_the_host_reported(model, through):
    tracer, trace = traced(model, through=through)
    assert tracer.head_path == 'roi_head'
    assert len(trace.detections) == 3
    for i, name in enumerate(BOX_ATTRIBUTES):
        got, want = trace.attributes[name].detach(), trace.detections.boxes[:, i]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    scores = trace.attributes['score'].detach()
    torch.testing.assert_close(scores, trace.detections.scores, rtol=1e-4, atol=1e-5)


def test_the_refinement_alone_does_not_see_the_dense_head(model):
    """Voxel R-CNN pools sparse features: only the proposals come from the neck."""
    with pytest.raises(NotApplicableError, match="do not depend on layer 'backbone_2d'"):
        traced(model, 'neck')
    _, trace = traced(model, 'neck', through=True)
    assert gradient(trace, 'x').any()


def test_the_path_through_the_proposal_adds_to_the_refinement(model):
    _, refined = traced(model)
    _, both = traced(model, through=True)
    for name in ('x', 'l', 'yaw'):
        alone, whole = gradient(refined, name), gradient(both, name)
        assert alone.any()
        assert (whole - alone).norm() > 0.01 * alone.norm()


@pytest.mark.parametrize('name', ['x', 'l', 'yaw'])
def test_with_both_paths_gradients_are_the_slopes_of_the_host_itself(model, name):
    tracer, trace = traced(model, 'neck', through=True)
    k = 2  # One whose rank in the suppression no small step changes.
    slope = gradient(trace, name, k)
    step = 1e-3 / slope.norm()
    moved = []
    for sign in (1, -1):

        def move(_module, _inputs, batch, sign=sign):
            return {
                **batch,
                'spatial_features_2d': batch['spatial_features_2d'] + sign * step * slope,
            }

        handle = tracer.module.register_forward_hook(move)
        with torch.no_grad():
            found = model(scenes.batch(model, scenes.cloud(2)))[0][0]
        handle.remove()
        boxes = detections_of(found, model.class_names, 'f').boxes
        nearest = (boxes - trace.detections.boxes[k]).abs().amax(1).argmin()
        moved.append(boxes[nearest, BOX_ATTRIBUTES.index(name)])
    expected = 2 * step * slope.square().sum()
    torch.testing.assert_close(moved[0] - moved[1], expected, rtol=0.1, atol=2e-6)


@pytest.mark.parametrize('through', [False, True])
def test_other_features_are_of_the_same_proposals(model, through, monkeypatch):
    """A pass with half the features would choose others: a detection's row is another box there."""
    passes = []

    class Spy(RoICandidates):
        def __init__(self, head, batch, *args, **kwargs):
            super().__init__(head, batch, *args, **kwargs)
            passes.append(
                (self.rois.detach().clone(), self.labels.clone(), batch['batch_box_preds'])
            )

    monkeypatch.setattr('explain3d.adapters.pcdet.tracer.candidates_class', lambda *_: Spy)
    _, trace = traced(model, through=through)
    leaf, _ = trace.replay(trace.leaf.detach() * 0.5)
    assert leaf.requires_grad
    (first, labels, boxes), (again, same, others) = passes
    assert torch.equal(labels, same)
    index = torch.cdist(first, boxes[0].detach(), p=float('inf')).argmin(1)
    assert torch.equal(again, others[0].detach()[index] if through else first)
    # By itself the head chooses others there.
    module = model.get_submodule(trace.features.name)
    handle = module.register_forward_hook(lambda _m, _i, out: out.replace_feature(out.features / 2))
    try:
        traced(model, through=through)
    finally:
        handle.remove()
    assert not torch.equal(passes[-1][0], again)


def test_methods_of_several_passes_add_up_with_constant_proposals(model):
    """The sum of the gradients along the way is the change of the score, with the same proposal."""
    options = dict(select={'score_thr': 0.0, 'top_n': 1}, layer='stride4', steps=30)
    found = explain(model, scenes.cloud(2), 'IntegratedGradients', 'logit', **options)
    assert found.maps.info['completeness_error'] < 0.1


def test_proposals_are_exchanged_for_the_boxes_that_they_equal():
    boxes = torch.randn(1, 40, 7, requires_grad=True)
    rois = torch.zeros(1, 5, 7)
    rois[0, :3] = boxes.detach()[0, [7, 30, 2]]
    found = with_graph(rois, boxes)
    assert torch.equal(found, rois)
    (slope,) = torch.autograd.grad(found.sum(), boxes)
    assert slope.sum(2)[0].nonzero().flatten().tolist() == [2, 7, 30]
    assert not with_graph(torch.zeros(1, 2, 7), boxes).any()


def test_proposals_from_elsewhere_are_refused():
    with pytest.raises(NotApplicableError, match='none of the boxes of the dense head'):
        with_graph(torch.ones(1, 2, 7), torch.randn(1, 40, 7, requires_grad=True))


def test_proposals_that_come_with_a_graph_lose_it_unless_it_is_wanted(model):
    """A center head as the first stage leaves the proposals a graph in a second pass."""
    rois = torch.randn(1, 4, 7, requires_grad=True) * 1
    for through in (False, True):
        with Proposals(model, through).deciding():
            batch = model.roi_head.proposal_layer({'rois': rois}, nms_config=None)
        assert batch['rois'].requires_grad is through
    assert 'proposal_layer' not in vars(model.roi_head)
