"""What stays the same when a sample moves into the reference frame."""

import numpy as np
import pytest

from explain3d.adapters.mmdet3d.bev.cameras import ResizeCropCameras
from explain3d.adapters.mmdet3d.bev.geometry import (
    EGO_TO_REFERENCE_AXES,
    BEVGrid,
    about_vertical,
    rigid_inverse,
)
from explain3d.adapters.mmdet3d.bev.reference import ToReferenceFrame
from explain3d.core.errors import InputError

WIDTH, HEIGHT = 64, 48


def camera(yaw, position):
    """A camera's pose in the ego frame, looking along ``yaw`` from forward to the left."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose = turn @ np.linalg.inv(EGO_TO_REFERENCE_AXES)
    pose[:3, 3] = position
    return pose


def sample():
    """Two cameras whose images are smooth ramps, and points in front of them."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    ramp = np.stack([u * 2, v * 3, u + v], -1).astype(np.uint8)
    matrix = np.eye(4)
    matrix[0, 0] = matrix[1, 1] = 40
    matrix[:2, 2] = 30, 22
    points = np.column_stack(
        [rng.uniform(8, 20, 50), rng.uniform(-4, 4, (50, 2)), np.zeros((50, 2))]
    )
    radar = np.column_stack([points[:, :3], rng.uniform(-9, 9, (50, 2)), np.full(50, 7.0)])
    return dict(
        img=[ramp, ramp.copy()],
        cam_names=('CAM_FRONT', 'CAM_BACK'),
        cam2img=np.stack([matrix, matrix]),
        cam2ego=np.stack([camera(0.1, (1.5, 0.1, 1.4)), camera(np.pi, (-0.5, 0, 1.5))]),
        points=points,
        radar=radar,
        radar_fields=('x', 'y', 'z', 'vx_comp', 'vy_comp', 'rcs'),
        radar_velocities='ego',
        vehicles=dict(box2ego=np.eye(4)[None], size=np.ones((1, 3))),
    )


def project(points, frame2cam, cam2img):
    in_camera = np.column_stack([points, np.ones(len(points))]) @ (cam2img @ frame2cam).T
    return in_camera[:, :2] / in_camera[:, 2:3], in_camera[:, 2]


def test_axes_of_the_reference_frame():
    ahead, left, up = np.eye(3)
    turn = EGO_TO_REFERENCE_AXES[:3, :3]
    assert (turn @ ahead).tolist() == [0, 0, 1]
    assert (turn @ left).tolist() == [-1, 0, 0]
    assert (turn @ up).tolist() == [0, -1, 0]
    assert np.linalg.det(turn) == pytest.approx(1)


def test_inverse_of_rigid_transforms():
    matrices = np.stack([camera(0.7, (1, 2, 3)), about_vertical(-2.0)])
    np.testing.assert_allclose(rigid_inverse(matrices), np.linalg.inv(matrices), atol=1e-12)


def test_cells_and_centres_agree():
    grid = BEVGrid(x=(-50, 50, 200), z=(-10, 30, 40))
    x, z = grid.centres()
    column, row = grid.to_cells(x[None], z[:, None])
    np.testing.assert_allclose(column[0], np.arange(200), atol=1e-9)
    np.testing.assert_allclose(row[:, 0], np.arange(40), atol=1e-9)
    assert (x[0], z[-1]) == (-49.75, 29.5)
    with pytest.raises(InputError, match='low < high'):
        BEVGrid(x=(1, 1, 4), z=(0, 1, 1))


