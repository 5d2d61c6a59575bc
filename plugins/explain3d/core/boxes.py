"""Geometry of oriented boxes: corners, points inside, rotated overlap.

Boxes are (x, y, z, l, w, h, yaw) with the geometric centre, in metres and radians, LiDAR frame.
Seen from above, a box of yaw 0 and the order of its corners::

              x forward
                 ^
             0 --|-- 3
             |   |   |
    y left <-----+   |  l       corners 0 to 3 at the bottom, 4 to 7 above them;
             |       |          yaw turns counter-clockwise, from x towards y
             1 ----- 2
                 w

Overlaps are computed in float64 whatever the input, and returned in the input's type. A box
without area or volume overlaps nothing, itself included: its IoU is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import InputError
from .transfer import constant

Overlap = Callable[[Tensor, Tensor], Tensor]

# Signs of the half extents (l, w) at the corners of a box, counter-clockwise from the front left.
_BEV_SIGNS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))

# Box-point pairs that points_in_boxes holds at a time: 16 MB a temporary in float32.
_PAIRS_AT_ONCE = 1 << 22


def bev_corners(boxes: Tensor) -> Tensor:
    """Returns the corners of boxes in the bird's-eye view.

    Args:
        boxes: (K, 7) boxes.

    Returns:
        (K, 4, 2) x, y in metres: front left, rear left, rear right, front right.

    Raises:
        InputError: If ``boxes`` is not a finite (K, 7) floating-point tensor.
    """
    boxes = _checked(boxes, 'boxes')
    return boxes[:, None, :2] + _rotated_footprint(boxes[:, 3:5], boxes[:, 6])


def box_corners(boxes: Tensor) -> Tensor:
    """Returns the corners of boxes.

    Args:
        boxes: (K, 7) boxes.

    Returns:
        (K, 8, 3) x, y, z in metres: the four of ``bev_corners`` at the bottom, then at the top.

    Raises:
        InputError: If ``boxes`` is not a finite (K, 7) floating-point tensor.
    """
    footprint = bev_corners(boxes)
    z, half_height = boxes[:, 2], boxes[:, 5] / 2
    levels = torch.stack([z - half_height, z + half_height], dim=1)
    return torch.cat(
        [footprint.repeat(1, 2, 1), levels.repeat_interleave(4, dim=1)[:, :, None]], dim=2
    )


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Tells which points lie inside which boxes, faces included.

    Args:
        points: (N, P) points, x, y, z first, metres. A point that is not finite is in no box.
        boxes: (K, 7) boxes.

    Returns:
        (K, N) bool.

    Raises:
        InputError: If ``boxes`` is not a finite (K, 7) floating-point tensor, or ``points`` has
            fewer than three columns.
    """
    boxes = _checked(boxes, 'boxes')
    if points.ndim != 2 or points.shape[1] < 3:
        raise InputError(
            f'Expected points of shape (N, >= 3) with x, y, z first, received '
            f'{tuple(points.shape)}: pass one frame of points.'
        )
    xyz = points[:, :3].T.to(torch.promote_types(points.dtype, boxes.dtype))
    inside = torch.empty(len(boxes), len(points), dtype=torch.bool, device=boxes.device)
    step = max(1, _PAIRS_AT_ONCE // max(1, len(points)))
    for first in range(0, len(boxes), step):
        part = boxes[first : first + step].to(xyz.dtype)
        inside[first : first + step] = _inside(xyz, part)
    return inside


def bev_intersection(a: Tensor, b: Tensor, aligned: bool = False) -> Tensor:
    """Returns the area that boxes share in the bird's-eye view.

    Args:
        a: (A, 7) boxes.
        b: (B, 7) boxes.
        aligned: Pair box i of ``a`` with box i of ``b`` instead of all with all.

    Returns:
        (A, B) square metres; (A,) if ``aligned``.

    Raises:
        InputError: If an argument is not a finite (K, 7) floating-point tensor, or ``aligned``
            is asked for different numbers of boxes.
    """
    return _per_pair(_intersection_area, a, b, aligned)


def bev_iou(a: Tensor, b: Tensor, aligned: bool = False) -> Tensor:
    """Returns the intersection over union of boxes in the bird's-eye view.

    Args:
        a: (A, 7) boxes.
        b: (B, 7) boxes.
        aligned: Pair box i of ``a`` with box i of ``b`` instead of all with all.

    Returns:
        (A, B) in [0, 1]; (A,) if ``aligned``.

    Raises:
        InputError: As ``bev_intersection``.
    """
    return _per_pair(_bev_iou, a, b, aligned)


def iou_3d(a: Tensor, b: Tensor, aligned: bool = False) -> Tensor:
    """Returns the intersection over union of the boxes' volumes.

    Args:
        a: (A, 7) boxes.
        b: (B, 7) boxes.
        aligned: Pair box i of ``a`` with box i of ``b`` instead of all with all.

    Returns:
        (A, B) in [0, 1]; (A,) if ``aligned``.

    Raises:
        InputError: As ``bev_intersection``.
    """
    return _per_pair(_iou_3d, a, b, aligned)


def _checked(boxes: Tensor, name: str) -> Tensor:
    """Returns ``boxes`` if it is a finite (K, 7) floating-point tensor."""
    if boxes.ndim != 2 or boxes.shape[1] != 7 or not boxes.is_floating_point():
        raise InputError(
            f'Expected {name} as a floating-point tensor of shape (K, 7) with x, y, z, l, w, h, '
            f'yaw, received {tuple(boxes.shape)} of {boxes.dtype}: convert boxes of the host in '
            f'its adapter.'
        )
    if not bool(boxes.isfinite().all()):
        bad = int((~boxes.isfinite()).any(dim=1).sum())
        raise InputError(
            f'Expected finite {name}, received NaN or infinity in {bad} of {len(boxes)}: '
            f'remove these boxes.'
        )
    return boxes


def _rotated_footprint(size: Tensor, yaw: Tensor) -> Tensor:
    """(P, 4, 2) corners of rectangles of ``size`` (P, 2) about the origin, turned by ``yaw``."""
    local = size[:, None] / 2 * constant(_BEV_SIGNS, size.device, size.dtype)
    cos, sin = yaw.cos()[:, None], yaw.sin()[:, None]
    x, y = local.unbind(dim=2)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=2)


