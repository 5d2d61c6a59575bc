"""Single frames out of what a detector's ``predict`` gets and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import NotApplicableError, UnknownNameError
from ...core.normalize import full_precision
from ...core.structures import Detections
from ..common.candidates import with_geometric_center
from ..common.frame_names import FrameNames, name_of_path, numbered

#: Entries of the meta information that name a frame, the first of them that it has.
NAMES = ('lidar_path', 'token', 'sample_idx')

#: How frames get names of their own, for messages.
REMEDY = (
    "set frame_id to an entry of the meta information that is each frame's own ('sample_idx', "
    "'token'), and let the pipeline pack it (meta_keys of Pack3DDetInputs)."
)


def frame_id_of(
    sample: Any,
    index: int = 0,
    key: str | None = None,
    names: FrameNames | None = None,
) -> str:
    """Names a frame by its point file's stem, else its token or sample index.

    Args:
        sample: A ``Det3DDataSample``.
        index: The frame's number, one of ``names.numbers`` if these are given.
        key: Which entry of the sample's meta information to use instead.
        names: Makes names unique in a run; None: they are as they are.

    Raises:
        UnknownNameError: If the sample has no such entry; the message lists those that it has.
    """
    known, parts = sample.metainfo, 1 if names is None else names.parts
    if key is not None and known.get(key) is None:
        raise UnknownNameError(
            f'Frames have no {key!r} to be named by: expected one of {sorted(known)} (meta_keys of '
            'Pack3DDetInputs adds more).'
        )
    entries = (name for name in ((key,) if key is not None else NAMES) if name in known)
    found = next((text_of(n, known[n], parts) for n in entries if known[n] is not None), None)
    if names is not None:
        return names.name(found, index)
    return numbered(index) if found is None else found


def text_of(name: str, value: Any, parts: int = 1) -> str:
    """Returns an entry of the meta information as the name of a frame.

    Args:
        name: Name of the entry.
        value: Its value.
        parts: How many of the last parts of a path make the name.
    """
    if is_path(name):
        return name_of_path(value, parts)
    return f'{value:06d}' if isinstance(value, int) else str(value)


def is_path(name: str) -> bool:
    """Whether an entry of the meta information is the path of a file."""
    return name.endswith('path')


def one_frame(inputs: dict, index: int, size: int) -> dict:
    """Returns the inputs of one frame of a batch, as a batch of one.

    Points and voxels are copies: some encoders change theirs in place (``PillarFeatureNet`` with
    ``legacy=True``), so this has to be called before the host's own pass.

    Args:
        inputs: What the data preprocessor gives: lists of one entry a frame, tensors (B, ...),
            and ``voxels``, whose rows carry the frame in ``coors[:, 0]``.
        index: Which frame.
        size: B.
    """
    frame = {}
    for key, value in inputs.items():
        if key == 'voxels':
            frame[key] = _voxels_of(value, index)
        elif key == 'points':
            frame[key] = [value[index].clone()]
        elif isinstance(value, (list, tuple, Tensor)) and len(value) == size:
            frame[key] = value[index : index + 1]
        else:
            frame[key] = value
    return frame


def _voxels_of(voxels: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    coordinates = voxels['coors']
    rows = coordinates[:, 0] == index
    frame = {
        key: value[rows] if isinstance(value, Tensor) and len(value) == len(rows) else value
        for key, value in voxels.items()
    }
    frame['coors'] = frame['coors'].clone()
    frame['coors'][:, 0] = 0
    return frame


def detections_of(
    sample: Any, class_names: Sequence[str], frame_id: str, scores_are_logits: bool = False
) -> Detections:
    """Returns the predictions of a data sample as K detections with geometric centres.

    Args:
        sample: A ``Det3DDataSample``.
        class_names: Names of the classes.
        frame_id: For messages.
        scores_are_logits: Whether the host reports logits (Part-A2): scores are their sigmoid.

    Raises:
        NotApplicableError: If the sample has no 3D predictions in the LiDAR frame.
    """
    instances = sample.get('pred_instances_3d', None)
    if instances is None or 'bboxes_3d' not in instances:
        raise NotApplicableError(
            f'Frame {frame_id!r} has no 3D boxes: expected pred_instances_3d.bboxes_3d. Only 3D '
            'detectors can be explained.'
        )
    scores = full_precision(instances.scores_3d.detach().clone())
    return Detections(
        _boxes(instances.bboxes_3d, frame_id),
        scores.sigmoid() if scores_are_logits else scores,
        instances.labels_3d.clone().long(),
        tuple(class_names),
    )


def ground_truth_of(sample: Any, class_names: Sequence[str], frame_id: str) -> Detections | None:
    """Returns the annotated boxes of a data sample with scores of 1, or None if it has none."""
    boxes = labels = None
    annotation = sample.get('eval_ann_info', None)
    instances = sample.get('gt_instances_3d', None)
    if annotation is not None and 'gt_bboxes_3d' in annotation:
        boxes, labels = annotation['gt_bboxes_3d'], annotation['gt_labels_3d']
    elif instances is not None and 'bboxes_3d' in instances and 'labels_3d' in instances:
        boxes, labels = instances.bboxes_3d, instances.labels_3d
    if boxes is None:
        return None
    boxes = _boxes(boxes, frame_id)
    labels = torch.as_tensor(labels, device=boxes.device).long()
    known = labels >= 0  # Objects of other classes have the label -1.
    boxes, labels = boxes[known], labels[known]
    return Detections(boxes, boxes.new_ones(len(boxes)), labels, tuple(class_names))


def _boxes(boxes: Any, frame_id: str) -> Tensor:
    """(K, 7) with geometric centres."""
    if type(boxes).__name__ != 'LiDARInstance3DBoxes':
        raise NotApplicableError(
            f'Frame {frame_id!r} has boxes of type {type(boxes).__name__}: expected '
            "LiDARInstance3DBoxes (box_type_3d='LiDAR')."
        )
    return with_geometric_center(full_precision(boxes.tensor.detach()))
