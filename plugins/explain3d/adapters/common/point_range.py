"""Whether a frame has a point where its detector looks, and what to say if it has none."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import InputError
from .frames import Frame


def in_range(frame: Frame, limits: Sequence[float]) -> bool:
    """Whether a point of the frame lies in the range.

    Args:
        frame: The frame.
        limits: Lower x, y, z and upper x, y, z, metres; the upper ones are outside.
    """
    points = frame.points
    if points.dim() != 2 or points.shape[1] < 3:
        return False
    low, high = points.new_tensor(list(limits)).view(2, 3)
    return bool(((points[:, :3] >= low) & (points[:, :3] < high)).all(1).any())


def nothing_in_range(frame: Frame, limits: Sequence[float]) -> InputError:
    """Returns the error for a frame of which no point lies in the range.

    Args:
        frame: The frame.
        limits: As in ``in_range``.
    """
    source = '' if frame.source is None else f' ({frame.source})'
    if not len(frame.points):
        spread = 'there is none'
    else:
        low, high = frame.points[:, :3].aminmax(dim=0)
        spread = f'they spread from {_rounded(low.tolist())} to {_rounded(high.tolist())}'
    return InputError(
        f'Frame {frame.frame_id!r}{source}: none of its {len(frame.points)} points lies in the '
        f'range that the detector sees, x, y, z from {_rounded(limits[:3])} to '
        f'{_rounded(limits[3:])} metres; {spread}. Expected a cloud in metres in the LiDAR frame '
        'of the data set: look at the file, its unit and the calibration, or at the '
        "configuration's point_cloud_range."
    )


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 2) for value in values]
