"""Lifting and rasterising against loops over voxels and points in double precision."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d')

from explain3d.core.errors import InputError
from explain3d.models.simplebev import BilinearLift, CameraMean, PointRasterizer, VoxelGrid

from . import simplebev_cases as cases

GRID = dict(x=(-12, 12, 8), y=(-2, 3, 3), z=(-9, 15, 7))
SHAPE = (7, 3, 8)


@pytest.fixture(scope='module')
def features():
    return torch.from_numpy(cases.random('features').standard_normal((2, 6, 3, 8, 12)))


@pytest.fixture(scope='module')
def calibration():
    pairs = [cases.calibration(sample) for sample in (0, 1)]
    return [torch.from_numpy(np.stack(matrices)) for matrices in zip(*pairs, strict=True)]


def bilinear(image: np.ndarray, u: float, v: float) -> np.ndarray:
    """The (C,) value of (C, H, W) between pixel centres, zero outside."""
    total = np.zeros(len(image))
    for row in (int(np.floor(v)), int(np.floor(v)) + 1):
        for column in (int(np.floor(u)), int(np.floor(u)) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                weight = (1 - abs(v - row)) * (1 - abs(u - column))
                total += weight * image[:, row, column]
    return total


def lifted(image: np.ndarray, cam2img: np.ndarray, cam2ref: np.ndarray) -> np.ndarray:
    """One camera's (C, Z, Y, X) volume, voxel by voxel."""
    channels, height, width = image.shape
    volume = np.zeros((channels, *SHAPE))
    for z, y, x in np.ndindex(SHAPE):
        centre = [
            low + (index + 0.5) * (high - low) / cells
            for index, (low, high, cells) in zip((x, y, z), GRID.values(), strict=True)
        ]
        in_camera = np.linalg.inv(cam2ref) @ [*centre, 1]
        pixel = (cam2img @ in_camera)[:2] / in_camera[2]
        u, v = pixel * [width / cases.IMAGE[1], height / cases.IMAGE[0]]
        if in_camera[2] > 0 and -0.5 < u < width - 0.5 and -0.5 < v < height - 0.5:
            volume[:, z, y, x] = bilinear(
                image, u * width / (width - 1) - 0.5, v * height / (height - 1) - 0.5
            )
    return volume


def test_lift_is_projection_and_bilinear_sampling(features, calibration):
    found = BilinearLift(GRID)(features, *calibration, cases.IMAGE)
    assert found.shape == (2, 6, 3, *SHAPE)
    expected = np.stack(
        [
            [lifted(*arrays) for arrays in zip(*sample, strict=True)]
            for sample in zip(features.numpy(), *(m.numpy() for m in calibration), strict=True)
        ]
    )
    # Each camera sees something, and none everything.
    assert ((expected != 0).mean(axis=(0, 2, 3, 4, 5)) > 0.02).all()
    assert (expected != 0).mean() < 0.5
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_mean_over_the_cameras_that_see_a_voxel(features, calibration):
    volumes = BilinearLift(GRID)(features, *calibration, cases.IMAGE)
    found = CameraMean()(volumes).numpy()
    assert found.shape == (2, 3 * 3, 7, 8)
    values = volumes.numpy()
    count = (values != 0).sum(axis=1)
    assert count.max() >= 2
    mean = values.sum(axis=1) / np.maximum(count, 1)
    # Heights become channels, c * Y + y; the authors add 1e-6 to the count.
    expected = mean.transpose(0, 1, 3, 2, 4).reshape(2, 9, 7, 8)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=0)


def test_point_ahead_lands_in_the_middle_of_the_image():
    """A camera at the origin looks along z: a voxel on its axis shows the principal point."""
    ramp = torch.arange(9.0).expand(1, 1, 1, 9, 9)
    cam2img = torch.eye(4)[None, None].clone()
    cam2img[..., 0, 0] = cam2img[..., 1, 1] = 50
    cam2img[..., 0, 2] = cam2img[..., 1, 2] = 36
    lift = BilinearLift(dict(x=(-1, 1, 1), y=(-1, 1, 1), z=(-20, 20, 2)))
    volume = lift(ramp, cam2img, torch.eye(4)[None, None], (72, 72))
    # Behind the camera nothing; ahead 36 / 8 = 4.5, in grid_sample's pixels 4.5 * 9 / 8 - 0.5.
    torch.testing.assert_close(volume.flatten(), torch.tensor([0.0, 4.5625]))


def test_autocast_does_not_move_the_projections(features, calibration):
    lift, arguments = BilinearLift(GRID), (features.float(), *(m.float() for m in calibration))
    plain = lift(*arguments, cases.IMAGE)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(lift(*arguments, cases.IMAGE), plain)


