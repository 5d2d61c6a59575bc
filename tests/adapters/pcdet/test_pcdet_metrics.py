"""The metrics of saliency maps in OpenPCDet's own test run."""

import pytest
from pcdet_runs import EXPLAINER, MEASURED, assert_same, run, write

from explain3d.adapters.pcdet.settings import settings_of
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.results import ResultStore
from explain3d.metrics.saliency import SaliencyEvaluator
from explain3d.metrics.saliency_table import load_records


@pytest.fixture(scope='module')
def measured(checkout, folder):
    """What a run with metrics leaves."""
    return run(checkout, folder, 'measured.yaml', '--batch_size', '2')


def test_results_are_those_without_metrics_and_the_table_comes_after_them(
    checkout, folder, measured
):
    place, annotations, lines = measured
    plain = run(checkout, folder, 'plain.yaml', '--batch_size', '2', explain=False)
    assert_same(annotations, plain[1])
    assert lines == plain[2]
    log = max(place.glob('log_eval_*.txt')).read_text()
    assert log.index(lines[-1]) < log.index('How good the maps are')
    assert '| ODAM | score |' in log.split('How good the maps are')[1]
    assert 'Protocol: 3 steps' in log


def test_records_say_what_was_measured(measured):
    folder = measured[0] / 'explanations' / 'metrics'
    records = load_records(folder / 'records.json')
    assert 2 <= len(records) <= 4
    store = ResultStore(folder.parent)
    for record in records:
        assert record.figures.keys() == {'deletion', 'vea', 'vea_max', 'pg'}
        assert all(0 <= value <= 1 for value in record.figures.values())
        curve = record.curves['deletion']
        assert len(curve) == 3
        assert curve[0] > 0.3  # The whole frame: the object is found.
        assert record.protocol['detector'] == store.load(record.frame).settings['model']
    assert (folder / 'table.csv').read_text().count('deletion') >= 2
    assert '| method | target |' in (folder / 'table.md').read_text()


def test_a_second_run_takes_records_from_files(checkout, folder, measured, monkeypatch):
    place = measured[0] / 'explanations' / 'metrics'
    before = load_records(place / 'records.json')
    asked = []
    evaluate = SaliencyEvaluator.evaluate
    monkeypatch.setattr(
        SaliencyEvaluator, 'evaluate', lambda self, *a: asked.append(a) or evaluate(self, *a)
    )
    damaged, _ = sorted((place / 'frames').glob('*.json'))
    damaged.write_text('{')
    run(checkout, folder, 'measured.yaml', '--batch_size', '2')
    assert len(asked) == 1
    after = load_records(place / 'records.json')
    assert [r.name for r in after] == [r.name for r in before]
    for a, b in zip(before, after, strict=True):
        assert a.figures == pytest.approx(b.figures, abs=1e-6)


@pytest.mark.parametrize(
    ('section', 'error', 'message'),
    [
        ({'METRICS': ['deletio']}, UnknownNameError, r"Unknown metrics \['deletio'\]"),
        ({'METRICS': 'vea', 'PROTOCOL': {'STEP': 3}}, InputError, r"\['step'\]: expected .*steps"),
        ({'METRICS': 'vea', 'PROTOCOL': {'STEPS': 1}}, InputError, 'Expected steps >= 2'),
        ({'METRICS': 'vea', 'PROTOCOL': 3}, InputError, 'EXPLAINER.PROTOCOL is 3'),
    ],
)
def test_mistakes_are_told_before_anything_is_read(section, error, message):
    with pytest.raises(error, match=message):
        settings_of({'EXPLAINER': section})


def test_no_metrics_no_measuring():
    assert settings_of({'EXPLAINER': {}}).measure() is None
    settings = settings_of({'EXPLAINER': {'METRICS': 'pg', 'PROTOCOL': {'IOU_THR': {'Car': 0.6}}}})
    assert settings.measure().evaluator.protocol.iou_thr == {'car': 0.6}


def test_without_the_explainer_nothing_is_measured(checkout, folder, pcdet_kitti):
    write(folder / 'quiet.yaml', pcdet_kitti, {**EXPLAINER, **MEASURED})
    place, _, _ = run(checkout, folder, 'quiet.yaml', explain=False)
    assert not (place / 'explanations').exists()
