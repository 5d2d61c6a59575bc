"""Ground truth of bird's-eye-view segmentation, as SimpleBEV is trained with it, from boxes.

Pure numpy; ``transforms`` wraps it. Literature: Philion and Fidler (Lift, Splat, Shoot) and Harley
et al. (SimpleBEV) segment every nuScenes category ``vehicle.*`` (bicycles and motorcycles too) and
leave the cells of vehicles of the lowest visibility (0 to 40 %) out of losses and metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from explain3d.core.errors import InputError

from .geometry import BEVGrid, move

FILLS = ('centres', 'polygon')

# Values of the heat map below this are zero.
_LEAST_HEAT = 1e-3

# Top face of a box of half-size 1, in drawing order.
_FACE = np.array([[1, 1, 1], [1, -1, 1], [-1, -1, 1], [-1, 1, 1]]) / 2


@dataclass(frozen=True)
class VehicleMaps:
    """Ground truth on a bird's-eye-view grid.

    Attributes:
        seg: (Z, X) uint8, 1 where there is a vehicle.
        valid: (Z, X) bool, False where a vehicle is hardly visible.
        center: (Z, X) float32, 1 at a vehicle's centre cell, a Gaussian around it.
        offset: (2, Z, X) float32: on a vehicle, the cells from its centre cell to this one, along
            x and z; zero elsewhere.
    """

    seg: np.ndarray
    valid: np.ndarray
    center: np.ndarray
    offset: np.ndarray


def footprints(sizes: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Returns the corners (K, 4, 2) of boxes seen from above: x and z, metres, in drawing order.

    Args:
        sizes: (K, 3) length, width, height: along the box's own x, y, z, metres.
        poses: (K, 4, 4) from the box's frame, its origin at the box's centre, to the reference.
    """
    corners = _FACE[None] * sizes[:, None]
    return (
        np.einsum('kij,knj->kni', poses[:, :3, :3], corners)[..., [0, 2]]
        + (poses[:, None, [0, 2], 3])
    )


def fill(corners: np.ndarray, grid: BEVGrid, how: str = 'centres') -> np.ndarray:
    """Returns the cells (Z, X) bool that a convex polygon covers.

    Args:
        corners: (N, 2) x and z in drawing order, metres.
        grid: The cells.
        how: ``centres``: the cells whose centre lies in the polygon or on its edge, exactly.
            ``polygon``: what SimpleBEV's authors draw: corners in cells, their fraction cut off
            towards zero, filled by OpenCV with the outline. A vehicle then is up to a cell
            larger on each side and shifted by half a cell; figures in the literature have it so.

    Raises:
        InputError: If ``how`` is not known.
    """
    if how not in FILLS:
        raise InputError(f'Expected fill to be one of {FILLS}, received {how!r}: choose one.')
    cells = np.stack(grid.to_cells(corners[:, 0], corners[:, 1]), -1)
    mask = np.zeros(grid.shape, np.uint8)
    if how == 'polygon':
        cv2.fillPoly(mask, [cells.astype(np.int32)], 1)
        return mask.astype(bool)
    low = np.clip(np.floor(cells.min(0)), 0, np.array(mask.shape)[::-1]).astype(int)
    high = np.clip(np.ceil(cells.max(0)) + 1, 0, np.array(mask.shape)[::-1]).astype(int)
    x, z = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    edges = np.roll(cells, -1, 0) - cells
    side = edges[:, 0, None, None] * (z - cells[:, 1, None, None]) - (
        edges[:, 1, None, None] * (x - cells[:, 0, None, None])
    )
    mask[low[1] : high[1], low[0] : high[0]] = (side >= 0).all(0) | (side <= 0).all(0)
    return mask.astype(bool)


def vehicle_maps(
    sizes: np.ndarray,
    poses: np.ndarray,
    visibility: np.ndarray,
    grid: BEVGrid,
    how: str = 'centres',
    ignored: Sequence[int] = (1,),
    radius: float = 3.0,
) -> VehicleMaps:
    """Returns the ground truth of SimpleBEV's three heads.

    Where vehicles overlap, the offset is that of the later one. The authors' code yields twice
    this offset (it adds the smallest and the largest over a single layer); ours is in cells.

    Args:
        sizes: (K, 3) length, width, height, metres.
        poses: (K, 4, 4) from the box's frame to the reference.
        visibility: (K,) nuScenes' level: 1 is 0-40 %, 2 40-60 %, 3 60-80 %, 4 80-100 % visible.
        grid: The cells.
        how: How polygons are filled, see `fill`.
        ignored: Levels of visibility whose vehicles make their cells invalid.
        radius: Standard deviation of the heat around a centre, cells.
    """
    shape = grid.shape
    seg, valid = np.zeros(shape, np.uint8), np.ones(shape, bool)
    center, offset = np.zeros(shape, np.float32), np.zeros((2, *shape), np.float32)
    for corners, pose, level in zip(footprints(sizes, poses), poses, visibility, strict=True):
        mask = fill(corners, grid, how)
        seg[mask] = 1
        valid &= ~(mask & (level in ignored))
        x, z = (np.arange(shape[1 - i]) - np.round(c) for i, c in enumerate(_centre(pose, grid)))
        offset[:, mask] = np.stack(np.broadcast_arrays(x[None], z[:, None]))[:, mask]
        heat = np.exp(-(z[:, None] ** 2 + x[None] ** 2) / (2 * radius**2))
        np.maximum(center, np.where(heat < _LEAST_HEAT, 0, heat), out=center, casting='same_kind')
    return VehicleMaps(seg, valid, center, offset)


def _centre(pose: np.ndarray, grid: BEVGrid) -> tuple[np.ndarray, np.ndarray]:
    x, _, z = move(np.zeros(3), pose)
    return grid.to_cells(x, z)
