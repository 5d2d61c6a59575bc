"""Measuring the frames of an evaluation, in this process."""

import logging
import math

import pcdet_scenes as scenes
import pytest
import torch
from test_pcdet_two_stage import ROI_HEAD

from explain3d.adapters.pcdet.evaluation import ExplainedEvaluation
from explain3d.adapters.pcdet.settings import settings_of
from explain3d.core.errors import InputError, NotApplicableError
from explain3d.metrics.saliency import METRICS

METHOD = {
    'METHOD': 'ChannelSum',
    'ARGS': {'LAYER': 'stride4'},
    'SELECT': {'SCORE_THR': 0.0, 'TOP_N': 2},
}
#: The scores of random weights are low.
PROTOCOL = {'STEPS': 3, 'SCORE_THR': 0.0}


def evaluation(model, folder, **section):
    settings = settings_of({'EXPLAINER': {**METHOD, **section}})
    return ExplainedEvaluation(model, 1, logging.getLogger('test'), folder, settings)


def test_two_stages_are_refused_before_the_first_frame(pcdet_host, tmp_path):
    def two_stages(config):
        config['MODEL'].update(NAME='VoxelRCNN', ROI_HEAD=ROI_HEAD)

    model = scenes.build('second', two_stages)
    with pytest.raises(NotApplicableError, match='expected a one-stage detector'):
        evaluation(model, tmp_path, METRICS=['vea', 'insertion'])
    truth = found_boxes(model)
    with evaluation(model, tmp_path, METRICS=['vea', 'pg']) as run:
        predict(model, gt_boxes=truth)
    assert {'saliency/all/all/vea', 'own'} <= run.report({'own': 1}).keys()


@pytest.fixture(scope='module')
def model(pcdet_host):
    return scenes.build('second')


def found_boxes(model):
    """(1, 2, 8) the first two detections as annotations."""
    with torch.no_grad():
        found = model(scenes.batch(model, scenes.cloud(1)))[0][0]
    labels = found['pred_labels'][:2, None].float()
    return torch.cat([found['pred_boxes'][:2, :7], labels], 1)[None]


def predict(model, **more):
    with torch.no_grad():
        return model(scenes.batch(model, scenes.cloud(1), **more))


def test_every_metric_of_a_frame(model, tmp_path):
    truth = found_boxes(model)
    with evaluation(model, tmp_path, METRICS=list(METRICS), PROTOCOL=PROTOCOL) as run:
        predict(model, gt_boxes=truth)
    figures = run.report({})
    assert figures['saliency/objects'] == 2
    # An object without points has no localisation.
    filled = sum(record.points > 0 for record in run.measurement.records)
    assert filled > 0
    counts = dict(deletion=2, insertion=2, sparseness=2, vea=filled, pg=filled, enpg=filled)
    for name, count in counts.items():
        assert figures[f'saliency/all/all/{name}_count'] == count
        assert math.isfinite(figures[f'saliency/all/all/{name}'])
    # The frame as it is gives the detections: both curves meet it.
    (record, _) = run.measurement.records
    assert record.curves['deletion'][0] == record.curves['insertion'][-1] > 0.9


def test_frames_without_annotations_are_named_or_skipped(model, tmp_path, caplog):
    with (
        pytest.raises(InputError, match="Frame '000000': expected annotated objects"),
        evaluation(model, tmp_path, METRICS='vea'),
    ):
        predict(model)
    with evaluation(model, tmp_path, METRICS='vea', ON_ERROR='skip') as run:
        predict(model)
    assert "Frame '000000' is not measured: " in caplog.text
    assert run.report({'own': 1}) == {'own': 1, 'saliency/objects': 0}


def test_a_frame_that_is_not_explained_is_not_measured(model, tmp_path):
    batch = scenes.batch(model, scenes.cloud(1), gt_boxes=found_boxes(model))
    batch['points'][3, 2] = float('nan')
    with evaluation(model, tmp_path, METRICS='vea', ON_ERROR='skip') as run, torch.no_grad():
        model(batch)
    assert run.measurement.records == []