@pytest.mark.parametrize('origin', ['ego', 'CAM_FRONT', 'random_camera'])
@pytest.mark.parametrize('mirror', [0.0, 1.0])
def test_a_point_is_seen_at_the_same_content(origin, mirror):
    before = sample()
    after = ToReferenceFrame(origin, rotate=1.0, mirror=mirror).transform(sample())
    old, depth = project(
        before['points'][:, :3], rigid_inverse(before['cam2ego'][0]), before['cam2img'][0]
    )
    new, new_depth = project(
        after['points'][:, :3], rigid_inverse(after['cam2ref'][0]), after['cam2img'][0]
    )
    np.testing.assert_allclose(new_depth, depth, atol=1e-9)
    assert np.linalg.det(after['cam2ref'][0, :3, :3]) == pytest.approx(1)
    inside = (old > 0).all(1) & (old < (WIDTH - 1, HEIGHT - 1)).all(1)
    assert inside.sum() > 10
    for (u, v), (u2, v2) in zip(old[inside], new[inside], strict=True):
        # A mirrored column holds the content of the original one.
        assert u2 == pytest.approx(WIDTH - 1 - u if mirror else u, abs=1e-6)
        assert v2 == pytest.approx(v, abs=1e-6)
        column = WIDTH - 1 - round(WIDTH - 1 - u2) if not mirror else round(u2)
        source = round(u) if not mirror else WIDTH - 1 - column
        np.testing.assert_array_equal(
            after['img'][0][round(v2), column], before['img'][0][round(v), source]
        )


@pytest.mark.parametrize('mirror', [0.0, 1.0])
def test_velocities_and_vehicles_move_with_the_points(mirror):
    before, after = sample(), ToReferenceFrame('ego', rotate=2.0, mirror=mirror).transform(sample())
    moved = after['ego2ref']
    assert np.linalg.det(moved[:3, :3]) == pytest.approx(-1 if mirror else 1)
    assert after['radar_fields'] == ('x', 'y', 'z', 'vx_comp', 'vz_comp', 'rcs')
    later = before['radar'][:, :3] + np.pad(before['radar'][:, 3:5], ((0, 0), (0, 1)))
    later = later @ moved[:3, :3].T + moved[:3, 3]
    np.testing.assert_allclose(
        later[:, [0, 2]], after['radar'][:, [0, 2]] + after['radar'][:, 3:5], atol=1e-9
    )
    np.testing.assert_array_equal(after['radar'][:, 5], 7.0)
    np.testing.assert_allclose(after['vehicles']['box2ref'][0], moved)


def test_velocities_along_the_radars_own_axes_stay():
    before = sample() | {'radar_velocities': 'sensor'}
    after = ToReferenceFrame('ego').transform({**before, 'radar': before['radar'].copy()})
    assert after['radar_fields'] == before['radar_fields']
    np.testing.assert_array_equal(after['radar'][:, 3:], before['radar'][:, 3:])


def test_front_camera_as_origin():
    after = ToReferenceFrame('CAM_FRONT').transform(sample())
    np.testing.assert_allclose(after['cam2ref'][0], np.eye(4), atol=1e-12)
    with pytest.raises(InputError, match='CAM_LEFT'):
        ToReferenceFrame('CAM_LEFT').transform(sample())


@pytest.mark.parametrize('scale', [0.8, 1.0, 1.3])
def test_resizing_and_cropping_keep_projections(scale):
    before = sample()
    after = ResizeCropCameras((36, 40), scale=(scale, scale), shift=5).transform(sample())
    assert after['img_shape'] == (36, 40)
    assert {image.shape for image in after['img']} == {(36, 40, 3)}
    frame2cam = rigid_inverse(before['cam2ego'][0])
    old, _ = project(before['points'][:, :3], frame2cam, before['cam2img'][0])
    new, _ = project(before['points'][:, :3], frame2cam, after['cam2img'][0])
    image, checked = after['img'][0].astype(float), 0
    for (u, v), (u2, v2) in zip(old, new, strict=True):
        if 2 < u < WIDTH - 3 and 2 < v < HEIGHT - 3 and 2 < u2 < 37 and 2 < v2 < 33:
            # The ramp says where the content came from, to about a pixel of either image.
            content = image[round(v2), round(u2)]
            assert content[0] / 2 == pytest.approx(u, abs=1.6)
            assert content[1] / 3 == pytest.approx(v, abs=1.6)
            checked += 1
    assert checked > 5


def test_outside_of_an_image_is_black():
    after = ResizeCropCameras((HEIGHT, WIDTH), scale=(0.5, 0.5)).transform(
        sample() | {'img': [np.full((HEIGHT, WIDTH, 3), 200, np.uint8)] * 2}
    )
    image = after['img'][0]
    assert (image[HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4] == 200).all()
    assert (image == 200).sum() == image.size // 4
    assert not image[:5].any()
