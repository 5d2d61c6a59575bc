"""Average precision by overlap in 3D, for LiDAR boxes of any data set and on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.evaluation.metrics import IndoorMetric
from mmdet3d.structures import BaseInstance3DBoxes

from explain3d.core.checks import require_number, require_numbers
from explain3d.core.errors import InputError
from explain3d.registry import METRICS


@METRICS.register_module()
class OverlapAP(IndoorMetric):
    """MMDetection3D's ``IndoorMetric`` for outdoor LiDAR boxes.

    Waymo's own metric needs Waymo's tools; this one needs nothing. Its protocol is that of
    ``IndoorMetric``: per class the area under precision over recall, a detection counting as found
    if its 3D overlap with a box that no better one took is above ``iou_thr``. No box is left out
    for its difficulty. Three things differ:

    - boxes are taken for LiDAR boxes, whatever the data set says, and may have a velocity;
    - truth whose centre is beyond ``point_cloud_range`` does not count;
    - a class without truth has no average precision, and no part in the mean.

    Args:
        iou_thr: Overlaps.
        point_cloud_range: x, y, z from and to, metres; None counts all truth.
        **kwargs: As for ``IndoorMetric``.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
    """

    def __init__(
        self,
        iou_thr: Sequence[float] = (0.25, 0.5),
        point_cloud_range: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        iou_thr = [iou_thr] if isinstance(iou_thr, float) else iou_thr
        thresholds = require_numbers('iou_thr', iou_thr)
        for threshold in thresholds:
            require_number('iou_thr', threshold, least=0, below=1)
        super().__init__(iou_thr=list(thresholds), **kwargs)
        if point_cloud_range is not None:
            point_cloud_range = require_numbers('a point_cloud_range', point_cloud_range, 6)
        self.range = point_cloud_range

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keeps truth within the range, and boxes without their velocity.

        Raises:
            InputError: If a frame comes without its truth.
        """
        kept = []
        for sample in data_samples:
            truth = sample.get('eval_ann_info')
            if truth is None:
                raise InputError(
                    'Expected a frame with its truth (eval_ann_info), received one without: '
                    'OverlapAP needs a data set in test mode with annotations.'
                )
            found = sample['pred_instances_3d']
            inside = self._inside(truth['gt_bboxes_3d'])
            kept.append(
                dict(
                    eval_ann_info=dict(
                        gt_bboxes_3d=_plain(truth['gt_bboxes_3d'][inside]),
                        gt_labels_3d=np.asarray(truth['gt_labels_3d'])[inside.numpy()],
                    ),
                    pred_instances_3d=dict(
                        bboxes_3d=_plain(found['bboxes_3d'].to('cpu')),
                        labels_3d=found['labels_3d'].cpu(),
                        scores_3d=found['scores_3d'].cpu(),
                    ),
                )
            )
        super().process(data_batch, kept)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """As ``IndoorMetric``, of the classes that there is truth of."""
        labels = {int(label) for truth, _ in results for label in truth['gt_labels_3d']}
        if not labels:
            raise InputError(
                'Expected truth in one frame at least, received none: widen point_cloud_range.'
            )
        for _, found in results:
            known = torch.tensor([int(label) in labels for label in found['labels_3d']]).bool()
            for key, value in found.items():
                found[key] = value[known]
        self.dataset_meta = {**self.dataset_meta, 'box_type_3d': 'LiDAR'}
        return super().compute_metrics(results)

    def _inside(self, boxes: BaseInstance3DBoxes) -> torch.Tensor:
        """(M,) whether the centre of each box is within the range."""
        centre = boxes.gravity_center.cpu()
        if self.range is None:
            return torch.ones(len(centre), dtype=torch.bool)
        low, high = centre.new_tensor(self.range).view(2, 3)
        return ((centre >= low) & (centre <= high)).all(1)


def _plain(boxes: BaseInstance3DBoxes) -> BaseInstance3DBoxes:
    """Boxes of seven columns; the stored centre is already the bottom centre."""
    return type(boxes)(boxes.tensor[:, :7], origin=(0.5, 0.5, 0))
