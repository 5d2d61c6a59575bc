"""The metrics of saliency maps at their analytic ends."""

import math

import numpy as np
import pytest
import torch

from explain3d.core.black_box import Region
from explain3d.core.boxes import points_in_boxes
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.grouping import independent, share_passes
from explain3d.core.structures import Detections, Explanation, Maps
from explain3d.metrics.curves import perturbation_curves
from explain3d.metrics.intervals import bootstrap, paired_difference
from explain3d.metrics.localization import (
    energy_pointing_game,
    explanation_accuracy,
    pointing_game,
)
from explain3d.metrics.map_statistics import gini, rank_correlation, ranks
from explain3d.metrics.protocol import Protocol, common_protocol
from explain3d.metrics.removal import Schedule, area, local_regions, region_radii, removal_ranks
from explain3d.metrics.saliency import SaliencyEvaluator
from explain3d.metrics.saliency_table import differences, load_records, save_records, table_of
from tests.helpers.toy_black_box import ToyBlackBox

THRESHOLDS = Protocol().vea_thresholds
IDEAL = torch.tensor([[1.0, 1, 0, 0, 0]])
INSIDE = torch.tensor([[True, True, False, False, False]])


def test_localisation_of_a_map_that_is_the_box():
    assert explanation_accuracy(IDEAL, INSIDE, THRESHOLDS)[0].item() == 1
    assert explanation_accuracy(IDEAL, INSIDE, THRESHOLDS)[1].item() == 1
    assert pointing_game(IDEAL, INSIDE).item() == 1
    assert energy_pointing_game(IDEAL, INSIDE).item() == 1


def test_localisation_of_its_inverse():
    for metric in (pointing_game, energy_pointing_game):
        assert metric(1 - IDEAL, INSIDE).item() == 0
    mean, best = explanation_accuracy(1 - IDEAL, INSIDE, THRESHOLDS)
    assert mean.item() == best.item() == 0


def test_localisation_of_a_constant():
    flat = torch.full((1, 5), 0.3)
    assert pointing_game(flat, INSIDE).item() == pytest.approx(2 / 5, abs=0)
    assert energy_pointing_game(flat, INSIDE).item() == 0
    assert explanation_accuracy(flat, INSIDE, THRESHOLDS)[1].item() == 0


def test_localisation_by_hand():
    maps = torch.tensor([[0.0, 1.0, 1.0, 0.5, 0.0]])
    assert pointing_game(maps, INSIDE).item() == 0.5
    assert energy_pointing_game(maps, INSIDE).item() == pytest.approx(1 / 2.5)
    # Above 0.25: points 1, 2, 3, one of them inside, of a union of four; above 0.75: 1 of 3.
    mean, best = explanation_accuracy(maps, INSIDE, (0.25, 0.75))
    assert mean.item() == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert best.item() == pytest.approx(1 / 3)


def test_localisation_does_not_depend_on_the_order_or_the_scale():
    generator = torch.Generator().manual_seed(0)
    maps, inside = torch.rand(3, 50, generator=generator), torch.rand(3, 50) < 0.3
    order = torch.randperm(50, generator=generator)
    for metric in (pointing_game, energy_pointing_game):
        torch.testing.assert_close(metric(maps, inside), metric(maps[:, order], inside[:, order]))
        torch.testing.assert_close(metric(maps, inside), metric(4 * maps + 1, inside))


def test_an_object_without_points_has_no_localisation():
    nothing = torch.zeros(1, 5, dtype=torch.bool)
    assert math.isnan(pointing_game(IDEAL, nothing).item())
    assert math.isnan(energy_pointing_game(IDEAL, nothing).item())
    assert math.isnan(explanation_accuracy(IDEAL, nothing, THRESHOLDS)[0].item())


def test_region_is_a_disc_of_two_diagonals():
    boxes = torch.tensor([[1.0, 2, 0, 3, 4, 1, 0.7]])
    assert region_radii(boxes).item() == 10
    points = torch.tensor([[10.9, 2, 99], [11.0, 2, 0], [1, -7.9, 0]])
    assert local_regions(points, boxes).tolist() == [[True, False, True]]


def test_ranks_of_removal():
    region = torch.tensor([[True, True, False, True]])
    assert removal_ranks(torch.tensor([[0.1, 0.9, 5.0, 0.3]]), region).tolist() == [[2, 0, 4, 1]]


def test_ties_go_by_one_permutation():
    region = torch.ones(1, 200, dtype=torch.bool)
    flat = removal_ranks(torch.zeros(1, 200), region, seed=3)
    assert torch.equal(flat, removal_ranks(torch.ones(1, 200), region, seed=3))
    assert not torch.equal(flat, removal_ranks(torch.zeros(1, 200), region, seed=4))
    assert flat[0].sort().values.tolist() == list(range(200))
    # Neither the order of the scan nor its reverse.
    assert abs(np.corrcoef(flat[0], np.arange(200))[0, 1]) < 0.3


