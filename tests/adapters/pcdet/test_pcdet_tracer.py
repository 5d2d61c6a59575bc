"""The second pass in OpenPCDet: the host's own boxes and scores again, with true gradients."""

import gc
import weakref

import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.pcdet.frames import detections_of, frames_of, ground_truth_of
from explain3d.adapters.pcdet.tracer import Tracer
from explain3d.core.capture import cell_order
from explain3d.core.errors import InputError, NotApplicableError, UnknownNameError
from explain3d.core.structures import BOX_ATTRIBUTES

LAYERS = ['stride4', 'neck', 'vfe']


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def model(request, pcdet_host):
    return scenes.build(request.param)


def predict(model, batch):
    with torch.no_grad():
        return model(dict(batch))[0]


def traced(model, layer='stride4', index=1, **options):
    """The tracer, and the trace of a frame of a batch of two with its four best detections."""
    batch = scenes.batch(model, scenes.cloud(1), scenes.cloud(2))
    found = predict(model, batch)[index]
    detections = detections_of(found, model.class_names, 'f')
    tracer = Tracer(model, layer, **options)
    return tracer, tracer.trace(model.forward, frames_of(batch)[index], detections[:4])


@pytest.mark.parametrize('layer', LAYERS)
def test_attributes_are_what_the_host_reported(model, layer):
    _, trace = traced(model, layer)
    assert len(trace.detections) == 4
    for i, name in enumerate(BOX_ATTRIBUTES):
        got, want = trace.attributes[name].detach(), trace.detections.boxes[:, i]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    scores = trace.attributes['score'].detach()
    torch.testing.assert_close(scores, trace.detections.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trace.attributes['logit'].detach().sigmoid(), scores)
    assert trace.features.values.shape[0] == trace.features.coords.shape[0]
    assert not trace.features.values.requires_grad


@pytest.mark.parametrize('name', ['score', 'x', 'h', 'yaw'])
def test_gradients_are_the_slopes_of_the_host_itself(model, name):
    """The layer's output is moved along the gradient; the host's own prediction must follow."""
    tracer, trace = traced(model)
    value = trace.attributes[name][0]
    (gradient,) = torch.autograd.grad(value, trace.leaf, retain_graph=True)
    step = 1e-3 / gradient.norm()
    expected = 2 * step * gradient.square().sum()
    moved = []
    for sign in (1, -1):

        def move(_module, _inputs, output, sign=sign):
            own = gradient[cell_order(output.indices).argsort()]  # The leaf's rows stand by cell.
            return output.replace_feature(output.features + sign * step * own)

        handle = tracer.module.register_forward_hook(move)
        batch = scenes.batch(model, scenes.cloud(2))
        again = tracer.trace(model.forward, frames_of(batch)[0], trace.detections[:1])
        handle.remove()
        moved.append(again.attributes[name][0].detach())
    torch.testing.assert_close(moved[0] - moved[1], expected, rtol=0.05, atol=2e-6)


@pytest.mark.parametrize('layer', LAYERS)
def test_rows_bring_a_gradient_into_the_form_of_the_features(model, layer):
    _, trace = traced(model, layer)
    (gradient,) = torch.autograd.grad(trace.attributes['score'].sum(), trace.leaf)
    assert trace.rows(gradient).shape == trace.features.values.shape
    torch.testing.assert_close(trace.rows(trace.leaf.detach()), trace.features.values)
    assert gradient.any()


def test_rows_of_voxels_lie_where_their_points_are(model):
    """The mean of a voxel's points, which its encoder gives, lies in the voxel."""
    _, trace = traced(model, 'vfe')
    geometry = trace.features.geometry
    cells = geometry.cells(trace.features.values)
    assert (cells == trace.features.coords).all(1).float().mean() > 0.99


def test_the_model_and_the_frame_are_left_as_found(model):
    batch = scenes.batch(model, scenes.cloud(1))
    predict(model, batch)
    kept = {name: dict(vars(module)) for name, module in model.named_modules()}
    outputs = dict(model.dense_head.forward_ret_dict)
    frame = frames_of(batch)[0]
    inputs = {k: v.clone() for k, v in frame.inputs.items() if isinstance(v, torch.Tensor)}
    detections = detections_of(predict(model, batch)[0], model.class_names, 'f')[:1]
    outputs = dict(model.dense_head.forward_ret_dict)
    kept['dense_head']['forward_ret_dict'] = model.dense_head.forward_ret_dict
    Tracer(model, 'stride4').trace(model.forward, frame, detections)
    for name, module in model.named_modules():
        assert vars(module) == kept[name], name
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert model.dense_head.forward_ret_dict == outputs
    assert all(p.requires_grad for p in model.parameters())
    for name, value in inputs.items():
        assert torch.equal(frame.inputs[name], value)


def test_the_graph_goes_with_the_trace(model):
    _, trace = traced(model)
    leaf = weakref.ref(trace.leaf)
    del trace
    gc.collect()
    assert leaf() is None


def test_a_foreign_detection_is_refused(model):
    batch = scenes.batch(model, scenes.cloud(1))
    detections = detections_of(predict(model, batch)[0], model.class_names, 'f')[:1]
    detections.boxes[0, 0] += 50
    with pytest.raises(InputError, match="Frame '000000': the detection .* none of the candidates"):
        Tracer(model, 'stride4').trace(model.forward, frames_of(batch)[0], detections)


def test_any_head_that_keeps_the_conventions_needs_a_line(model):
    """What ``HEAD: any`` reads from the batch equals what the family reads from the raw outputs."""
    tracer, trace = traced(model)
    same, other = traced(model, head='any')
    assert same.candidates is not tracer.candidates
    for name, value in trace.attributes.items():
        torch.testing.assert_close(other.attributes[name], value, rtol=1e-4, atol=1e-4)
        a, b = (
            torch.autograd.grad(t.attributes[name].sum(), t.leaf, retain_graph=True)[0]
            for t in (trace, other)
        )
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_an_unknown_family_is_answered_with_the_candidates(model):
    with pytest.raises(UnknownNameError, match="'CentreHead'.*'CenterHead'"):
        Tracer(model, 'stride4', head='CentreHead')


def test_a_head_of_another_family_is_told(model):
    with pytest.raises(NotApplicableError, match='get_bboxes was not called'):
        traced(model, head='TransFusionHead')


def test_ground_truth_leaves_out_what_fills_up(model):
    batch = scenes.batch(model, scenes.cloud(1), scenes.cloud(2), gt_boxes=scenes.truth(model, 2))
    found = ground_truth_of(frames_of(batch)[1].inputs, model.class_names)
    assert found.names() == ['Car', 'Pedestrian']
    assert torch.equal(found.scores, torch.ones(2))
    torch.testing.assert_close(found.boxes[0, :3].cpu(), torch.tensor([2.0, -1, -1]))
