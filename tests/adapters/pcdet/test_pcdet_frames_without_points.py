"""Frames of OpenPCDet of which no point lies in the range: named, or skipped."""

import pcdet_scenes as scenes
import pytest
import torch
from test_pcdet_attachment import attach, run

from explain3d.core.errors import InputError


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def model(request, pcdet_host):
    return scenes.build(request.param)


def test_named_or_skipped_with_the_other_frames_predicted(model, monkeypatch):
    clouds = scenes.cloud(1), scenes.cloud(2)
    batch = scenes.batch(model, *clouds, gt_boxes=scenes.truth(model, 2))
    right = run(model, batch)
    one = {**batch, 'gt_boxes': batch['gt_boxes'].clone()}
    one['points'] = batch['points'].clone()
    one['points'][one['points'][:, 0] == 1, 1] -= 500
    kept = one['voxel_coords'][:, 0] == 0
    for key in ('voxels', 'voxel_num_points', 'voxel_coords'):
        one[key] = batch[key][kept]
    vfe = model.vfe.forward

    def failing(inputs, **kwargs):
        if len(inputs['voxel_coords'][:, 0].unique()) < inputs['batch_size']:
            raise IndexError('no voxel')
        return vfe(inputs, **kwargs)

    monkeypatch.setattr(model.vfe, 'forward', failing)
    attachment, _ = attach(model)
    with (
        pytest.raises(InputError, match=r"Frame '000001': none of its \d+ points.*fails on this"),
        attachment,
    ):
        run(model, one)
    attachment, found = attach(model, on_error='skip')
    with attachment:
        predicted, recalled = run(model, one)
    assert len(predicted[1]['pred_boxes']) == len(predicted[1]['pred_scores']) == 0
    torch.testing.assert_close(predicted[0]['pred_boxes'], right[0][0]['pred_boxes'])
    assert recalled['gt'] == right[1]['gt'] == 4
    assert [len(e.detections) for e in found] == [2, 0]
    assert found[0].saliency.any()
    assert 'none of its' in found[1].maps.info['error']
    counts = attachment.recorder.counts
    assert (counts.frames, counts.failed) == (1, 1)
