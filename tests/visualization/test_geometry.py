"""Projection and box geometry against values worked out by hand and brute force."""

import numpy as np
import pytest

from explain3d.visualization.geometry import (
    EDGES,
    Camera,
    box_corners,
    box_extent,
    inside_extent,
    nice_step,
    page_extent,
    point_extent,
    to_box,
    to_frame,
    visible_edges,
)
from explain3d.visualization.perspective import neighbourhood, object_camera


def random_boxes(count, seed=0):
    generator = np.random.default_rng(seed)
    low = (-30, -30, -2, 0.5, 0.5, 0.5, -7)
    return generator.uniform(low, (30, 30, 2, 5, 3, 3, 7), (count, 7))


def test_corners_of_a_turned_box():
    # Length 4 lies along y, width 2 along -x.
    corners = box_corners(np.array([10.0, 20.0, 1.0, 4.0, 2.0, 6.0, np.pi / 2]))
    expected = [[9, 22, -2], [9, 18, -2], [11, 18, -2], [11, 22, -2]]
    np.testing.assert_allclose(corners[:4], expected, atol=1e-12)
    np.testing.assert_allclose(corners[4:], np.array(expected) + [0, 0, 6], atol=1e-12)


def test_edges_join_corners_that_differ_in_one_direction():
    box = np.array([0.0, 0.0, 0.0, 4.0, 2.0, 1.0, 0.0])
    corners = box_corners(box)
    lengths = sorted(np.linalg.norm(corners[a] - corners[b]) for a, b in EDGES)
    assert lengths == [1.0] * 4 + [2.0] * 4 + [4.0] * 4
    assert len({frozenset(edge) for edge in EDGES}) == 12


@pytest.mark.parametrize('box', random_boxes(5))
def test_frames_are_inverse(box):
    points = np.random.default_rng(1).normal(size=(7, 3))
    np.testing.assert_allclose(to_box(to_frame(points, box), box), points, atol=1e-12)


def test_pinhole_by_hand():
    # Looking along x from (1, 0, 0.5): y is to the left, so -y is to the right.
    camera = Camera.look_at([1.0, 0.0, 0.5], [5.0, 0.0, 0.5], focal=2.0)
    points = np.array([[11.0, -3.0, 1.5], [3.0, 1.0, -0.5], [1.0, 0.0, 0.5], [0.0, 5.0, 5.0]])
    positions, depth = camera.project(points)
    np.testing.assert_allclose(depth, [10, 2, 0, -1], atol=1e-12)
    np.testing.assert_allclose(positions[:2], [[0.6, 0.2], [-1.0, -1.0]], atol=1e-12)
    assert np.isnan(positions[2:]).all()


def test_looking_straight_down_has_forward_upwards():
    camera = Camera.look_at([0.0, 0.0, 10.0], [0.0, 0.0, 0.0])
    positions, depth = camera.project(np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 5.0]]))
    np.testing.assert_allclose(depth, [10, 5])
    np.testing.assert_allclose(positions, [[0, 0.2], [-0.4, 0]], atol=1e-12)


def test_any_camera_is_right_handed_and_projects_along_rays():
    generator = np.random.default_rng(0)
    for _ in range(10):
        eye, target, point = generator.normal(size=(3, 3)) * 5
        camera = Camera.look_at(eye, target, focal=1.5)
        right, up, forward = camera.axes
        np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(np.cross(right, up), -forward, atol=1e-12)
        assert abs(right[2]) < 1e-12
        assert up[2] > 0
        ((centre, seen), (_, depth)) = camera.project(np.array([target, point]))
        np.testing.assert_allclose(centre, 0, atol=1e-9)
        if depth > 0:
            ray = seen[0] * right + seen[1] * up + 1.5 * forward
            np.testing.assert_allclose(eye + ray * depth / 1.5, point, atol=1e-9)


