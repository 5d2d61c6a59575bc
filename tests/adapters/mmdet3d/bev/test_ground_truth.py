"""Maps of vehicles against point-in-polygon tests cell by cell."""

import numpy as np
import pytest

from explain3d.adapters.mmdet3d.bev.geometry import EGO_TO_REFERENCE_AXES, BEVGrid
from explain3d.adapters.mmdet3d.bev.ground_truth import fill, footprints, vehicle_maps
from explain3d.core.errors import InputError

GRID = BEVGrid(x=(-20, 20, 80), y=(-5, 5, 8), z=(-10, 30, 40))


def pose(x, y, z=0.5, yaw=0.0):
    """A box's pose in the ego frame, moved to the reference frame."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    matrix = np.eye(4)
    matrix[:2, :2] = [[cos, -sin], [sin, cos]]
    matrix[:3, 3] = x, y, z
    return EGO_TO_REFERENCE_AXES @ matrix


def inside_box(size, box2ref, x, z):
    """Whether a point on the ground lies in the box's footprint, in the box's own frame."""
    height = box2ref[1, 3]
    local = np.linalg.inv(box2ref) @ [x, height, z, 1]
    return abs(local[0]) <= size[0] / 2 and abs(local[1]) <= size[1] / 2


def test_footprint_of_a_box_ahead():
    # 4 m long, 2 m wide, 10 m ahead, 3 m to the left.
    corners = footprints(np.array([[4.0, 2.0, 1.5]]), pose(10, 3)[None])[0]
    assert sorted(map(tuple, np.round(corners, 9).tolist())) == [
        *((-4.0, 8.0), (-4.0, 12.0), (-2.0, 8.0), (-2.0, 12.0)),
    ]


@pytest.mark.parametrize('seed', range(6))
def test_centres_fill_the_cells_whose_centre_is_in_the_box(seed):
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.5, 12, 3)
    box2ref = pose(*rng.uniform(-15, 35, 2), yaw=rng.uniform(-4, 4))
    mask = fill(footprints(size[None], box2ref[None])[0], GRID)
    x, z = GRID.centres()
    expected = [[inside_box(size, box2ref, x[j], z[i]) for j in range(80)] for i in range(40)]
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize('seed', range(6))
def test_polygon_fills_what_the_truncated_corners_enclose(seed):
    rng = np.random.default_rng(seed)
    size, box2ref = rng.uniform(2, 12, 3), pose(rng.uniform(2, 18), rng.uniform(-8, 8), yaw=seed)
    corners = footprints(size[None], box2ref[None])[0]
    mask = fill(corners, GRID, 'polygon')
    whole = np.trunc(np.stack(GRID.to_cells(corners[:, 0], corners[:, 1]), -1))
    edges = np.roll(whole, -1, 0) - whole
    lengths = np.linalg.norm(edges, axis=1)
    for row in range(40):
        for column in range(80):
            offset = np.array([column, row]) - whole
            side = edges[:, 0] * offset[:, 1] - edges[:, 1] * offset[:, 0]
            if (side >= 0).all() or (side <= 0).all():
                assert mask[row, column], 'a cell within the polygon is filled'
            elif mask[row, column]:
                # The outline is drawn too: at most half a cell off it.
                along = np.clip((offset * edges).sum(1) / lengths**2, 0, 1)
                gap = np.linalg.norm(offset - along[:, None] * edges, axis=1).min()
                assert gap <= 0.5 + 1e-9


def test_unknown_fill_is_refused():
    with pytest.raises(InputError, match="received 'round'"):
        fill(np.zeros((4, 2)), GRID, 'round')


def test_heat_and_offset_of_one_vehicle():
    # Cells are 0.5 m wide in x and 1 m deep in z; cell (20, 40) covers z 10..11, x 0..0.5.
    maps = vehicle_maps(np.array([[4.0, 2.0, 1.5]]), pose(10.4, -0.3)[None], np.array([4]), GRID)
    assert np.unravel_index(maps.center.argmax(), maps.center.shape) == (20, 40)
    assert maps.center[20, 40] == 1
    assert maps.center[22, 43] == pytest.approx(np.exp(-13 / 18), rel=1e-6)
    # exp(-d^2 / 18) < 0.001 from d = 11.15 on.
    assert maps.center[20, 51] > 0
    assert maps.center[20, 52] == 0
    rows, columns = np.nonzero(maps.seg)
    np.testing.assert_array_equal(maps.offset[0, rows, columns], columns - 40)
    np.testing.assert_array_equal(maps.offset[1, rows, columns], rows - 20)
    assert not maps.offset[:, maps.seg == 0].any()
    assert maps.valid.all()


def test_hardly_visible_vehicles_are_drawn_but_not_valid():
    sizes, poses = np.array([[4.0, 2.0, 1.5]] * 2), np.stack([pose(10, 5), pose(10, -5)])
    maps = vehicle_maps(sizes, poses, np.array([1, 2]), GRID)
    hidden = vehicle_maps(sizes[:1], poses[:1], np.array([4]), GRID).seg > 0
    assert hidden.any()
    assert maps.seg[hidden].all()
    np.testing.assert_array_equal(~maps.valid, hidden)
    assert vehicle_maps(sizes, poses, np.array([1, 2]), GRID, ignored=()).valid.all()


def test_no_vehicles_and_vehicles_elsewhere():
    none = vehicle_maps(np.zeros((0, 3)), np.zeros((0, 4, 4)), np.zeros(0, int), GRID)
    assert not none.seg.any()
    assert none.valid.all()
    far = vehicle_maps(np.array([[4.0, 2.0, 1.5]]), pose(300, 0)[None], np.array([4]), GRID)
    assert not far.seg.any()
    assert not far.center.any()
