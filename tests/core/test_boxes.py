"""Box geometry against shapely polygons in float64, against algebra, and at its corner cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from explain3d.core.boxes import (
    bev_corners,
    bev_intersection,
    bev_iou,
    box_corners,
    iou_3d,
    points_in_boxes,
)
from explain3d.core.errors import InputError

OVERLAPS = [bev_intersection, bev_iou, iou_3d]


def boxes(*rows, dtype=torch.float64):
    return torch.tensor(rows, dtype=dtype).reshape(-1, 7)


def random_boxes(count, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.tensor([-spread, -spread, -1, 0.3, 0.3, 0.3, -7], dtype=torch.float64)
    high = torch.tensor([spread, spread, 1, 6, 3, 3, 7], dtype=torch.float64)
    return low + (high - low) * torch.rand(count, 7, generator=generator, dtype=torch.float64)


def footprint(box):
    """A shapely polygon made from the box's definition alone."""
    x, y, _, length, width, _, yaw = (float(value) for value in box)
    return Polygon(
        [
            (
                x + math.cos(yaw) * u - math.sin(yaw) * v,
                y + math.sin(yaw) * u + math.cos(yaw) * v,
            )
            for u, v in [
                (length / 2, width / 2),
                (-length / 2, width / 2),
                (-length / 2, -width / 2),
                (length / 2, -width / 2),
            ]
        ]
    )


def shapely_overlaps(a, b):
    """Shared area, BEV IoU and 3D IoU of two boxes, by shapely."""
    p, q = footprint(a), footprint(b)
    area = p.intersection(q).area
    ends = [(float(box[2] - box[5] / 2), float(box[2] + box[5] / 2)) for box in (a, b)]
    height = max(0.0, min(ends[0][1], ends[1][1]) - max(ends[0][0], ends[1][0]))
    volumes = p.area * float(a[5]) + q.area * float(b[5])
    return area, area / (p.area + q.area - area), area * height / (volumes - area * height)


class TestCorners:
    def test_order_and_frame(self):
        corners = box_corners(boxes([10, 20, 1, 4, 2, 1.5, 0]))[0]
        expected = torch.tensor([[12, 21], [8, 21], [8, 19], [12, 19]], dtype=torch.float64)
        assert torch.equal(corners[:4, :2], expected)
        assert torch.equal(corners[4:, :2], expected)
        assert torch.equal(corners[:4, 2], torch.full((4,), 0.25, dtype=torch.float64))
        assert torch.equal(corners[4:, 2], torch.full((4,), 1.75, dtype=torch.float64))

    def test_yaw_is_counter_clockwise(self):
        front_left = bev_corners(boxes([0, 0, 0, 4, 2, 1, math.pi / 2]))[0, 0]
        torch.testing.assert_close(front_left, torch.tensor([-1.0, 2.0], dtype=torch.float64))

    def test_counter_clockwise_order_for_any_yaw(self):
        corners = bev_corners(random_boxes(50, 10, seed=0))
        for polygon in corners:
            assert Polygon(polygon.tolist()).exterior.is_ccw

    def test_no_boxes(self):
        assert box_corners(boxes()).shape == (0, 8, 3)
        assert bev_corners(boxes()).shape == (0, 4, 2)


class TestPointsInBoxes:
    def test_against_definition(self):
        some = random_boxes(20, 5, seed=1)
        generator = torch.Generator().manual_seed(2)
        points = torch.rand(400, 4, generator=generator, dtype=torch.float64) * 12 - 6
        inside = points_in_boxes(points, some)
        for box, row in zip(some.tolist(), inside, strict=True):
            x, y, z, length, width, height, yaw = box
            for (px, py, pz, _), found in zip(points.tolist(), row.tolist(), strict=True):
                # Complex numbers turn the point into the box's frame.
                local = complex(px - x, py - y) * complex(math.cos(yaw), -math.sin(yaw))
                expected = (
                    abs(local.real) <= length / 2
                    and abs(local.imag) <= width / 2
                    and abs(pz - z) <= height / 2
                )
                assert found == expected
        assert 0 < inside.sum() < inside.numel()

    def test_faces_belong_to_the_box_and_beyond_does_not(self):
        box = boxes([0, 0, 0, 4, 2, 1, 0])
        on_faces = torch.tensor([[2.0, 0, 0], [0, -1, 0], [0, 0, 0.5], [2, 1, 0.5]])
        assert points_in_boxes(on_faces.double(), box).all()
        assert not points_in_boxes(on_faces.double() * 1.000001, box).any()

    def test_points_that_are_not_finite_are_outside(self):
        points = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0], [0, 0, -math.inf], [0, 0, 0]])
        inside = points_in_boxes(points, boxes([0, 0, 0, 1, 1, 1, 0], dtype=torch.float32))
        assert inside.tolist() == [[False, False, False, True]]

    def test_many_boxes_are_worked_off_in_parts(self, monkeypatch):
        some = random_boxes(7, 3, seed=3)
        points = random_boxes(50, 3, seed=4)[:, :3]
        expected = points_in_boxes(points, some)
        monkeypatch.setattr('explain3d.core.boxes._PAIRS_AT_ONCE', 120)
        assert torch.equal(points_in_boxes(points, some), expected)

    @pytest.mark.parametrize(('count', 'number'), [(0, 3), (3, 0)])
    def test_empty(self, count, number):
        inside = points_in_boxes(torch.zeros(number, 3), torch.zeros(count, 7))
        assert inside.shape == (count, number)

    def test_points_of_a_wrong_shape(self):
        with pytest.raises(InputError, match=r'\(N, >= 3\)'):
            points_in_boxes(torch.zeros(5, 2), torch.zeros(1, 7))


