"""A method of two layers: both are traced, with one pass of the host for both."""

import pytest
import test_benchmark_costs as costs
import tiny_detectors as tiny
import torch
from test_benchmark_costs import config, passes  # noqa: F401
from test_first_pass import batches, build
from test_hook import bits, run

from explain3d.adapters.common.benchmark_plan import BenchmarkPlan
from explain3d.adapters.mmdet3d.benchmark import FrameBenchmark
from explain3d.adapters.mmdet3d.frame_explainer import FrameExplainer
from explain3d.core.errors import UnknownNameError

PYRAMID = dict(type='PyramidFFAM', rank=4)


def test_both_layers_are_explained_and_neither_has_a_second_pass(passes, tmp_path):  # noqa: F811
    model = build()
    parts = [
        run(
            model,
            tmp_path / layer,
            batches(1, 2),
            explainer=dict(type='FFAM', rank=4, layer=layer, upsampling='gaussian'),
        )
        for layer in ('stride4', 'stride8')
    ]
    passes.clear()
    found = run(model, tmp_path / 'both', batches(1, 2), explainer=PYRAMID)
    # The first frame's, which find out how far the head looks.
    assert [tracer.layer.name[-6:] for tracer in passes] == ['layer3', 'layer4']
    for fine, coarse, sample in zip(*parts, found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(bits(fine), bits(sample), strict=True))
        for name, values in sample.explanation.maps.saliency.items():
            a, b = (part.explanation.maps.saliency[name] for part in (fine, coarse))
            assert values.any()
            assert not torch.allclose(a, b)
            torch.testing.assert_close(values, (a * b) ** 0.6, atol=1e-4, rtol=1e-3)
    settings = found[0].explanation.settings
    assert settings['layer'].split(', ') == [tracer.layer.name for tracer in passes]


def test_where_a_layer_has_no_windows_both_have_a_second_pass(passes, tmp_path):  # noqa: F811
    model = tiny.build(tiny.second())  # Looks at more than half of its map.
    found = run(model, tmp_path, batches(1, 1), explainer=PYRAMID)
    assert len(passes) == 4
    assert all(sample.explanation.saliency.any() for sample in found)


def test_an_unknown_second_layer_is_told():
    with pytest.raises(UnknownNameError, match='stride16'):
        FrameExplainer(build(), dict(PYRAMID, coarse_layer='stride16'))


def test_passes_and_randomisation_are_those_of_both_layers(config, tmp_path, passes):  # noqa: F811
    plan = BenchmarkPlan(
        config=str(config),
        checkpoint=None,
        methods={'Pyramid': PYRAMID, 'FFAM': costs.METHODS['FFAM']},
        metrics=['pg', 'randomisation'],
        protocol=dict(iou_thr=0.001, score_thr=0.0, steps=3),
        select=dict(score_thr=0.0),
    )
    runs = FrameBenchmark(plan, tmp_path)
    runs.run(0)
    records = runs.run(1)
    objects = {record.name for record in records}
    found = {r.method: r.figures['passes'] * len(objects) for r in records}
    assert found == {'FFAM': 1 + 2, 'Pyramid': 1 + 2}  # One backward pass for both layers.
    assert all(r.figures['randomisation'] < 1 for r in records)