def test_schedule_of_a_region():
    region = torch.tensor([True] * 5 + [False])
    schedule = Schedule.of(torch.tensor([0, 1, 2, 3, 4, 6]), region, steps=6)
    assert schedule.counts == (0, 1, 2, 3, 4, 5)
    assert schedule.deleted(0).all()
    assert schedule.deleted(2).tolist() == [False, False, True, True, True, True]
    assert schedule.inserted(2).tolist() == [True, True, False, False, False, True]
    assert torch.equal(schedule.inserted(5), schedule.deleted(0))
    assert torch.equal(schedule.inserted(0), schedule.deleted(5))


def test_schedule_of_one_point():
    counts = Schedule.of(torch.tensor([0]), torch.tensor([True]), 11).counts
    assert counts == (0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1)


def test_area_by_the_trapezoid_rule():
    assert area(torch.ones(11)).item() == 1
    assert area(torch.linspace(1, 0, 11)).item() == pytest.approx(0.5)
    assert area(torch.tensor([1.0, 0, 0])).item() == 0.25


def test_gini():
    assert gini(torch.ones(1, 4)).item() == 0
    assert gini(torch.tensor([[0.0, 0, 0, 7]])).item() == 0.75
    # By the definition as a mean absolute difference.
    values = torch.rand(1, 30, generator=torch.Generator().manual_seed(1)).double()
    pairs = (values[0][:, None] - values[0]).abs().mean() / (2 * values.mean())
    assert gini(values).item() == pytest.approx(pairs.item())
    assert math.isnan(gini(torch.zeros(1, 3)).item())
    with pytest.raises(InputError, match='1 negative'):
        gini(torch.tensor([[-1.0, 1]]))


def test_rank_correlation():
    a = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4]])
    b = torch.tensor([[1.0, 4, 9, 99], [4, 3, 2, 1]])
    torch.testing.assert_close(rank_correlation(a, b), torch.tensor([1.0, -1]).double())
    assert ranks(torch.tensor([[5.0, 1, 5, 0]])).tolist() == [[2.5, 1, 2.5, 0]]
    assert math.isnan(rank_correlation(a[:1], torch.ones(1, 4)).item())


