"""Boxes, projection and extents for drawing; coordinates as in ``core.structures``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Corners 0-3 are the bottom, 4-7 the top; each counter-clockwise from the front left one.
SIGNS = np.array(
    [
        [1, 1, -1], [-1, 1, -1], [-1, -1, -1], [1, -1, -1],
        [1, 1, 1], [-1, 1, 1], [-1, -1, 1], [1, -1, 1],
    ]
)  # fmt: skip
#: Corner indices of the faces: front, back, left, right, top, bottom.
FACES = ((0, 3, 7, 4), (1, 2, 6, 5), (0, 1, 5, 4), (3, 2, 6, 7), (4, 5, 6, 7), (0, 1, 2, 3))
EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7),
)  # fmt: skip


def box_corners(box: np.ndarray) -> np.ndarray:
    """Returns the corners of a box.

    Args:
        box: (7,) x, y, z, l, w, h, yaw; metres, radians.

    Returns:
        (8, 3) in the order of ``SIGNS``.
    """
    return to_frame(SIGNS * box[3:6] / 2, box)


def to_frame(local: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Moves (..., 3) coordinates along a box's length, width and height to the LiDAR frame."""
    cos, sin = np.cos(box[6]), np.sin(box[6])
    return local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + box[:3]


def to_box(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Moves (..., 3) LiDAR coordinates to those of a box; the inverse of ``to_frame``."""
    cos, sin = np.cos(box[6]), np.sin(box[6])
    return (points - box[:3]) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera whose picture has x to the right and y up.

    Attributes:
        eye: (3,) position, metres.
        axes: (3, 3) unit rows right, up, forward.
        focal: Distance of the picture plane, in units of the picture.
    """

    eye: np.ndarray
    axes: np.ndarray
    focal: float = 1.0

    @classmethod
    def look_at(cls, eye: np.ndarray, target: np.ndarray, focal: float = 1.0) -> Camera:
        """Returns a camera at ``eye`` that sees ``target`` in its centre and z upwards.

        Looking straight down, it has x (forward) upwards.
        """
        eye = np.asarray(eye, np.float64)
        forward = np.asarray(target, np.float64) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        if np.linalg.norm(right) < 1e-9:
            right = np.array([0.0, -1.0, 0.0])
        right /= np.linalg.norm(right)
        return cls(eye, np.stack((right, np.cross(right, forward), forward)), focal)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projects points.

        Args:
            points: (N, 3) metres.

        Returns:
            (N, 2) picture coordinates, NaN behind the camera, and (N,) depth, metres.
        """
        local = (points - self.eye) @ self.axes.T
        depth = local[:, 2]
        in_front = depth > 1e-6
        safe = np.where(in_front, depth, 1.0)[:, None]
        return np.where(in_front[:, None], self.focal * local[:, :2] / safe, np.nan), depth


def visible_edges(box: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Tells which edges of a box are not hidden by the box itself.

    Args:
        box: (7,) the box.
        eye: (3,) where one looks from.

    Returns:
        (12,) bool, in the order of ``EDGES``: a face next to the edge is turned to the eye.
    """
    local, half = to_box(eye, box), box[3:6] / 2
    facing = (
        local[0] > half[0], local[0] < -half[0], local[1] > half[1],
        local[1] < -half[1], local[2] > half[2], local[2] < -half[2],
    )  # fmt: skip
    seen = [set(face) for face, turned in zip(FACES, facing, strict=True) if turned]
    return np.array([any(set(edge) <= face for face in seen) for edge in EDGES])


def footprint(box: np.ndarray) -> np.ndarray:
    """Returns the (4, 2) corners of a box from above: front left, back left, back right, front."""
    return box_corners(box)[:4, :2]


def diagonal(box: np.ndarray) -> float:
    """Returns the length of a box's bird's-eye-view diagonal, metres."""
    return float(np.hypot(box[3], box[4]))


def box_extent(boxes: np.ndarray, margin: float = 7.0) -> np.ndarray:
    """Returns what a view from above must show to hold all boxes and the sensor.

    Args:
        boxes: (K, 7) boxes.
        margin: Metres around them.

    Returns:
        (4,) x_min, x_max, y_min, y_max.
    """
    corners = np.concatenate([np.zeros((1, 2)), *(footprint(box) for box in boxes)])
    low, high = corners.min(0) - margin, corners.max(0) + margin
    return np.array([low[0], high[0], low[1], high[1]])


def point_extent(points: np.ndarray) -> np.ndarray:
    """Returns what a view from above must show to hold the sensor and 99 % of the points each way.

    A few echoes from far away must not shrink everything else.

    Args:
        points: (N, >= 2) metres.

    Returns:
        (4,) x_min, x_max, y_min, y_max, with a margin of 2 m.
    """
    finite = points[np.isfinite(points[:, :2]).all(1), :2]
    corners = np.percentile(finite, (0.5, 99.5), axis=0) if len(finite) else np.zeros((1, 2))
    low, high = np.minimum(corners.min(0), 0) - 2, np.maximum(corners.max(0), 0) + 2
    return np.array([low[0], high[0], low[1], high[1]])


def page_extent(
    boxes: np.ndarray, points: np.ndarray, flattest: float, tallest: float
) -> np.ndarray:
    """Returns the part of the ground to show: boxes and sensor, in a shape that suits a page.

    Args:
        boxes: (K, 7) boxes; with none, the points decide.
        points: (N, >= 2) points; where there are none, the margin around the boxes is dropped.
        flattest: Least height over width; smaller ones grow to it.
        tallest: Largest height over width; larger ones are widened.

    Returns:
        (4,) x_min, x_max, y_min, y_max; at least 30 m wide.
    """
    limit = extent = point_extent(points)
    if len(boxes):
        tight, loose = box_extent(boxes, 1.0), box_extent(boxes)
        low, high = np.array([1, 0, 1, 0], bool), np.array([0, 1, 0, 1], bool)
        extent = np.where(low, np.minimum(tight, np.maximum(loose, limit)), loose)
        extent = np.where(high, np.maximum(tight, np.minimum(loose, limit)), extent)
    width = max(extent[1] - extent[0], (extent[3] - extent[2]) / tallest, 30.0)
    height = max(extent[3] - extent[2], flattest * width)
    x, y = (extent[0] + extent[1]) / 2, (extent[2] + extent[3]) / 2
    # What had to grow grows forwards, if that is where the points are.
    x += np.clip(limit[0] - (x - width / 2), 0, max(limit[1] - (x + width / 2), 0))
    return np.array([x - width / 2, x + width / 2, y - height / 2, y + height / 2])


def inside_extent(points: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Tells which points (N, >= 2) lie in an extent (x_min, x_max, y_min, y_max): (N,) bool."""
    x, y = points[:, 0], points[:, 1]
    return (x >= extent[0]) & (x <= extent[1]) & (y >= extent[2]) & (y <= extent[3])


def nice_step(length: float, parts: float) -> float:
    """Returns 1, 2 or 5 times a power of ten: the largest that is at most ``length / parts``."""
    target = length / parts
    power = 10.0 ** np.floor(np.log10(target))
    # The tolerance keeps exact powers from falling through a rounding error.
    return float(power * max(step for step in (1, 2, 5) if step * power <= target * (1 + 1e-9)))