def _inside(xyz: Tensor, boxes: Tensor) -> Tensor:
    """(K, N) whether ``xyz`` (3, N) lies in ``boxes`` (K, 7), in the boxes' own frames."""
    dx, dy, dz = (xyz[i] - boxes[:, i, None] for i in range(3))
    cos, sin = boxes[:, 6].cos()[:, None], boxes[:, 6].sin()[:, None]
    half = boxes[:, 3:6, None] / 2
    return (
        ((cos * dx + sin * dy).abs() <= half[:, 0])
        & ((cos * dy - sin * dx).abs() <= half[:, 1])
        & (dz.abs() <= half[:, 2])
    )


def _per_pair(overlap: Overlap, a: Tensor, b: Tensor, aligned: bool) -> Tensor:
    """Applies ``overlap``, a function of aligned (P, 7) float64 boxes, to the pairs asked for."""
    a, b = _checked(a, 'boxes a'), _checked(b, 'boxes b')
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b = a.double(), b.double()
    if aligned:
        if len(a) != len(b):
            raise InputError(
                f'Expected as many boxes in b as in a to pair them one by one, received {len(a)} '
                f'and {len(b)}: leave "aligned" out to pair all with all.'
            )
        return overlap(a, b).to(dtype)
    out = torch.zeros(len(a), len(b), dtype=dtype, device=a.device)
    # Most pairs of a frame are too far apart to touch: their circumscribed circles don't meet.
    reach = a[:, 3:5].norm(dim=1)[:, None] / 2 + b[:, 3:5].norm(dim=1) / 2
    distance = (a[:, None, :2] - b[:, :2]).norm(dim=2)
    i, j = (distance < reach).nonzero(as_tuple=True)
    out[i, j] = overlap(a[i], b[j]).to(dtype)
    return out


