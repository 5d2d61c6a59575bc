"""``SaliencyMetric`` as MMEngine's evaluator calls it."""

from dataclasses import replace

import pytest

pytest.importorskip('mmdet3d')

from explain3d.adapters.mmdet3d.saliency_metric import SaliencyMetric
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.metrics.saliency_table import load_records
from tests.helpers.toy_explanation import toy_explanation


def test_objects_are_measured_once_and_written(tmp_path):
    metric = SaliencyMetric(figures=['vea', 'deletion'], file=tmp_path / 'records.json')
    explanation = toy_explanation()
    for _ in range(2):  # A sampler that repeats a frame.
        metric.process(None, [{'explanation': explanation}])
    values = metric.compute_metrics(metric.results)
    assert values['objects'] == values['all/all/vea_count'] == 1
    assert values['all/Car/vea'] == 1
    (record,) = load_records(tmp_path / 'records.json')
    assert record.protocol['detector'] == 'abc'
    assert len(record.curves['deletion']) == 11


def test_a_frame_that_the_hook_skipped_is_skipped():
    metric = SaliencyMetric(figures=['vea'])
    failed = replace(toy_explanation(), ground_truth=None)
    with pytest.raises(InputError, match='annotated objects'):
        metric.process(None, [{'explanation': failed}])
    failed.maps.info['error'] = 'points that are not finite'
    metric.process(None, [{'explanation': failed}])
    assert metric.results == [[]]
    assert metric.compute_metrics(metric.results) == {'objects': 0}


def test_mistakes_are_told():
    with pytest.raises(UnknownNameError, match='deletio'):
        SaliencyMetric(figures=['deletio'])
    with pytest.raises(InputError, match=r"\['step'\]"):
        SaliencyMetric(protocol={'step': 3})
    with pytest.raises(InputError, match='add an explain3d.ExplainerHook'):
        SaliencyMetric().process(None, [{}])
