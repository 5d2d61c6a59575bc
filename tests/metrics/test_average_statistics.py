"""Similarity, densities, class ratios and zones at ends that are known."""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch

from explain3d.metrics.average_files import write_tables
from explain3d.metrics.average_maps import MapCollection
from explain3d.metrics.average_protocol import AverageProtocol, Grid
from explain3d.metrics.average_report import FigureTable, detections_csv, markdown
from explain3d.metrics.average_shares import share_of
from explain3d.metrics.average_similarity import similarities
from explain3d.metrics.average_statistics import figures, resampled, zones
from tests.helpers.average_cases import SIZE, frame, random_frames, world

PROTOCOL = AverageProtocol(
    cells=(8, 4, 4), scale='none', iou_thr=0.5, coarse=2, min_objects=1, draws=200
)
PLACES = 2.4 * torch.rand(80, 3, generator=torch.Generator().manual_seed(0)) - 1.2


def collect(frames, protocol=PROTOCOL):
    return MapCollection([share_of(f, protocol) for f in frames], protocol)


def pairs(true_map, false_map, count=6):
    """Frames of one true and one false car with maps that are functions of the place."""
    frames = []
    for i in range(count):
        boxes = [[20.0, 0, 0, *SIZE, 0.3 * i], [40.0, 5, 0, *SIZE, 1.0 - 0.2 * i]]
        places = [PLACES[i:], PLACES[: 70 + i]]
        points = torch.cat([world(p, b) for p, b in zip(places, boxes, strict=True)])
        values = torch.zeros(2, len(points))
        values[0, : len(places[0])] = true_map(places[0])
        values[1, len(places[0]) :] = false_map(places[1])
        frames.append(frame(f'{i}', boxes, points, {'all': values}, truth=boxes[:1]))
    return collect(frames)


def compared(collection, where='region'):
    stacks = [collection.stack('Car', which) for which in ('tp', 'fp')]
    return similarities(*stacks, collection.protocol, where)[0]


def test_equal_and_opposite_maps():
    places = lambda p: p[:, 0] + 2  # noqa: E731
    same = compared(pairs(places, lambda p: 3 * (p[:, 0] + 2)))
    # The two sets' points differ a little, and with them the means of cells.
    assert 0.97 < same.value < 1
    assert same.low < same.value < same.high < 1
    assert same.among > 0.97
    assert same.counts == (6, 6)
    opposite = compared(pairs(places, lambda p: 2 - p[:, 0]))
    assert opposite.value < -0.97
    assert opposite.among == same.among


def test_a_constant_map_is_like_nothing():
    found = compared(pairs(lambda p: p[:, 0] + 2, lambda p: 0 * p[:, 0] + 0.3))
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert found.cells > 30


def test_similarity_is_the_correlation_of_the_two_averages():
    """Against numpy, over the cells of the saved maps that both sets have."""
    protocol = dataclasses.replace(PROTOCOL, coarse=1, min_objects=2)
    collection = collect(random_frames(40, points=150), protocol)
    a, b = (collection.average('Car', which) for which in ('tp', 'fp'))
    use = (a.objects >= 2) & (b.objects >= 2)
    inside = torch.zeros_like(use)
    inside[2:10, 1:5, 1:5] = True
    for where, mask in (('region', use), ('box', use & inside)):
        found = similarities(
            collection.stack('Car', 'tp'), collection.stack('Car', 'fp'), protocol, where
        )
        for target, similarity in zip(collection.targets, found, strict=True):
            x, y = (average.of(target)[mask].numpy() for average in (a, b))
            assert similarity.value == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)
            assert similarity.cells == int(mask.sum()) > 100
            # Independent noise: the interval, and the parts of one set, are about zero.
            assert similarity.low < 0 < similarity.high
            assert similarity.among_low < 0 < similarity.among_high


def test_similarity_of_sets_that_are_empty():
    (f,) = random_frames(1, objects=1)
    collection = collect([f])
    found = compared(collection)
    assert (found.counts, found.cells) == ((1, 0), 0)
    assert all(math.isnan(v) for v in (found.value, found.low, found.high, found.among))


def test_draws_do_not_depend_on_the_order_of_frames():
    frames = random_frames(5, points=150)
    first, second = (figures(collect(fs)) for fs in (frames, frames[::-1]))
    assert [plain(f) for f in first] == [plain(f) for f in second]


def plain(figure):
    """A figure as a tuple in which NaN equals NaN."""
    return tuple(repr(value) for value in dataclasses.astuple(figure))


def counted():
    """Three frames: a true car in each, with twice as many points as the false one in the first."""
    frames = []
    for i in range(3):
        boxes = [[20.0, 0, 0, 4, 2, 2, 0.3], [30.0, 40.0, 0, 2, 2, 2, 0.0]][: 2 - bool(i)]
        true, false = PLACES[:40] / 1.2, torch.full((5, 3), 0.1)
        beside = torch.tensor([[1.2, 0, 0]] * 4)
        points = [world(true, boxes[0]), world(beside, boxes[0])]
        points += [world(false, boxes[1])] if i == 0 else []
        points = torch.cat(points)
        maps = {'all': torch.ones(len(boxes), len(points))}
        frames.append(frame(f'{i}', boxes, points, maps, truth=boxes[:1]))
    return collect(frames)


