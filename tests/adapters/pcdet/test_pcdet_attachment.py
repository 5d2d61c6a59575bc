"""Attached to a detector of OpenPCDet: its predictions are its own, every frame is explained."""

import numpy as np
import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.common.recorder import Recorder
from explain3d.adapters.pcdet import explain
from explain3d.adapters.pcdet.attachment import Attachment
from explain3d.adapters.pcdet.frame_explainer import FrameExplainer
from explain3d.adapters.pcdet.frames import frames_of
from explain3d.core.errors import InputError, NotApplicableError, UnknownNameError
from explain3d.core.results import ResultStore

METHOD = {'type': 'ODAM', 'layer': 'stride4'}
SELECT = {'score_thr': 0.0, 'top_n': 2}


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def model(request, pcdet_host):
    return scenes.build(request.param)


@pytest.fixture
def batch(model):
    """Two frames with annotations."""
    clouds = scenes.cloud(1), scenes.cloud(2)
    return scenes.batch(model, *clouds, gt_boxes=scenes.truth(model, 2))


def attach(model, folder=None, on_error='raise', explainer=METHOD, **options):
    frames = FrameExplainer(model, explainer, 'score', SELECT, **options)
    recorder = Recorder(frames.settings, dir=folder, background=False)
    found = []
    attachment = Attachment(model, lambda: (frames, recorder), on_error, explained=found.append)
    return attachment, found


def run(model, batch):
    with torch.no_grad():
        return model(dict(batch))


def assert_same(a, b):
    assert a[1] == b[1]  # Recall counts.
    assert a[1]['gt'] == 4
    for x, y in zip(a[0], b[0], strict=True):
        assert x.keys() == y.keys()
        for key in x:
            assert torch.equal(x[key], y[key]), key


def test_predictions_and_recall_are_the_hosts_bit_for_bit(model, batch):
    before = run(model, batch)
    attachment, found = attach(model)
    with attachment:
        during = run(model, batch)
    assert_same(before, during)
    assert_same(before, run(model, batch))
    assert [e.frame_id for e in found] == ['000000', '000001']
    assert 'forward' not in vars(model)


def test_each_frame_is_explained_alike_in_any_batch(model, batch):
    attachment, found = attach(model)
    with attachment:
        run(model, batch)
        run(model, scenes.batch(model, scenes.cloud(2)))
    whole, alone = found[1], found[2]
    assert torch.equal(whole.points, alone.points)
    torch.testing.assert_close(whole.detections.boxes, alone.detections.boxes)
    torch.testing.assert_close(whole.saliency, alone.saliency, rtol=1e-3, atol=1e-5)
    assert whole.saliency.shape == (2, len(whole.points))
    assert whole.saliency.any()


def test_what_an_explanation_holds(model, batch):
    attachment, found = attach(model)
    with attachment:
        predicted = run(model, batch)[0][0]
    explanation = found[0]
    chosen = explanation.detection_indices
    torch.testing.assert_close(explanation.detections.boxes, predicted['pred_boxes'][chosen, :7])
    assert torch.equal(explanation.detections.labels, predicted['pred_labels'][chosen] - 1)
    assert explanation.detections.class_names == ('Pedestrian', 'Cyclist', 'Car')
    assert explanation.ground_truth.names() == ['Car', 'Pedestrian']
    assert explanation.points.shape[1] == 4
    rows = batch['points'][:, 0] == 0
    assert torch.equal(explanation.points, batch['points'][rows, 1:].cpu())
    assert explanation.settings['layer'] == 'backbone_3d.conv3'
    assert explanation.settings['through_proposals'] is False


def test_results_are_written_once_and_resumed_from(model, batch, tmp_path):
    for resumed in (0, 2):
        attachment, _ = attach(model, tmp_path)
        with attachment:
            run(model, batch)
        assert attachment.recorder.counts.frames == 2
        assert attachment.recorder.counts.resumed == resumed
    assert sorted(p.name for p in tmp_path.glob('*.npz')) == ['000000.npz', '000001.npz']
    assert len(ResultStore(tmp_path).load('000001').detections) == 2


def test_frames_that_cannot_be_explained_are_named_or_skipped(model, batch):
    bad = dict(batch, points=batch['points'].clone())
    bad['points'][(bad['points'][:, 0] == 1).nonzero()[3], 2] = float('nan')
    before = run(model, bad)
    attachment, _ = attach(model)
    with (
        pytest.raises(InputError, match="Frame '000001' has 1 points that are not finite"),
        attachment,
    ):
        run(model, bad)
    assert 'forward' not in vars(model)
    attachment, found = attach(model, on_error='skip')
    with attachment:
        assert_same(before, run(model, bad))
    assert len(found[0].detections) == 2
    assert len(found[1].detections) == 0
    assert 'not finite' in found[1].maps.info['error']


def test_attached_once_only(model, batch):
    first, _ = attach(model)
    second, _ = attach(model)
    with first, pytest.raises(NotApplicableError, match='attached to already'):
        second.attach()
    assert 'forward' not in vars(model)


def test_a_batch_without_points_is_refused(model, batch):
    del batch['points']
    with pytest.raises(InputError, match='expected points among them'):
        frames_of(batch)


def test_frames_without_a_name_get_a_number(model, batch):
    del batch['frame_id']
    assert [f.frame_id for f in frames_of(batch)] == ['frame_000000', 'frame_000001']
    batch['frame_id'] = np.array([7, 8])
    assert [f.frame_id for f in frames_of(batch)] == ['000007', '000008']


def test_from_python_points_items_and_batches(model):
    points = scenes.cloud(1)
    options = dict(method='ODAM', layer='stride4', targets='score', select=SELECT)
    one = explain(model, points, **options)
    assert one.saliency.any()
    item = model.dataset.prepare_data({'points': points.copy(), 'frame_id': 'mine'})
    many = explain(model, [points, torch.from_numpy(points), item], **options)
    assert [e.frame_id for e in many] == ['frame_000000', 'frame_000001', 'mine']
    for found in many:
        torch.testing.assert_close(found.saliency, one.saliency, rtol=1e-3, atol=1e-5)
    batch = explain(model, scenes.batch(model, points), **options)
    torch.testing.assert_close(batch[0].saliency, one.saliency, rtol=1e-3, atol=1e-5)
    model.train()
    explain(model, points, **options)
    assert all(module.training for module in model.modules())
    model.eval()


def test_from_python_mistakes_are_told(model):
    with pytest.raises(InputError, match='received int'):
        explain(model, 7)
    with pytest.raises(InputError, match=r"received \['layer'\] beside it"):
        explain(model, scenes.cloud(1), method={'type': 'FFAM'}, layer='stride4')
    with pytest.raises(UnknownNameError, match='top_k'):
        explain(model, scenes.cloud(1), select={'top_k': 1})
    assert 'forward' not in vars(model)
