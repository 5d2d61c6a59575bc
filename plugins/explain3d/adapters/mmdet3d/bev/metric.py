"""The evaluator of bird's-eye-view segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log

from explain3d.core.checks import require_number, require_numbers
from explain3d.core.errors import InputError
from explain3d.metrics.bev_iou import intersection_and_union, iou, ring_masks
from explain3d.registry import METRICS

from .geometry import BEVGrid


@METRICS.register_module()
class BEVSegMetric(BaseMetric):
    """Intersection over union of vehicles in the bird's-eye view, as a whole and by distance.

    Reads ``pred_bev_seg`` (logits (1, Z, X)) and ``gt_bev_seg`` (data, valid) of a sample, and its
    metainfo ``bev_grid``. Cells that are not valid count nowhere; counts are added up over the data
    set. Distances are those of a cell's centre from the origin of the reference frame; the whole
    map reaches farther than the last ring, into its corners.

    Args:
        rings: (low, high) distances, metres.
        threshold: A cell is predicted where the sigmoid is above this.
        **kwargs: As for mmengine's ``BaseMetric``.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
    """

    default_prefix = 'bev'

    def __init__(
        self,
        rings: Sequence[tuple[float, float]] = ((0, 20), (20, 35), (35, 50)),
        threshold: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rings = tuple(require_numbers('each ring', ring, 2) for ring in rings)
        for low, high in self.rings:
            require_number('the outer end of a ring', high, above=low)
        self.threshold = require_number('threshold', threshold, above=0, below=1)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts a batch."""
        for sample in data_samples:
            missing = {'pred_bev_seg', 'gt_bev_seg', 'bev_grid'} - set(sample)
            if missing:
                raise InputError(
                    f'Expected samples with {sorted(missing)}: BEVSegMetric needs a model that '
                    f'predicts pred_bev_seg and a test pipeline with explain3d.VehicleBEVMaps.'
                )
            truth, logits = sample['gt_bev_seg'], sample['pred_bev_seg']['logits']
            x, z = (
                torch.from_numpy(c).to(logits.device)
                for c in BEVGrid(**sample['bev_grid']).centres()
            )
            counts = intersection_and_union(
                logits,
                truth['data'].to(logits.device),
                truth['valid'].to(logits.device),
                ring_masks(x, z, self.rings),
                self.threshold,
            )
            self.results.append(counts.cpu())

    def compute_metrics(self, results: list[torch.Tensor]) -> dict[str, float]:
        """Returns the figures and logs them with their counts."""
        counts = torch.stack(results).sum(0)
        names = ['IoU', *(f'IoU_{low:g}-{high:g}m' for low, high in self.rings)]
        figures = dict(zip(names, iou(counts).tolist(), strict=True))
        lines = [f'Vehicles, sigmoid above {self.threshold:g}, {len(results)} samples:']
        for name, (both, either) in zip(names, counts.tolist(), strict=True):
            lines.append(f'{name}: {figures[name]:.4f} (cells: {both} of {either})')
        print_log('\n'.join(lines), logger=MMLogger.get_current_instance())
        return figures