def test_densities_ratios_and_counts_by_hand():
    table = FigureTable(figures(counted()))
    assert [table.count('Car', which) for which in ('tp', 'fp', 'all')] == [3, 1, 4]
    true, false = (table.get('Car', which, 'density') for which in ('tp', 'fp'))
    assert (true.value, true.low, true.high, true.count) == (2.5, 2.5, 2.5, 3)  # 40 / 16
    assert false.value == 5 / 8
    # The region is 1.5 times as long, wide and high.
    around = table.get('Car', 'tp', 'around')
    assert around.value == pytest.approx(4 / ((1.5**3 - 1) * 16), rel=1e-12)
    assert table.get('Car', 'fp', 'distance').value == 50
    ratio = table.get('Car', 'fp/tp', 'density')
    assert ratio.value == pytest.approx(0.25, rel=1e-12)
    # The one false positive says nothing about how false positives vary.
    assert all(math.isnan(end) for f in (ratio, false) for end in (f.low, f.high))
    assert table.get('Car', 'fp/tp', 'false').value == 0.25
    assert table.get('all', 'fp/tp', 'false').count == 4
    assert table.get('Car', 'fp', 'near').value == 0
    # At 20 m and at 50 m: 4 and 25 times as dense at 10 m.
    far = table.get('Car', 'fp/tp', 'density_10m')
    assert far.value == pytest.approx(25 / 4 * 0.25, rel=1e-12)
    assert table.get('all', 'fp/tp', 'density_10m') == dataclasses.replace(far, category='all')


def test_no_margin_has_nothing_around():
    protocol = dataclasses.replace(PROTOCOL, margin=0)
    table = FigureTable(figures(collect(random_frames(2), protocol)))
    assert table.get('Car', 'tp', 'around') is None
    assert table.get('Car', 'tp', 'density').value > 0


def test_a_map_of_the_top_lies_at_the_top():
    collection = pairs(lambda p: (p[:, 2] > 0.5).float(), lambda p: 0 * p[:, 0] + 2)
    table = FigureTable(figures(collection))
    # Cells of the zone have centres above a third: the upper quarter, where the map is 1.
    inside = PLACES[(PLACES.abs() <= 1).all(1)]
    top, expected = table.get('Car', 'tp', 'zone_top', 'all'), []
    for i in range(6):
        part = PLACES[i:][(PLACES[i:].abs() <= 1).all(1)]
        expected.append((len(part), int((part[:, 2] > 0.5).sum())))
    whole, above = np.array(expected).sum(0)
    assert len(inside) > 30
    assert top.value == pytest.approx(whole / above, rel=1e-12)
    assert top.low < top.value < top.high
    for zone in ('corners', 'top', 'front', 'rear'):
        constant = table.get('Car', 'fp', f'zone_{zone}', 'all')
        assert constant.value == constant.low == constant.high == pytest.approx(1, rel=1e-12)


def test_zones_are_parts_of_the_box():
    found = zones(Grid((8, 4, 6), (2, 1, 2)))
    sizes = {name: int(mask.sum()) for name, mask in found.items()}
    # Two cells at either end and one at either side; two upper layers; cells with centres
    # beyond a third: 3 of 8.
    assert sizes == {'corners': 4 * 2 * 6, 'top': 8 * 4 * 2, 'front': 3 * 24, 'rear': 3 * 24}
    assert not (found['front'] & found['rear']).any()


def test_the_bootstrap_of_a_ratio_covers_it():
    """The interval's width against the delta method, for independent frames."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(5, 1, 400), generator.normal(10, 1, 400)
    ratio = lambda sums: sums[..., 0] / sums[..., 1]  # noqa: E731
    value, low, high = resampled(np.stack([x, y], 1), [str(i) for i in range(400)], ratio, 4000, 0)
    assert value == pytest.approx(x.sum() / y.sum(), rel=1e-12)
    deviation = np.std(x - value * y) / y.mean() / 20
    # 4000 draws know an end of the interval to about 4 % of its half width.
    assert high - value == pytest.approx(1.96 * deviation, rel=0.12)
    assert value - low == pytest.approx(1.96 * deviation, rel=0.12)
    assert all(math.isnan(v) for v in resampled(np.zeros((0, 2)), [], ratio, 10, 0))
    one = resampled(np.array([[1.0, 2.0]]), ['a'], ratio, 10, 0)
    assert one[0] == 0.5
    assert math.isnan(one[1])


def test_tables_say_what_was_counted_and_how(tmp_path):
    collection = counted()
    text = write_tables(collection, tmp_path)
    assert (tmp_path / 'table.md').read_text() == text + '\n'
    assert '- true positives: 3\n- false positives: 1\n- all detections: 4' in text
    assert '| Car | tp | 3 | 2.5 (2.5 to 2.5) |' in text
    assert 'Protocol: predicted boxes scaled to one size' in text
    content = json.loads((tmp_path / 'table.json').read_text())
    assert content['frames'] == ['0', '1', '2']
    assert AverageProtocol(**content['protocol']) == collection.protocol
    rows = list(csv.DictReader(io.StringIO((tmp_path / 'table.csv').read_text())))
    assert len(rows) == len(content['figures']) == len(figures(collection))
    assert {row['protocol'] for row in rows} == {collection.protocol.text()}
    detections = list(csv.DictReader(io.StringIO(detections_csv(collection))))
    assert [row['set'] for row in detections] == ['tp', 'fp', 'tp', 'tp']
    assert detections[0]['points'] == '40'


def test_tables_without_detections_or_annotations(tmp_path):
    nothing = collect([frame('a', [], torch.zeros(3, 3), {'all': torch.zeros(0, 3)})])
    assert 'no class was detected' in write_tables(nothing, tmp_path)
    box = [20.0, 0, 0, *SIZE, 0]
    f = frame('a', [box], world(PLACES, box), {'all': torch.ones(1, 80)}, truth=None)
    text = markdown(collect([f]), figures(collect([f])))
    assert 'true positives' not in text
    assert '- all detections: 1' in text
    assert 'Where the maps of all detections lie' in text