def test_bootstrap():
    exact = bootstrap([0.5] * 7)
    assert (exact.mean, exact.low, exact.high, exact.count) == (0.5, 0.5, 0.5, 7)
    some = bootstrap([0, 1, math.nan, 1, 0], draws=500)
    assert (some.mean, some.count, some.undefined) == (0.5, 4, 1)
    assert some.low < 0.5 < some.high
    assert bootstrap([]).count == 0
    # The standard error of a mean of 400 is 0.5 / 20; of 100 frames with equal objects 0.5 / 10.
    values = np.repeat([0.0, 1.0], 200)
    free = bootstrap(values)
    assert free.high - free.low == pytest.approx(2 * 1.96 * 0.025, rel=0.15)
    tied = bootstrap(values, groups=[str(i // 4) for i in range(400)])
    assert tied.groups == 100
    assert tied.high - tied.low == pytest.approx(2 * 1.96 * 0.05, rel=0.15)
    with pytest.raises(InputError, match='1 infinite'):
        bootstrap([math.inf])


def test_paired_differences_need_the_same_objects():
    a, b = {'x': 1.0, 'y': 3.0}, {'x': 0.5, 'y': 2.5}
    found = paired_difference(a, b)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match="only one has, as \\['y'\\]"):
        paired_difference(a, {'x': 1.0})


def test_protocols_are_not_mixed():
    a, b = Protocol().as_dict(), Protocol(steps=21).as_dict()
    assert common_protocol([a, dict(a)]) == Protocol()
    with pytest.raises(InputError, match=r"differ in \{'steps': \(11, 21\)\}"):
        common_protocol([a, b])
    with pytest.raises(InputError, match='received none'):
        common_protocol([])
    with pytest.raises(InputError, match='steps >= 2'):
        Protocol(steps=1)
    assert 'BEV distance < 2 x diagonal' in Protocol().text()


def test_regions_that_are_far_apart_share_a_pass():
    a, b, c = Region(0, 0, 2, 0), Region(10, 0, 2, 0), Region(10, 3, 2, 0)
    assert independent(a, b, (5.9, 5.9))
    assert not independent(a, b, (6.0, 6.0))
    assert independent(a, b, (5.9, 99))
    assert not independent(a, b, None)
    assert share_passes([a, b, c], (5.9, 5.9)) == [[0, 1], [2]]
    assert share_passes([a, b, c], None) == [[0], [1], [2]]
    # Together they cost more than one by one.
    assert share_passes([a, b], (1, 1), lambda some: len(some) ** 2) == [[0], [1]]
    assert share_passes([], (1, 1)) == []


# A frame of two objects of four points each, and some ground between and around them.
def scene(n=4):
    boxes = torch.tensor([[5.0, 0, 0, 2, 2, 2, 0], [30, 0, 0, 2, 2, 2, 0]])
    spread = torch.linspace(-0.8, 0.8, n)
    parts = [torch.stack([b[0] + spread, b[1] + spread, 0 * spread], 1) for b in boxes]
    ground = torch.tensor([[5.0, 3, -1], [2, 1, -1], [30, 3, -1], [17, 0, -1], [40, 9, -1]])
    points = torch.cat([*parts, ground])
    inside = points_in_boxes(points, boxes)
    return points, boxes, inside


def curves_of(saliency, reach=None, **options):
    points, boxes, inside = scene()
    box = ToyBlackBox(points, boxes, inside.double(), reach=reach)
    protocol = Protocol(**options)
    found = perturbation_curves(box, points, {'m': saliency}, boxes, [0, 0], protocol)['m']
    return found, box


def shifted_iou(evidence):
    """IoU of a box with itself moved by (1 - e) of its length, and nothing below the threshold."""
    return evidence / (2 - evidence) if evidence > 0.1 else 0.0


def test_curves_of_the_ideal_map():
    points, _, inside = scene()
    regions = local_regions(points, scene()[1])
    n = regions.sum(dim=1)
    assert n.tolist() == [6, 5]
    found, _ = curves_of(inside.float())
    for k in range(2):
        counts = Schedule.of(torch.zeros(1), regions[k], 11).counts
        deletion = [shifted_iou(1 - min(c, 4) / 4) for c in counts]
        assert found.deletion[k].tolist() == pytest.approx(deletion, abs=1e-6)
        insertion = [shifted_iou(min(c, 4) / 4) for c in counts]
        assert found.insertion[k].tolist() == pytest.approx(insertion, abs=1e-6)


def test_no_map_beats_the_ideal_one_and_none_is_worse_than_its_inverse():
    _, _, inside = scene()
    best, worst = curves_of(inside.float())[0], curves_of(1 - inside.float())[0]
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        some, _ = curves_of(torch.rand(inside.shape, generator=generator))
        assert (area(best.deletion) <= area(some.deletion)).all()
        assert (area(some.deletion) <= area(worst.deletion)).all()
        assert (area(worst.insertion) <= area(some.insertion)).all()
        assert (area(some.insertion) <= area(best.insertion)).all()
    assert (area(best.deletion) < area(worst.deletion)).all()


def test_sharing_passes_changes_nothing_but_their_number():
    generator = torch.Generator().manual_seed(0)
    saliency = torch.rand(scene()[2].shape, generator=generator)
    alone, slow = curves_of(saliency)
    shared, fast = curves_of(saliency, reach=(4.0, 4.0))
    assert torch.equal(alone.deletion, shared.deletion)
    assert torch.equal(alone.insertion, shared.insertion)
    # The whole frame once, the empty region, and nine steps each way.
    assert slow.passes == 1 + 2 * 19
    assert fast.passes == 1 + 19


def test_a_curve_that_is_not_asked_for_costs_nothing():
    points, boxes, inside = scene()
    box = ToyBlackBox(points, boxes, inside.double())
    maps = {'m': inside.float()}
    perturbation_curves(box, points, maps, boxes, [0, 0], Protocol(), ('deletion',))
    assert box.passes == 1 + 2 * 10


def explanation(saliency, boxes=None, truth=None, frame='000007', method='M'):
    points, objects, _ = scene()
    boxes = objects if boxes is None else boxes
    truth = objects if truth is None else truth

    def detections(values, scores):
        labels = torch.zeros(len(values), dtype=torch.long)
        return Detections(values, scores, labels, ('Car', 'Van'))

    return Explanation(
        frame_id=frame,
        points=points,
        detections=detections(boxes, torch.linspace(0.9, 0.5, len(boxes))),
        maps=Maps({'all': saliency}),
        method=method,
        ground_truth=detections(truth, torch.ones(len(truth))),
    )


LOCAL = ('vea', 'pg', 'enpg', 'sparseness')


def test_evaluator_with_every_metric(tmp_path):
    points, boxes, inside = scene()
    box = ToyBlackBox(points, boxes, inside.double())
    maps = {'Ideal': explanation(inside.float()), 'Flat': explanation(torch.ones(inside.shape))}
    records = SaliencyEvaluator().evaluate(maps, box)
    assert len(records) == 4
    ideal = records[0]
    assert (ideal.category, ideal.points, ideal.distance, ideal.iou) == ('Car', 4, 5, 1)
    assert [ideal.figures[n] for n in ('vea', 'vea_max', 'pg', 'enpg')] == [1, 1, 1, 1]
    assert ideal.curves['deletion'][0] == ideal.curves['insertion'][-1] == 1
    assert ideal.protocol == Protocol().as_dict()

    save_records(records, tmp_path / 'r.json')
    assert load_records(tmp_path / 'r.json') == records
    table = table_of(records)
    assert table.categories == ('all', 'Car')
    assert table.counts() == {'all': 2, 'Car': 2}
    assert table.cells[('Ideal', 'all'), 'all', 'pg'].mean == 1
    assert table.cells[('Flat', 'all'), 'all', 'pg'].mean == pytest.approx(4 / 13)
    found = differences(records, ('Flat', 'all'))[('Ideal', 'all'), 'pg']
    assert found.mean == pytest.approx(9 / 13)


def test_records_of_two_protocols_make_no_table():
    maps = {'Ideal': explanation(scene()[2].float())}
    records = [
        record
        for factor in (2.0, 3.0)
        for record in SaliencyEvaluator(Protocol(region_factor=factor), LOCAL).evaluate(maps)
    ]
    with pytest.raises(InputError, match='region_factor'):
        table_of(records)


def test_methods_on_different_objects_make_no_table():
    inside = scene()[2]
    records = SaliencyEvaluator(metrics=LOCAL).evaluate(
        {'A': explanation(inside.float()), 'B': explanation(inside.float())}
    )
    with pytest.raises(InputError, match='the same objects'):
        table_of(records[:-1])
    with pytest.raises(InputError, match='measured twice'):
        table_of([*records, records[0]])


def test_a_map_with_nan_names_frame_and_method():
    bad = scene()[2].float()
    bad[1, 3] = math.nan
    with pytest.raises(InputError, match=r"Frame '000007', M, target 'all': .*1 of 26"):
        SaliencyEvaluator(metrics=LOCAL).evaluate({'M': explanation(bad)})


def test_no_matched_object_gives_no_records():
    _, boxes, inside = scene()
    far = boxes.clone()
    far[:, 1] += 9
    evaluator = SaliencyEvaluator()
    assert evaluator.evaluate({'M': explanation(inside.float(), boxes=far)}) == []
    assert evaluator.evaluate({'M': explanation(inside.float()[:0], boxes=boxes[:0])}) == []
    assert evaluator.evaluate({'M': explanation(inside.float(), truth=boxes[:0])}) == []


def test_an_object_of_one_point_and_one_of_none():
    points, boxes, _ = scene()
    small = boxes.clone()
    small[0] = torch.tensor([points[0, 0], points[0, 1], 0, 0.1, 0.1, 0.1, 0])
    small[1, 2] = 9  # Above all points.
    inside = points_in_boxes(points, small)
    assert inside.sum(dim=1).tolist() == [1, 0]
    box = ToyBlackBox(points, small, torch.ones(inside.shape).double())
    saliency = torch.rand(inside.shape, generator=torch.Generator().manual_seed(0))
    saliency[0, 0] = 2
    one, none = SaliencyEvaluator().evaluate(
        {'M': explanation(saliency, boxes=small, truth=small)}, box
    )
    assert (one.points, one.figures['pg']) == (1, 1)
    assert none.points == 0
    assert math.isnan(none.figures['vea'])
    # Its surroundings can be removed all the same.
    assert 0 <= none.figures['deletion'] <= 1


def test_what_is_missing_is_named():
    maps = {'M': explanation(scene()[2].float())}
    with pytest.raises(UnknownNameError, match="Unknown metrics \\['pgg'\\]"):
        SaliencyEvaluator(metrics=['pgg'])
    with pytest.raises(InputError, match=r"Frame '000007': expected the detector"):
        SaliencyEvaluator().evaluate(maps)
    maps['M'].ground_truth = None
    with pytest.raises(InputError, match=r"Frame '000007': expected annotated objects"):
        SaliencyEvaluator(metrics=LOCAL).evaluate(maps)


def test_methods_have_to_explain_the_same_detections():
    _, boxes, inside = scene()
    maps = {
        'A': explanation(inside.float()),
        'B': explanation(inside.float()[:1], boxes=boxes[:1]),
    }
    with pytest.raises(InputError, match='expected B to explain the same points'):
        SaliencyEvaluator(metrics=LOCAL).evaluate(maps)