def _intersection_area(a: Tensor, b: Tensor) -> Tensor:
    """(P,) shared area of aligned rectangles, by Green's theorem in the frame of ``a``.

    There ``a`` is the window |x| <= p, |y| <= q. The length of the slice of ``b`` at x inside the
    window is clamp(top(x)) - clamp(bottom(x)), both clamped to [-q, q], so the area is the sum,
    over b's edges in counter-clockwise order, of minus the integral of clamp(y) dx along the part
    of the edge with |x| <= p. No polygon is built and no vertices are sorted: parallel and
    coinciding edges, contained boxes and yaw +-pi need no cases of their own.
    """
    size_a, size_b = a[:, 3:5].clamp(min=0), b[:, 3:5].clamp(min=0)
    offset = b[:, :2] - a[:, :2]
    cos, sin = a[:, 6].cos(), a[:, 6].sin()
    center = torch.stack(
        [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]], dim=1
    )
    corners = center[:, None] + _rotated_footprint(size_b, b[:, 6] - a[:, 6])
    (x0, y0), (x1, y1) = corners.unbind(2), corners.roll(-1, dims=1).unbind(2)
    p, q = (size_a / 2)[:, None].unbind(2)

    left, right = x0.clamp(-p, p), x1.clamp(-p, p)
    rise = y1 - y0
    start = y0 + _ratio(left - x0, x1 - x0) * rise
    end = y0 + _ratio(right - x0, x1 - x0) * rise
    area = ((left - right) * _mean_of_clamped(start, end, q)).sum(dim=1)
    # What remains of boxes that touch or are apart is the rounding of a sum that should cancel.
    rounding = torch.finfo(area.dtype).eps * (size_a + size_b).sum(dim=1).square()
    limit = torch.minimum(size_a.prod(dim=1), size_b.prod(dim=1))
    return torch.where(area > rounding, torch.minimum(area, limit), 0.0)


def _mean_of_clamped(start: Tensor, end: Tensor, bound: Tensor) -> Tensor:
    """Mean of clamp(y, -bound, bound) while y goes linearly from ``start`` to ``end``."""
    enter = _ratio(-bound - start, end - start)
    leave = _ratio(bound - start, end - start)
    first, second = torch.minimum(enter, leave), torch.maximum(enter, leave)
    # Piecewise linear with kinks at `first` and `second`: the trapezoid rule is exact.
    y0, y1 = start.clamp(-bound, bound), end.clamp(-bound, bound)
    y_first = (start + first * (end - start)).clamp(-bound, bound)
    y_second = (start + second * (end - start)).clamp(-bound, bound)
    return (
        first * (y0 + y_first)
        + (second - first) * (y_first + y_second)
        + (1 - second) * (y_second + y1)
    ) / 2


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient clamped to [0, 1], a place on an edge; 0 where the denominator is 0.

    Outside of [0, 1], and where the denominator is 0, no value changes the integral.
    """
    return (numerator / torch.where(denominator == 0, torch.inf, denominator)).clamp(0, 1)


def _bev_iou(a: Tensor, b: Tensor) -> Tensor:
    shared = _intersection_area(a, b)
    return _over_union(shared, _extent(a, 3, 5), _extent(b, 3, 5))


def _iou_3d(a: Tensor, b: Tensor) -> Tensor:
    # Relative to a's centre, so that equal boxes overlap in exactly their height.
    rise = b[:, 2] - a[:, 2]
    half_a, half_b = a[:, 5].clamp(min=0) / 2, b[:, 5].clamp(min=0) / 2
    top = torch.minimum(half_a, rise + half_b)
    bottom = torch.maximum(-half_a, rise - half_b)
    shared = _intersection_area(a, b) * (top - bottom).clamp(min=0)
    return _over_union(shared, _extent(a, 3, 6), _extent(b, 3, 6))


def _extent(boxes: Tensor, first: int, last: int) -> Tensor:
    """(P,) product of the sizes in columns ``first`` to ``last - 1``; 0 if one is negative."""
    return boxes[:, first:last].clamp(min=0).prod(dim=1)


def _over_union(shared: Tensor, extent_a: Tensor, extent_b: Tensor) -> Tensor:
    union = extent_a + extent_b - shared
    return shared / torch.where(union > 0, union, torch.inf)
