"""The Python API on what ``mmdet3d.apis`` loads."""

import numpy as np
import pytest
import tiny_detectors as tiny
import tiny_run
import torch
from mmdet3d.apis import inference_detector, init_model
from test_tracer import state_of

import explain3d
from explain3d.adapters.mmdet3d import explain
from explain3d.core.errors import InputError, NotApplicableError, UnknownNameError
from explain3d.methods import FFAM

SELECT = dict(score_thr=0.0, top_n=3)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('api')
    data = tiny_run.write_dataset(folder / 'data', frames=2)
    (folder / 'config.py').write_text(tiny_run.config_text(data))
    torch.save(
        dict(state_dict=tiny.half(tiny.build(tiny.second())), meta={}), folder / 'second.pth'
    )
    config = folder / 'config.py'
    config.write_text(config.read_text() + f'class_names = {tiny.CLASSES!r}\n')
    model = init_model(config, str(folder / 'second.pth'), 'cpu')
    model.folder = folder / 'data/velodyne'
    return model


def test_example_of_the_documentation(model):
    frame = model.folder / '000000.bin'

    explanation = explain3d.explain(
        model, frame, method='FFAM', targets=['all', 'score'], select=SELECT, rank=4
    )

    assert explanation.frame_id == '000000'
    assert explanation.detections.names()[0] in tiny.CLASSES
    assert explanation.saliency.shape == (3, len(explanation.points))
    assert explanation.maps.saliency['score'].shape == explanation.saliency.shape
    assert explanation.saliency.max() > 0


def test_paths_arrays_and_tensors_are_alike(model):
    cloud = tiny.cloud(1)
    before = cloud.copy()
    data = [model.folder / '000001.bin', cloud, torch.as_tensor(cloud)]
    found = explain(model, data, method=FFAM(rank=4), targets='score', select=SELECT)
    assert [e.frame_id for e in found] == ['000001', 'frame_000001', 'frame_000002']
    for explanation in found[1:]:
        torch.testing.assert_close(explanation.saliency, found[0].saliency, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(explanation.points, found[0].points)
    assert np.array_equal(cloud, before)


def test_detections_are_those_of_inference(model):
    sample, _ = inference_detector(model, str(model.folder / '000000.bin'))
    explanation = explain(
        model, str(model.folder / '000000.bin'), method='RandomMap', select=dict(score_thr=0.0)
    )
    instances = sample.pred_instances_3d
    index = explanation.detection_indices
    assert len(index) == len(instances)
    assert torch.equal(explanation.detections.scores, instances.scores_3d[index])
    gravity = instances.bboxes_3d.gravity_center[index]
    torch.testing.assert_close(explanation.detections.boxes[:, :3], gravity)


def test_a_model_without_configuration_takes_a_batch():
    bare = tiny.build(tiny.second())
    data = tiny.batch(tiny.cloud(0), tiny.cloud(1))
    before = state_of(bare)
    found = explain(bare, data, dict(type='FFAM', rank=4), select=SELECT)
    assert [e.frame_id for e in found] == ['000000', '000001']
    assert state_of(bare) == before
    with pytest.raises(InputError, match='has no configuration'):
        explain(bare, tiny.cloud(0))


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(method='FFFAM'), UnknownNameError, "Unknown explainer 'FFFAM'"),
        (dict(layer='conv9'), UnknownNameError, "Unknown layer 'conv9'"),
        (dict(targets='colour'), UnknownNameError, "Unknown target 'colour'"),
        (dict(select=dict(topn=2)), UnknownNameError, "Unknown argument 'topn'"),
        (dict(method=dict(type='FFAM'), rank=4), InputError, r"received \['rank'\] beside it"),
        (dict(data=7), InputError, 'received int'),
        (dict(data=np.full((5, 4), np.nan, np.float32)), InputError, '(shape|not finite)'),
    ],
)
def test_what_is_wrong_is_said(model, arguments, error, message):
    before = state_of(model)
    with pytest.raises(error, match=message):
        explain(model, **{'data': tiny.cloud(0), **arguments})
    assert state_of(model) == before


def test_what_is_no_voxel_detector_is_refused():
    with pytest.raises(NotApplicableError, match='has no detection head'):
        explain(torch.nn.Linear(1, 1), tiny.cloud(0))


class NameOfTheDetector(FFAM):
    """Notes what the detector is called that it may ask."""

    def explain(self, trace, targets):
        self.name = trace.black_box.name
        return super().explain(trace, targets)


def test_a_method_that_asks_the_detector_can_tell_weights_apart(model):
    method = NameOfTheDetector(rank=4)
    names = []
    for factor in (1.0, 0.5):
        weight = next(model.bbox_head.parameters())
        with torch.no_grad():
            weight *= factor
        explain(model, model.folder / '000000.bin', method=method, select=SELECT)
        names.append(method.name)
    with torch.no_grad():
        weight /= factor
    assert '' not in names
    assert len(set(names)) == 2