def everywhere(lift, features, calibration):
    """The plain formulation: every voxel is sampled, then those that are not seen are masked."""
    flat = features.flatten(0, 1)
    sampling, seen = lift._positions(flat, *calibration, cases.IMAGE)
    volume = torch.nn.functional.grid_sample(flat, sampling[:, None], align_corners=False)
    volume = volume[:, :, 0] * seen[:, None]
    return volume.view(*features.shape[:3], *lift.grid.shape)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_sampling_what_is_seen_is_sampling_everywhere(features, calibration, dtype):
    lift = BilinearLift(GRID)
    features, calibration = features.to(dtype), [m.to(dtype) for m in calibration]
    found, expected = (
        lift(features, *calibration, cases.IMAGE),
        everywhere(lift, features, calibration),
    )
    torch.testing.assert_close(found, expected)
    assert torch.equal(found == 0, expected == 0)
    # Backwards, too, as training needs it.
    weight = torch.from_numpy(cases.random('weight').standard_normal(found.shape)).to(dtype)
    gradients = []
    for make in (lambda f: lift(f, *calibration, cases.IMAGE),
                 lambda f: everywhere(lift, f, calibration)):  # fmt: skip
        leaf = features.clone().requires_grad_()
        (make(leaf) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    assert gradients[0].abs().max() > 0.1


def test_only_what_is_seen_is_sampled(features, calibration, monkeypatch):
    sampled, sample = [], torch.nn.functional.grid_sample
    monkeypatch.setattr(
        torch.nn.functional,
        'grid_sample',
        lambda image, grid, **k: sampled.append(grid.shape[2]) or sample(image, grid, **k),
    )
    lift = BilinearLift(GRID)
    lift(features, *calibration, cases.IMAGE)
    _, seen = lift._positions(features.flatten(0, 1), *calibration, cases.IMAGE)
    assert sampled == seen.sum(1).tolist()
    assert sum(sampled) < seen.numel() / 2
    # A camera that looks away from the grid sees nothing at all.
    away = [m.clone() for m in calibration]
    away[1][:, 0, :3, 3] = torch.tensor([0.0, 0.0, 1000.0])
    away[1][:, 0, :3, :3] = torch.eye(3)
    assert not BilinearLift(GRID)(features, *away, cases.IMAGE)[:, 0].any()


def rasterized(clouds, columns, scale, occupancy) -> np.ndarray:
    quantities = occupancy + len(columns)
    maps = np.zeros((len(clouds), quantities, SHAPE[1], SHAPE[0], SHAPE[2]))
    taken = set()
    for sample, cloud in enumerate(clouds):
        for point in cloud:
            index = [
                int(np.floor((value - low) / ((high - low) / cells)))
                for value, (low, high, cells) in zip(point[:3], GRID.values(), strict=True)
            ]
            x, y, z = index
            sizes = (axis[2] for axis in GRID.values())
            inside = all(0 <= i < size for i, size in zip(index, sizes, strict=True))
            if inside and (sample, *index) not in taken:
                taken.add((sample, *index))
                values = [point[column] * k for column, k in zip(columns, scale, strict=True)]
                maps[sample, :, y, z, x] = [1.0] * occupancy + values
    return maps.reshape(len(clouds), -1, SHAPE[0], SHAPE[2])


FIELDS = ('x', 'y', 'z', 'vx', 'vz', 'rcs')


@pytest.fixture(scope='module')
def clouds():
    draw = cases.random('clouds')
    spread = [8, 2, 9, 1, 1, 1]
    return [torch.from_numpy(draw.standard_normal((count, 6)) * spread) for count in (400, 0, 90)]


@pytest.mark.parametrize(
    ('occupancy', 'features', 'scale'),
    [(True, (), None), (False, ('rcs', 'vx'), None), (True, ('vx', 'vz', 'rcs'), (0.1, 0.2, 3))],
)
def test_rasterizer_is_a_loop_over_points(clouds, occupancy, features, scale):
    rasterizer = PointRasterizer(GRID, occupancy=occupancy, features=features, scale=scale)
    found = rasterizer(clouds, FIELDS)
    columns = [FIELDS.index(name) for name in features]
    expected = rasterized(clouds, columns, scale or (1,) * len(columns), occupancy)
    assert found.shape[1] == rasterizer.out_channels
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-15)
    # The empty cloud leaves an empty map, and points of the others share voxels.
    assert not found[1].any()
    assert len(clouds[0]) > (found[0, : SHAPE[1]] != 0).sum() > 50


def test_one_layer_joins_all_heights(clouds):
    flat = PointRasterizer(dict(GRID, y=(-2, 3, 1)))(clouds, FIELDS)
    layers = PointRasterizer(GRID)(clouds, FIELDS)
    assert torch.equal(flat[:, 0], layers.amax(dim=1))


def test_faces_of_the_grid():
    """The lower face belongs to the grid, the upper one does not."""
    grid = VoxelGrid.of(GRID)
    index, inside = grid.cells(torch.tensor([[-12.0, -2, -9], [12, 0, 0], [11.99, 2.99, 14.99]]))
    assert inside.tolist() == [True, False, True]
    assert index.tolist() == [0, 0, 7 * 3 * 8 - 1]
    centres = grid.centres(torch.zeros(()))
    assert torch.equal(grid.cells(centres)[0], torch.arange(7 * 3 * 8))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_points_that_are_not_finite(clouds, bad):
    broken = clouds[2].clone()
    broken[5, 1] = bad
    with pytest.raises(InputError, match='Expected finite points, received 1 of 490 with NaN'):
        PointRasterizer(GRID)([clouds[0], broken], FIELDS)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda c: PointRasterizer(GRID, features=('snr',))(c, FIELDS), r"fields \['snr'\]"),
        (
            lambda c: PointRasterizer(GRID)(c, FIELDS[:4]),
            r'\(P, 4\).*received \(400, 6\) in sample',
        ),
        (lambda c: PointRasterizer(GRID, features=('vx',), scale=(1, 2)), 'one scale for each'),
        (lambda c: PointRasterizer(GRID, occupancy=False), 'received neither'),
        (lambda c: PointRasterizer(dict(x=(0, 1, 2))), r"axes x, y and z, received \['x'\]"),
        (lambda c: PointRasterizer(dict(GRID, y=(3, -2, 3))), "axis 'y'"),
    ],
)
def test_what_cannot_be_rasterised(clouds, make, message):
    with pytest.raises(InputError, match=message):
        make(clouds)