class TestOverlapAgainstShapely:
    @pytest.mark.parametrize('spread', [0.5, 3.0])
    def test_all_pairs(self, spread):
        a, b = random_boxes(25, spread, seed=5), random_boxes(24, spread, seed=6)
        expected = torch.tensor(
            [[shapely_overlaps(p, q) for q in b] for p in a], dtype=torch.float64
        )
        assert (expected[..., 0] > 0).sum() > 100
        for overlap, values in zip(OVERLAPS, expected.unbind(2), strict=True):
            torch.testing.assert_close(overlap(a, b), values, rtol=0, atol=1e-12)
            # Boxes that are apart share exactly nothing, not a rounding error.
            assert (overlap(a, b)[expected[..., 0] == 0] == 0).all()

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_any_two_boxes(self, data):
        # Coarse values make coinciding corners, collinear edges and right angles common.
        size = st.integers(1, 12).map(lambda n: n / 2)
        place = st.one_of(st.integers(-8, 8).map(lambda n: n / 2), st.floats(-4, 4))
        yaw = st.one_of(st.integers(-8, 8).map(lambda n: n * math.pi / 4), st.floats(-7, 7))
        box = st.tuples(place, place, place, size, size, size, yaw)
        a, b = boxes(data.draw(box)), boxes(data.draw(box))
        expected = shapely_overlaps(a[0], b[0])
        for overlap, value in zip(OVERLAPS, expected, strict=True):
            assert overlap(a, b).item() == pytest.approx(value, abs=1e-9)
            assert overlap(b, a).item() == pytest.approx(value, abs=1e-9)
            assert overlap(a, b, aligned=True).item() == pytest.approx(value, abs=1e-9)


class TestOverlapInClosedForm:
    def test_identical_boxes_are_exactly_one(self):
        some = random_boxes(100, 60, seed=7)
        for dtype in (torch.float32, torch.float64):
            same = some.to(dtype)
            assert torch.equal(bev_iou(same, same).diagonal(), torch.ones(100, dtype=dtype))
            assert torch.equal(iou_3d(same, same).diagonal(), torch.ones(100, dtype=dtype))

    @pytest.mark.parametrize('turn', [math.pi, -math.pi, 2 * math.pi, -4 * math.pi])
    def test_half_and_full_turns_change_nothing(self, turn):
        some = random_boxes(50, 60, seed=8)
        turned = some.clone()
        turned[:, 6] += turn
        ones = torch.ones(50, dtype=torch.float64)
        torch.testing.assert_close(iou_3d(some, turned, aligned=True), ones, rtol=0, atol=1e-13)

    def test_a_square_turned_by_a_quarter_is_itself(self):
        a, b = boxes([3, 4, 0, 2, 2, 2, 0.3]), boxes([3, 4, 0, 2, 2, 2, 0.3 + math.pi / 2])
        assert iou_3d(a, b).item() == pytest.approx(1, abs=1e-14)

    def test_square_at_45_degrees(self):
        # The shared octagon of a unit square and itself at 45 degrees: 2 * (sqrt(2) - 1).
        a, b = boxes([0, 0, 0, 1, 1, 1, 0]), boxes([0, 0, 0, 1, 1, 1, math.pi / 4])
        assert bev_intersection(a, b).item() == pytest.approx(2 * (math.sqrt(2) - 1), abs=1e-15)

    @pytest.mark.parametrize('degrees', [15, 45, 90])
    def test_cross_of_two_bars(self, degrees):
        # Two long bars of width w that cross at an angle t share a rhombus of area w^2 / sin t.
        t = math.radians(degrees)
        a, b = boxes([5, -2, 0, 10, 0.5, 1, 0.2]), boxes([5, -2, 0, 10, 0.5, 1, 0.2 + t])
        assert bev_intersection(a, b).item() == pytest.approx(0.25 / math.sin(t), abs=1e-14)

    def test_contained(self):
        outer, inner = boxes([1, 1, 1, 6, 4, 2, 0.7]), boxes([1.2, 0.9, 1.1, 2, 1, 1, -0.4])
        assert bev_intersection(outer, inner).item() == pytest.approx(2, abs=1e-14)
        assert bev_iou(outer, inner).item() == pytest.approx(2 / 24, abs=1e-15)
        assert iou_3d(outer, inner).item() == pytest.approx(2 / 48, abs=1e-15)

    @pytest.mark.parametrize('yaw', [0.0, math.pi / 2, 0.7, -2.9])
    @pytest.mark.parametrize('shift', [complex(4, 0), complex(0, 2), complex(4, -2)])
    def test_touching_sides_and_corners_share_nothing(self, shift, yaw):
        turned = shift * complex(math.cos(yaw), math.sin(yaw))
        a, b = boxes([0, 0, 0, 4, 2, 1, yaw]), boxes([turned.real, turned.imag, 0, 4, 2, 1, yaw])
        assert bev_intersection(a, b).item() == 0
        assert iou_3d(a, b).item() == 0

    def test_one_on_top_of_the_other(self):
        a, b = boxes([0, 0, 0, 4, 2, 1, 0.5]), boxes([0, 0, 1, 4, 2, 1, 0.5])
        assert bev_iou(a, b).item() == 1
        assert iou_3d(a, b).item() == 0

    def test_half_a_box_higher(self):
        a, b = boxes([0, 0, 0, 4, 2, 1, 0.5]), boxes([0, 0, 0.5, 4, 2, 1, 0.5])
        assert iou_3d(a, b).item() == pytest.approx(1 / 3, abs=1e-15)

    def test_far_from_the_origin_loses_no_precision(self):
        a, b = random_boxes(20, 1, seed=9), random_boxes(20, 1, seed=10)
        shift = torch.tensor([2**20, -(2**21), 64, 0, 0, 0, 0], dtype=torch.float64)
        a, b = (a + shift) - shift, (b + shift) - shift  # What survives the addition.
        torch.testing.assert_close(bev_iou(a + shift, b + shift), bev_iou(a, b), rtol=0, atol=1e-13)


