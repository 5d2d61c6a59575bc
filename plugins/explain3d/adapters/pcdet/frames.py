"""Single frames out of OpenPCDet's batches, and what was predicted for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError, NotApplicableError
from ...core.normalize import full_precision
from ...core.structures import Detections
from ..common.frame_names import FrameNames, numbered
from ..common.frames import Frame

#: Entries that name a frame.
NAMING = ('frame_id', 'sequence', 'frame_idx')
#: How frames get names of their own, for messages.
REMEDY = "let the data set's __getitem__ give each frame a frame_id of its own."
#: Entries whose rows carry the frame in column 0, and those that go with voxel_coords row by row.
_INDEXED = ('points', 'voxel_coords')
_WITH_VOXELS = ('voxels', 'voxel_num_points')


def frames_of(batch: Mapping[str, Any], names: FrameNames | None = None) -> list[Frame]:
    """Takes a batch apart; to be called before the host's own pass, which changes it.

    Args:
        batch: OpenPCDet's ``batch_dict``, on the model's device.
        names: Makes names unique in a run; None: they are as they are, numbers those in the batch.

    Raises:
        InputError: If it has no points: expected by every result.
    """
    if 'points' not in batch:
        raise InputError(
            f'The batch has the entries {sorted(map(str, batch))}: expected points among them, to '
            'which saliency belongs. Keep USE_LEAD_XYZ and the points in the data configuration.'
        )
    size = int(batch['batch_size'])
    numbers = range(size) if names is None else names.numbers(size)
    frames = []
    for index, number in enumerate(numbers):
        inputs = one_frame(batch, index)
        found = name_in(batch, index)
        if names is not None:
            found = names.name(found, number)
        repeat = names is not None and names.is_repeat(number)
        points = inputs['points'][:, 1:].clone()
        frames.append(Frame(found or numbered(number), points, inputs, repeat=repeat))
    return frames


def frame_id_of(batch: Mapping[str, Any], index: int) -> str:
    """Names a frame by the batch's ``frame_id``, else by its sequence, else by its number in it.

    Args:
        batch: OpenPCDet's ``batch_dict``.
        index: Which frame.
    """
    return name_in(batch, index) or numbered(index)


def name_in(batch: Mapping[str, Any], index: int) -> str | None:
    """Returns what a batch calls one of its frames, None for nothing."""
    entries = {key: batch[key] for key in NAMING if batch.get(key) is not None}
    return name_of({key: values[index] for key, values in entries.items()})


def name_of(frame: Mapping[str, Any]) -> str | None:
    """Returns what an item or an info of a data set calls its frame, None for nothing.

    That is its ``frame_id``; without one ``{sequence}_{frame_idx}``, as PandaSet has them.
    """
    name, sequence, number = (frame.get(key) for key in NAMING)
    if name is None and sequence is not None and number is not None:
        return f'{_text(sequence)}_{_text(number)}'
    return None if name is None else _text(name)


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)  # Numbers of a batch become floats on their way to the device.
    return f'{int(value):06d}' if isinstance(value, (int, np.integer)) else str(value)


def one_frame(batch: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Returns the inputs of one frame of a batch, as a batch of one; points and voxels are copies.

    Args:
        batch: OpenPCDet's ``batch_dict``: ``points`` and ``voxel_coords`` carry the frame in
            column 0, ``voxels`` and ``voxel_num_points`` go with ``voxel_coords``, whatever else
            has ``batch_size`` entries has one a frame.
        index: Which frame.
    """
    size = int(batch['batch_size'])
    coords = batch.get('voxel_coords')
    rows = None if coords is None else coords[:, 0] == index
    frame: dict[str, Any] = {}
    for key, value in batch.items():
        if key in _INDEXED:
            frame[key] = value[value[:, 0] == index].clone()
            frame[key][:, 0] = 0
        elif key in _WITH_VOXELS and rows is not None:
            frame[key] = value[rows]
        elif isinstance(value, (Tensor, np.ndarray, list, tuple)) and len(value) == size:
            frame[key] = value[index : index + 1]
        else:
            frame[key] = value
    frame['batch_size'] = 1
    return frame


def detections_of(
    predicted: Mapping[str, Tensor],
    class_names: Sequence[str],
    frame_id: str,
    scores_are_logits: bool = False,
) -> Detections:
    """Returns the predictions for a frame as K detections.

    OpenPCDet's boxes have the geometric centre in the LiDAR frame; its labels begin at 1.

    Args:
        predicted: An entry of what a detector returns: ``pred_boxes`` (K, >= 7), ``pred_scores``
            and ``pred_labels``. Of SECOND-IoU the score of its dense head, which is explained, is
            taken (``pred_cls_scores``), not the one that its second stage gives.
        class_names: Names of the classes.
        frame_id: For messages.
        scores_are_logits: Whether the host reports logits (``OUTPUT_RAW_SCORE``).

    Raises:
        NotApplicableError: If these entries are missing.
    """
    missing = {'pred_boxes', 'pred_scores', 'pred_labels'} - set(predicted)
    if missing:
        raise NotApplicableError(
            f'Frame {frame_id!r}: the detector returned {sorted(predicted)}: expected '
            f'{sorted(missing)} as well, as detectors of OpenPCDet do.'
        )
    boxes = full_precision(predicted['pred_boxes'].detach()[:, :7].clone())
    scores = predicted.get('pred_cls_scores', predicted['pred_scores'])
    scores = full_precision(scores.detach().clone())
    return Detections(
        boxes,
        scores.sigmoid() if scores_are_logits else scores,
        predicted['pred_labels'].detach().long() - 1,
        tuple(class_names),
    )


def ground_truth_of(frame: Mapping[str, Any], class_names: Sequence[str]) -> Detections | None:
    """Returns the annotated boxes of a frame with scores of 1, or None if the data has none.

    Args:
        frame: A batch of one with ``gt_boxes`` (1, M, >= 8): the box first, the label, counted
            from 1, last; rows of zeros fill up.
        class_names: Names of the classes.
    """
    table = frame.get('gt_boxes')
    if table is None:
        return None
    table = torch.as_tensor(table)[0]
    table = table[table[:, -1] > 0]
    boxes = full_precision(table[:, :7].clone())
    return Detections(
        boxes, boxes.new_ones(len(boxes)), table[:, -1].long() - 1, tuple(class_names)
    )
