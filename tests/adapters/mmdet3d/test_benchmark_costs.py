"""What tools/benchmark.py says that methods cost: what a user of the hook pays."""

from contextlib import nullcontext

import pytest

pytest.importorskip('mmdet3d')

import tiny_detectors as tiny
import tiny_run
import torch
from tiny_detectors import wider

from explain3d.adapters.common.benchmark_plan import BenchmarkPlan
from explain3d.adapters.mmdet3d.benchmark import FrameBenchmark
from explain3d.adapters.mmdet3d.tracer import Tracer

METHODS = {
    'FFAM': dict(type='FFAM', rank=4),
    'Random': dict(type='RandomMap'),
    'IG': dict(type='IntegratedGradients', steps=2),
    'OccAM': dict(type='OccAM', samples=6, tolerance=None, score_thr=0.0),
}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Three frames, and a detector that looks at a small part of its map."""
    folder = tmp_path_factory.mktemp('costs')
    data = tiny_run.write_dataset(folder / 'data', frames=3)
    model = wider(tiny.second())
    torch.save(dict(state_dict=tiny.build(model).state_dict()), folder / 'wide.pth')
    extra = dict(load_from=str(folder / 'wide.pth'), class_names=tiny.CLASSES)
    (folder / 'wide.py').write_text(tiny_run.config_text(data, model, **extra))
    return folder / 'wide.py'


def benchmark(config, folder, methods=METHODS):
    plan = BenchmarkPlan(
        config=str(config),
        checkpoint=None,
        methods=methods,
        metrics=['pg'],
        protocol=dict(iou_thr=0.001, score_thr=0.0, steps=3),
        select=dict(score_thr=0.0),
    )
    return FrameBenchmark(plan, folder)


@pytest.fixture
def passes(monkeypatch):
    """The second passes that tracers make: the modules at which their graphs start."""
    made, real = [], Tracer._pass

    def counting(self, *args):
        made.append(self)
        return real(self, *args)

    monkeypatch.setattr(Tracer, '_pass', counting)
    return made


def test_methods_start_from_the_hosts_own_pass(config, tmp_path, passes):
    runs = benchmark(config, tmp_path)
    records = runs.run(0)
    replays = 2 + 1  # Of the integrated gradients: its steps, and its end.
    assert len(passes) == len(METHODS) + replays
    passes.clear()
    assert runs.run(1)
    assert len(passes) == replays  # How far the head looks is known by now.
    objects = {record.name for record in records}
    found = {r.method: r.figures['passes'] * len(objects) for r in records}
    assert found == {
        'Random': 1,
        'FFAM': 1 + 2,  # Windows, forward and backward.
        'IG': 1 + 2 * 2 + 1,
        'OccAM': 1 + 6,
    }


def test_maps_are_those_of_a_second_pass(config, tmp_path, passes, monkeypatch):
    fast = benchmark(config, tmp_path / 'a')
    fast.run(0)
    found, records = fast.explain(1), fast.run(1)
    monkeypatch.setattr(Tracer, 'recording', lambda self: nullcontext(None))
    passes.clear()
    slow = benchmark(config, tmp_path / 'b')
    slow.run(0)
    expected, others = slow.explain(1), slow.run(1)
    assert len(passes) > 3 * len(METHODS)
    assert found.keys() == expected.keys() == METHODS.keys()
    assert all(expected[name].maps.saliency['all'].any() for name in ('FFAM', 'IG', 'Random'))
    for name, explanation in expected.items():
        for target, saliency in explanation.maps.saliency.items():
            assert torch.equal(found[name].maps.saliency[target], saliency)
    for one, other in zip(records, others, strict=True):
        # The host's own pass is paid for in any case.
        assert other.figures['passes'] == one.figures['passes'] + 1 / len({r.name for r in others})


def test_seconds_have_those_of_the_hosts_own_pass(config, tmp_path, monkeypatch):
    runs = benchmark(config, tmp_path, {'Random': METHODS['Random']})
    real = FrameBenchmark._start

    def slow(self, *args):
        begun = real(self, *args)
        object.__setattr__(begun, 'seconds', 1000.0)
        return begun

    monkeypatch.setattr(FrameBenchmark, '_start', slow)
    records = runs.run(0)
    assert all(1000 <= r.figures['seconds'] * len(records) < 2000 for r in records)


def test_passes_of_a_method_that_differentiates_by_itself(config, tmp_path, passes):
    runs = benchmark(config, tmp_path, {'ODAM': dict(type='ODAM')})
    runs.run(0)
    passes.clear()
    for explainer in runs.explainers.values():
        source = explainer.tracer.windows.source
        explainer.tracer.windows.source = lambda *args, source=source: source(*args) and None
    records = runs.run(1)
    assert len(passes) == 1
    count = len({record.name for record in records})
    # The host's own, the one with a graph, and a backward pass for each object.
    assert {r.figures['passes'] for r in records} == {(1 + 1 + count) / count}