@pytest.mark.parametrize('box', random_boxes(8, seed=3))
def test_hidden_edges_are_those_behind_the_box(box):
    """An edge is hidden if the line of sight to its middle passes through the box."""
    eye = box[:3] + np.random.default_rng(int(abs(box[0] * 100))).normal(size=3) * 8
    half = box[3:6] / 2
    local_eye = to_box(eye, box)
    if (np.abs(local_eye) < half).all():
        pytest.skip('the eye is in the box')
    corners = to_box(box_corners(box), box)
    steps = np.linspace(0, 1, 20_001)[:, None]
    for (a, b), seen in zip(EDGES, visible_edges(box, eye), strict=True):
        middle = (corners[a] + corners[b]) / 2
        line = local_eye + steps * (middle - local_eye)
        assert seen == (not (np.abs(line) < half - 1e-9).all(1).any())


@pytest.mark.parametrize(
    ('length', 'parts', 'step'), [(60, 6, 10), (59, 6, 5), (12, 6, 2), (7, 7, 1), (0.9, 3, 0.2)]
)
def test_nice_step(length, parts, step):
    assert nice_step(length, parts) == pytest.approx(step, rel=1e-12)


def test_box_extent_holds_boxes_and_sensor():
    boxes = random_boxes(20)
    extent = box_extent(boxes, margin=1.0)
    corners = np.concatenate([*(box_corners(box) for box in boxes), np.zeros((1, 3))])
    assert inside_extent(corners, extent).all()
    np.testing.assert_allclose(extent[[0, 2]], corners[:, :2].min(0) - 1)


def test_point_extent_ignores_stray_echoes():
    points = np.random.default_rng(0).uniform(-40, 40, (10_000, 3))
    points[:5] = 1e4
    points[5] = np.nan
    assert (np.abs(point_extent(points)) < 43).all()
    np.testing.assert_allclose(point_extent(np.zeros((0, 3))), [-2, 2, -2, 2])


def test_page_extent_holds_the_boxes_and_leaves_out_empty_ground():
    generator = np.random.default_rng(0)
    points = generator.uniform((2, -30, -2), (70, 30, 2), (5000, 3))
    boxes = np.array([[20, 2, 0, 4, 2, 2, 0], [35, -8, 0, 4, 2, 2, 1]], float)
    extent = page_extent(boxes, points, 0.4, 1.0)
    corners = np.concatenate([*(box_corners(box) for box in boxes), np.zeros((1, 3))])
    assert inside_extent(corners, extent).all()
    # No point is behind the sensor, so hardly any ground there is shown.
    assert -2.5 < extent[0] < 0
    assert 0.4 <= (extent[3] - extent[2]) / (extent[1] - extent[0]) <= 1
    flat = page_extent(boxes, points, 0.9, 1.0)
    assert flat[3] - flat[2] == pytest.approx(0.9 * (flat[1] - flat[0]))
    wide = page_extent(boxes, points, 0.1, 0.4)
    assert wide[3] - wide[2] == pytest.approx(0.4 * (wide[1] - wide[0]))
    assert wide[0] == pytest.approx(point_extent(points)[0])
    nothing = page_extent(boxes[:0], points[:0], 0.4, 1.0)
    np.testing.assert_allclose(nothing, [-15, 15, -6, 6])


@pytest.mark.parametrize('box', random_boxes(12, seed=5))
def test_object_camera_is_on_the_sensors_side_and_above(box):
    eye = object_camera(box, 4.0).eye
    local = to_box(eye, box)
    sensor = to_box(np.zeros(3), box)
    assert (np.sign(local[:2]) == np.sign(sensor[:2])).all()
    assert local[2] > box[5] / 2
    assert np.linalg.norm(local) == pytest.approx(16.0)


def test_neighbourhood():
    box = np.array([10.0, 0.0, 0.0, 4.0, 2.0, 2.0, 0.7])
    points = np.array(
        [[10, 3, 0], [10, 5.1, 0], [10, 0, 1.3], [10, 0, 1.5], [10, 0, -1.3], [np.nan, 0, 0]]
    )
    assert neighbourhood(points, box, 5.0).tolist() == [True, False, True, False, True, False]