class TestDegenerate:
    @pytest.mark.parametrize('size', [(0, 0, 0), (0, 2, 1), (4, 0, 1), (-4, 2, 1), (-4, -2, 1)])
    def test_without_area(self, size):
        box, whole = boxes([0, 0, 0, *size, 0.3]), boxes([0, 0, 0, 4, 2, 1, 0])
        for overlap in OVERLAPS:
            for a, b in [(box, whole), (whole, box), (box, box)]:
                assert overlap(a, b).item() == 0
                assert overlap(a, b, aligned=True).item() == 0

    def test_without_height(self):
        flat = boxes([0, 0, 0, 4, 2, 0, 0])
        assert bev_iou(flat, flat).item() == 1
        assert iou_3d(flat, flat).item() == 0

    def test_almost_parallel_edges(self):
        a = boxes(*[[0, 0, 0, 4, 2, 1, 0]] * 4)
        b = a.clone()
        b[:, 6] = torch.tensor([1e-8, 1e-16, 1e-160, 1e-310], dtype=torch.float64)
        overlap = bev_iou(a, b, aligned=True)
        torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=0, atol=1e-7)
        assert (overlap <= 1).all()


class TestInterface:
    @pytest.mark.parametrize('overlap', OVERLAPS)
    @pytest.mark.parametrize(('rows', 'columns'), [(0, 0), (0, 3), (3, 0)])
    def test_empty(self, overlap, rows, columns):
        assert overlap(torch.zeros(rows, 7), torch.zeros(columns, 7)).shape == (rows, columns)

    @pytest.mark.parametrize('overlap', OVERLAPS)
    def test_type_of_the_result(self, overlap):
        single, double = torch.ones(1, 7), torch.ones(1, 7, dtype=torch.float64)
        assert overlap(single, single).dtype == torch.float32
        assert overlap(single, double).dtype == torch.float64

    def test_float32_input_is_computed_in_float64(self):
        a, b = random_boxes(30, 2, seed=11).float(), random_boxes(30, 2, seed=12).float()
        assert torch.equal(iou_3d(a, b), iou_3d(a.double(), b.double()).float())

    def test_different_numbers_cannot_be_aligned(self):
        with pytest.raises(InputError, match='received 2 and 3'):
            bev_iou(torch.ones(2, 7), torch.ones(3, 7), aligned=True)

    @pytest.mark.parametrize(
        ('bad', 'message'),
        [
            (torch.zeros(2, 5), r'\(K, 7\)'),
            (torch.zeros(7), r'\(K, 7\)'),
            (torch.zeros(2, 7, dtype=torch.long), 'int64'),
            (torch.full((2, 7), math.nan), 'NaN or infinity in 2 of 2'),
        ],
    )
    def test_malformed_boxes(self, bad, message):
        for call in (
            lambda: bev_iou(bad, torch.ones(1, 7)),
            lambda: iou_3d(torch.ones(1, 7), bad),
            lambda: box_corners(bad),
            lambda: points_in_boxes(torch.zeros(1, 3), bad),
        ):
            with pytest.raises(InputError, match=message):
                call()
