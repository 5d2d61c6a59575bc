"""Tags of frames and objects (weather, time of day, visibility) for the report of sensor shares.

A file of tags is JSON and belongs to no data set::

    {"format": "explain3d.tags", "frames": {
        "<name of the frame>": {
            "tags": {"weather": "rain"},
            "boxes": [[x, y, z, l, w, h, yaw], ...],
            "box_tags": {"visibility": ["v0-40", ...]}}}}

Boxes are annotated objects in the LiDAR frame, metres, centre at the geometric centre.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.boxes import bev_iou
from ..core.errors import InputError
from ..core.results import atomic_write

FORMAT = 'explain3d.tags'


@dataclass(frozen=True)
class FrameTags:
    """What is known of one frame and of its annotated objects.

    Attributes:
        tags: The frame's tags, value by name.
        boxes: (G, 7) annotated boxes, LiDAR frame, metres.
        box_tags: For each name, the G objects' values; None where one has none.

    Raises:
        InputError: If numbers do not fit, or a name is both a frame's and an object's.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    boxes: Tensor = field(default_factory=lambda: torch.zeros(0, 7))
    box_tags: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = {n: len(v) for n, v in self.box_tags.items() if len(v) != len(self.boxes)}
        if wrong or self.boxes.dim() != 2 or self.boxes.shape[1] != 7:
            raise InputError(
                f'Expected boxes (G, 7) and G values of each tag, received boxes '
                f'{tuple(self.boxes.shape)} and numbers of values {wrong}.'
            )
        both = sorted(set(self.tags) & set(self.box_tags))
        if both:
            raise InputError(f'Expected names that tag frames or objects, received both: {both}.')

    def of(self, boxes: Tensor, overlap: float) -> list[dict[str, str]]:
        """Returns the tags of (K, 7) detected boxes: the frame's, and those of their objects.

        A detection's object is the one that it overlaps most in the bird's-eye view, whatever the
        classes, if by more than ``overlap``; without one it has the frame's tags alone.
        """
        found = [dict(self.tags) for _ in range(len(boxes))]
        if not len(boxes) or not len(self.boxes):
            return found
        best, index = bev_iou(boxes, self.boxes.to(boxes)).max(1)
        for tags, value, i in zip(found, best.tolist(), index.tolist(), strict=True):
            if value > overlap:
                each = {name: values[i] for name, values in self.box_tags.items()}
                tags |= {name: value for name, value in each.items() if value is not None}
        return found


def read_tags(path: str | Path) -> dict[str, FrameTags]:
    """Returns the tags of frames by their names.

    Raises:
        InputError: If the file is missing, is none of tags, or its numbers do not fit.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f'Expected a JSON file of tags at {path}: {error}.') from error
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        raise InputError(
            f"Expected 'format': {FORMAT!r} in {path}: tools/make_tags.py makes such a file."
        )
    if not isinstance(content.get('frames'), dict):
        raise InputError(
            f"Expected 'frames' in {path}, a dict of tags by the names of frames, received "
            f'{content.get("frames")!r}: tools/make_tags.py makes such a file.'
        )
    return {name: _decoded(name, entry, path) for name, entry in content['frames'].items()}


def write_tags(path: str | Path, frames: Mapping[str, FrameTags]) -> None:
    """Writes a file of tags.

    Raises:
        ResultFileError: If it cannot be written.
    """
    content = {
        name: {
            'tags': dict(frame.tags),
            'boxes': frame.boxes.tolist(),
            'box_tags': {tag: list(values) for tag, values in frame.box_tags.items()},
        }
        for name, frame in frames.items()
    }
    with atomic_write(Path(path), 'the tags') as file:
        file.write(json.dumps({'format': FORMAT, 'frames': content}).encode())


def _decoded(name: str, entry: Any, path: str | Path) -> FrameTags:
    try:
        boxes = torch.tensor(entry.get('boxes', []), dtype=torch.float64).reshape(-1, 7)
        return FrameTags(entry.get('tags', {}), boxes, entry.get('box_tags', {}))
    except (AttributeError, TypeError, ValueError, RuntimeError, InputError) as error:
        raise InputError(f'Frame {name!r} of {path}: {error}') from error
