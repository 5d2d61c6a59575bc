"""Frames of which no point lies in the range: named, and skipped where that is asked for."""

import numpy as np
import pytest
import tiny_detectors as tiny
import torch
from test_hook import run
from test_tracer import state_of

import explain3d
from explain3d.core.errors import InputError
from explain3d.core.results import ResultStore

FAR = tiny.cloud(1) - np.float32([500, 0, 0, 0])
ODAM = dict(explainer=dict(type='ODAM', layer='stride4'))


@pytest.fixture(scope='module')
def second():
    return tiny.build(tiny.second())


def batches(*clouds):
    names = [f'data{i}' for i in range(len(clouds))]
    return [tiny.batch(c, names=[n]) for c, n in zip(clouds, names, strict=True)]


def test_the_frame_the_range_and_the_points_are_named(second, tmp_path):
    with pytest.raises(InputError, match=r"'data1' \(data/data1\.bin\): none of its 800") as raised:
        run(second, tmp_path, batches(tiny.cloud(0), FAR), **ODAM)
    for part in ('from [0.0, -6.4, -3.0] to [12.8, 6.4, 1.0]', 'spread from [-49', 'fails on'):
        assert part in str(raised.value)
    assert [e.frame_id for e in ResultStore(tmp_path / 'explanations')] == ['data0']
    with pytest.raises(InputError, match="Frame '000000'.*: none of its 800 points"):
        explain3d.explain(second, tiny.batch(FAR), 'ODAM', layer='stride4')


@pytest.mark.parametrize('bad', [FAR, FAR[:0], np.full((5, 4), np.nan, np.float32)])
def test_they_are_skipped_as_frames_in_which_nothing_is_found(second, tmp_path, bad, caplog):
    before = state_of(second)
    with caplog.at_level('WARNING'):
        samples = run(second, tmp_path, batches(bad, tiny.cloud(0), bad), on_error='skip', **ODAM)
    assert [len(s.pred_instances_3d.scores_3d) for s in samples[::2]] == [0, 0]
    assert all(len(s.explanation.detections) == 0 for s in samples[::2])
    assert 'data0' in samples[0].explanation.maps.info['error']
    assert [e.frame_id for e in ResultStore(tmp_path / 'explanations')] == ['data1']
    alone = run(second, tmp_path / 'alone', batches(tiny.cloud(0)), **ODAM)
    assert torch.equal(samples[1].explanation.saliency, alone[0].explanation.saliency)
    assert state_of(second) == before


def test_the_other_frames_of_its_batch_are_predicted_and_explained(second, tmp_path, monkeypatch):
    host = second.extract_feat

    def failing(inputs):
        if min(len(points) for points in inputs['points']) == 0:
            raise IndexError('no voxel')
        return host(inputs)

    monkeypatch.setattr(second, 'extract_feat', failing)
    mixed = [tiny.batch(tiny.cloud(0), FAR[:0], tiny.cloud(2), names=['a', 'b', 'c'])]
    samples = run(second, tmp_path, mixed, on_error='skip', **ODAM)
    expected = run(second, tmp_path / 'x', [tiny.batch(tiny.cloud(0), tiny.cloud(2))], **ODAM)
    assert [len(s.explanation.detections) for s in samples] == [3, 0, 3]
    for one, right in zip(samples[::2], expected, strict=True):
        torch.testing.assert_close(
            one.pred_instances_3d.scores_3d, right.pred_instances_3d.scores_3d
        )
        torch.testing.assert_close(
            one.explanation.saliency, right.explanation.saliency, atol=1e-4, rtol=1e-3
        )


def test_what_the_host_fails_on_for_another_reason_is_its_own_error(second, tmp_path, monkeypatch):
    monkeypatch.setattr(second, 'extract_feat', lambda inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(second, tmp_path, batches(tiny.cloud(1)), on_error='skip', **ODAM)
