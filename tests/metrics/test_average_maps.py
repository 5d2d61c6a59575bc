"""Average maps: known saliency at known places of known boxes."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch

from explain3d.core.errors import InputError, ResultFileError, UnknownNameError
from explain3d.core.results_archive import write_archive
from explain3d.core.results_check import seal
from explain3d.metrics.average_files import load_averages, write_arrays
from explain3d.metrics.average_maps import MapCollection
from explain3d.metrics.average_protocol import AverageProtocol, Grid
from explain3d.metrics.average_shares import aligned, cells_of, share_of
from tests.helpers.average_cases import SIZE, frame, random_frames, world

PROTOCOL = AverageProtocol(cells=(8, 4, 4), scale='none', iou_thr=0.5)
CORNERS = torch.cartesian_prod(*[torch.tensor([-0.95, 0.95])] * 3)


def collect(frames, protocol=PROTOCOL):
    return MapCollection([share_of(f, protocol) for f in frames], protocol)


def box_of(yaw=0.0, size=SIZE, place=(20.0, -3.0, -1.0)):
    return [*place, *size, yaw]


@pytest.mark.parametrize('yaw', [0.0, 0.7, -2.5, 3.14159, 9.0])
@pytest.mark.parametrize('size', [SIZE, (0.8, 0.6, 1.8)])
@pytest.mark.parametrize('corner', [0, 3, 4, 6])
def test_a_corner_of_a_turned_box_is_that_corner_of_the_map(yaw, size, corner):
    box = box_of(yaw, size)
    values = torch.zeros(1, 8)
    values[0, corner] = 1
    average = collect([frame('a', [box], world(CORNERS, box), {'all': values})]).average('Car')
    assert average.points.sum() == 8
    (hot,) = (average.of('all') == 1).nonzero().tolist()
    # Rear, right and bottom first; the box begins after the pad.
    x, y, z = (s > 0 for s in CORNERS[corner])
    assert hot == [2 + 7 * int(x), 1 + 3 * int(y), 1 + 3 * int(z)]
    assert average.grid == Grid((8, 4, 4), (2, 1, 1))


def test_the_front_of_a_box_is_where_it_drives():
    """Without ``world``: a car at yaw 90 degrees drives towards y; its left is at smaller x."""
    box = [10.0, 0.0, 0.0, 4.0, 2.0, 2.0, torch.pi / 2]
    place = aligned(torch.tensor([[9.0, 2.0, 1.0]]), torch.tensor([box]))
    torch.testing.assert_close(place, torch.tensor([[1.0, 1.0, 1.0]]).double(), atol=1e-6, rtol=0)


def test_boxes_of_all_sizes_are_scaled_to_one():
    small, large = box_of(0.3, (2.0, 1.0, 1.0)), box_of(-1.0, (8.0, 4.0, 3.0), (60.0, 5.0, 0.0))
    frames = [
        frame(name, [box], world([[0.3, -0.6, 0.8]], box), {'all': [[value]]})
        for name, box, value in (('a', small, 0.25), ('b', large, 0.75))
    ]
    average = collect(frames).average('Car')
    (cell,) = (average.points > 0).nonzero().tolist()
    assert average.points[tuple(cell)] == average.objects[tuple(cell)] == 2
    assert average.of('all')[tuple(cell)] == 0.5
    assert average.of('all').isnan().sum() == average.points.numel() - 1
    assert average.size.tolist() == [5.0, 2.5, 2.0]


def test_a_mirrored_scene_has_the_mirrored_map():
    frames = random_frames(2)
    mirror = torch.tensor([1.0, -1.0, 1.0])
    mirrored = []
    for f in frames:
        boxes = f.detections.boxes * torch.tensor([1.0, -1, 1, 1, 1, 1, -1])
        mirrored.append(frame(f.frame_id, boxes, f.points * mirror, f.maps.saliency))
    average, other = (collect(fs).average('Car') for fs in (frames, mirrored))
    assert torch.equal(average.points.flip(1), other.points)
    assert average.points.sum() > 200
    torch.testing.assert_close(
        average.saliency.flip(2), other.saliency, equal_nan=True, rtol=1e-12, atol=0
    )


def test_points_beyond_the_margin_do_not_count_and_faces_belong_to_the_box():
    box = [0.0, 0.0, 0.0, 4.0, 2.0, 2.0, 0.0]
    places = [[1.0, 1.0, 1.0], [-1, -1, -1], [1.49, 0, 0], [1.51, 0, 0], [0, 0, -1.51]]
    values = {'all': [[1.0, 2.0, 3.0, 4.0, 5.0]]}
    collection = collect([frame('a', [box], world(places, box), values)])
    average, stack = collection.average('Car'), collection.stack('Car')
    assert average.points.sum() == 3
    assert average.of('all')[9, 4, 4] == 1
    assert average.of('all')[2, 1, 1] == 2
    assert average.of('all')[11].nansum() == 3
    assert (stack.inside.tolist(), stack.around.tolist()) == ([2], [1])


def test_cells_against_a_loop_over_points():
    """The oracle goes point by point with plain numbers."""
    f = random_frames(1, seed=3)[0]
    grid = Grid((5, 3, 2), (1, 2, 0))
    maps = list(f.maps.saliency.values())
    owner, cell, points, sums, _ = cells_of(f.points, f.detections.boxes, maps, grid)
    found = {
        (int(o), int(c)): (int(n), s.tolist())
        for o, c, n, s in zip(owner, cell, points, sums.T, strict=True)
    }
    expected = {}
    for k, box in enumerate(f.detections.boxes):
        for n, point in enumerate(f.points):
            place = aligned(point[None], box[None])[0].tolist()
            index = [
                int((u + 1) / 2 * c // 1) + p
                for u, c, p in zip(place, grid.cells, grid.pad, strict=True)
            ]
            if all(0 <= i < s for i, s in zip(index, grid.shape, strict=True)):
                key = (k, (index[0] * grid.shape[1] + index[1]) * grid.shape[2] + index[2])
                count, total = expected.get(key, (0, [0.0, 0.0]))
                total = [t + float(m[k, n]) for t, m in zip(total, maps, strict=True)]
                expected[key] = (count + 1, total)
    assert found.keys() == expected.keys()
    for key, (count, total) in expected.items():
        assert found[key][0] == count
        assert found[key][1] == pytest.approx(total, rel=1e-12)


def test_points_or_objects_count_alike():
    near, far = box_of(), box_of(1.0, place=(50.0, 10.0, 0.0))
    place = [[0.1, 0.1, 0.1]]
    frames = [
        frame('near', [near], world(place * 3, near), {'all': [[1.0, 1.0, 1.0]]}),
        frame('far', [far], world(place, far), {'all': [[0.0]]}),
    ]
    for weight, value in (('points', 0.75), ('objects', 0.5)):
        average = collect(frames, dataclasses.replace(PROTOCOL, weight=weight)).average('Car')
        assert average.of('all').nansum() == value
        assert average.seen_along('all', 2).nansum() == value
        assert (average.points.sum(), average.objects.sum()) == (4, 2)


def test_scale_over_the_frame():
    box = box_of()
    points = torch.cat([world([[0.0, 0.0, 0.0]], box), torch.tensor([[0.0, 0, 0], [0, 1, 0]])])
    f = frame('a', [box], points, {'all': [[2.0, 4.0, 0.0]]})
    assert collect([f]).average('Car').of('all').nansum() == 2
    scaled = dataclasses.replace(PROTOCOL, scale='frame')
    assert collect([f], scaled).average('Car').of('all').nansum() == 0.5


def test_views_are_means_of_columns_and_count_detections_once():
    boxes = [box_of(), box_of(0.5, place=(40.0, 0.0, 0.0))]
    local = [[[0.1, 0.1, -0.9], [0.1, 0.1, 0.9]], [[0.1, 0.1, 0.9], [0.1, -0.9, 0.9]]]
    points = torch.cat([world(part, box) for part, box in zip(local, boxes, strict=True)])
    average = collect([frame('a', boxes, points, {'all': [[1.0, 2, 3, 4]] * 2})]).average('Car')
    from_above = average.seen_along('all', 2)
    assert from_above[6, 3] == 2  # 1, 2 and 3
    assert from_above[6, 1] == 4
    assert from_above.isnan().sum() == from_above.numel() - 2
    assert average.columns[2][6, 3] == 2  # three cells' worth of points, of two detections
    assert average.columns[2].sum() == 3


def test_shares_in_any_order_and_twice_give_one_run():
    frames = random_frames(7)
    once = collect(frames)
    shares = [share_of(f, PROTOCOL) for f in frames]
    pieces = [*shares[4:], *shares[:5], shares[0]]
    random.Random(0).shuffle(pieces)
    merged = MapCollection(pieces, PROTOCOL)
    assert merged.frames == once.frames
    for which in ('tp', 'fp', 'all'):
        a, b = once.average('Car', which), merged.average('Car', which)
        assert torch.equal(a.saliency.nan_to_num(-1), b.saliency.nan_to_num(-1))
        assert torch.equal(a.points, b.points)
    assert once.average('Car', 'tp').count == 7
    both = once.average('Car', 'tp').points + once.average('Car', 'fp').points
    assert torch.equal(both, once.average('Car').points)


def test_true_and_false_positives():
    truth = box_of()
    beside = box_of(place=(22.5, -3.0, -1.0))  # IoU 1.5 / 6.5
    f = frame(
        'a', [truth, truth, beside, truth], world([[0.0, 0, 0]], truth), {'all': torch.ones(4, 1)},
        labels=[0, 0, 0, 1], scores=[0.5, 0.9, 0.8, 0.7], truth=[truth],
    )  # fmt: skip
    stack = collect([f]).stack('Car')
    # The better of two on one object is true; the other is a duplicate.
    assert stack.matched.tolist() == [False, True, False]
    assert stack.overlaps.tolist() == pytest.approx([1, 1, 1.5 / 6.5])
    other = collect([f]).stack('Pedestrian', 'fp')
    assert (len(other), other.overlaps.tolist()) == (1, [0.0])


def test_without_annotations_there_are_no_false_positives():
    f = frame('a', [box_of()], world([[0.0, 0, 0]], box_of()), {'all': [[1.0]]}, truth=None)
    collection = collect([f])
    assert collection.sets == ('all',)
    assert collection.average('Car').count == 1
    with pytest.raises(InputError, match=r"Expected one of the sets \('all',\), received 'tp'"):
        collection.stack('Car', 'tp')
    with pytest.raises(InputError, match="received 'a' without them|'b' with and 'a' without"):
        collect([f, frame('b', [], [], {'all': torch.zeros(0, 0)})])


def test_empty_sets_are_defined():
    nothing = frame('a', [], torch.zeros(5, 3), {'all': torch.zeros(0, 5)})
    collection = collect([nothing])
    assert collection.categories == ()
    average = collection.average('Car', 'fp')
    assert average.count == 0
    assert average.saliency.isnan().all()
    assert average.saliency.shape == (1, 12, 6, 6)
    no_points = frame('b', [box_of()], [], {'all': torch.zeros(1, 0)}, truth=[box_of()])
    average = collect([nothing, no_points]).average('Car', 'tp')
    assert (average.count, int(average.points.sum())) == (1, 0)
    with pytest.raises(InputError, match='at least one frame, received none'):
        MapCollection([], PROTOCOL)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_map_that_is_not_finite_is_an_error_with_the_frame(bad):
    f = frame('000123', [box_of()], world([[0.0, 0, 0]], box_of()), {'h': [[bad]]})
    with pytest.raises(InputError, match="Frame '000123', FFAM, target 'h': .*1 of 1 values"):
        share_of(f, PROTOCOL)


def test_what_cannot_be_averaged_is_refused():
    flat = frame('000123', [box_of(size=(4.0, 0.0, 1.5))], [], {'all': torch.zeros(1, 0)})
    with pytest.raises(InputError, match="Frame '000123': expected boxes with a size"):
        share_of(flat, PROTOCOL)
    frames = [
        frame(name, [], [], {'all': torch.zeros(0, 0)}, settings={'model': model})
        for name, model in (('a', '12'), ('b', '34'))
    ]
    with pytest.raises(InputError, match=r"'a' and 'b' .*different ways, \{'model': \('12', '34'"):
        collect(frames)
    # Tuples come back from files as lists: no difference.
    fresh, stored = (
        frame(name, [], [], {'all': torch.zeros(0, 0)}, settings={'explainer': {'grid': grid}})
        for name, grid in (('a', (1, 2)), ('b', [1, 2]))
    )
    assert collect([fresh, stored]).frames == ('a', 'b')
    f = frame('a', [box_of()], [], {'all': torch.zeros(1, 0)})
    with pytest.raises(UnknownNameError, match=r"cells for the class 'Car', received .*'bus'"):
        share_of(f, AverageProtocol(cells={'bus': (8, 4, 4)}))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(cells=(8, 4)), 'Expected cells as three numbers'),
        (dict(cells={'car': (8, 0, 4)}), 'Expected cells as three numbers'),
        (dict(margin=-0.1), 'Expected 0 <= margin'),
        (dict(min_objects=0), 'Expected 0 <= margin'),
        (dict(weight='frames'), "Expected weight to be one of .*, received 'frames'"),
        (dict(scale='box'), 'Expected scale to be one of'),
        (dict(iou_thr=1.5), 'Expected IoU thresholds'),
    ],
)
def test_a_protocol_out_of_range_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        AverageProtocol(**settings)


def test_coarser_cells_hold_the_same_points():
    stack = collect(random_frames(3)).stack('Car')
    fine, coarse = stack.grid, stack.coarser(4)
    assert coarse.grid == Grid((2, 1, 1), (1, 1, 1))
    assert coarse.points.sum() == stack.points.sum()
    torch.testing.assert_close(coarse.sums.sum(1), stack.sums.sum(1))
    # What is in the box stays in the box, also where cells do not divide.
    for factor in (3, 4, 7):
        other = stack.coarser(factor)
        inside = [_in_box(s).sum() for s in (stack, other)]
        assert inside[0] == inside[1] > 50
    assert fine.coarser(1) == fine


def _in_box(stack):
    from explain3d.metrics.average_similarity import inside_box

    return stack.points[inside_box(stack.grid)[stack.cell]]


def test_arrays_come_back(tmp_path):
    collection = collect(random_frames(3))
    (path,) = write_arrays(collection, tmp_path)
    assert path.name == 'Car.npz'
    for which, average in load_averages(path).items():
        expected = collection.average('Car', which)
        for field in dataclasses.fields(expected):
            found, value = getattr(average, field.name), getattr(expected, field.name)
            if isinstance(value, torch.Tensor):
                assert torch.equal(found.nan_to_num(-1), value.nan_to_num(-1))
            elif field.name == 'columns':
                assert all(torch.equal(a, b) for a, b in zip(found, value, strict=True))
            else:
                assert found == value
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ResultFileError, match=r'Car.npz holds no average maps'):
        load_averages(path)
    with pytest.raises(FileNotFoundError):
        load_averages(tmp_path / 'Van.npz')


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('tp_points', -1, "'tp_points' goes down to -1"),
        ('tp_objects', 999, "'tp_objects' goes up to 999"),
        ('fp_saliency', np.inf, "'fp_saliency' holds infinite values"),
        ('all_columns_width', 999, "'all_columns_width' goes up to 999"),
        ('all_size', -1, "'all_size' goes down to -1"),
        ('cells', [1, 2], r'its cells are \[1, 2\]'),
        ('cells', [0, 2, 2], "its 'cells' are"),
        ('count', {'tp': 1.5}, "its 'count' are"),
        ('count', {'tp': 3}, 'are not expected'),
        ('targets', ['one', 'two', 'three', 'four'], "'tp_saliency' has the shape"),
        ('weight', 'sum', "averaged over 'sum'"),
    ],
)
def test_averages_that_do_not_fit_are_refused(tmp_path, name, value, text):
    (path,) = write_arrays(collect(random_frames(3)), tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    meta = json.loads(arrays.pop('metadata').tobytes())
    if name in meta:
        meta[name] = value
    else:
        arrays[name].flat[0] = value
    with open(path, 'wb') as file:
        write_archive(file, seal(meta, arrays))
    with pytest.raises(ResultFileError, match=f'holds no average maps.*{text}'):
        load_averages(path)
    with open(path, 'wb') as file:
        write_archive(file, {**seal(meta, arrays), 'tp_points': arrays['tp_points'] + 1})
    with pytest.raises(ResultFileError, match=r'tp_points.*not the arrays that were written'):
        load_averages(path)
