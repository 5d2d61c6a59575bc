"""TransFusion's head: queries from a heat map, refined by a transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....core.normalize import full_precision
from .base import HostCandidates, rows_of
from .center import cell_boxes


class TransFusionCandidates(HostCandidates):
    """One candidate for each query.

    Its score is the product of the decoder's and of the heat map's at the query's place; the host
    detaches the latter, which enters as a constant. The logit is the decoder's.

    Args:
        head: A ``TransFusionHead``; its ``query_labels`` (1, Q) are those of this pass.
        batch: The batch of one frame.
        preds_dicts: (1, C, Q) each: heatmap (logits), query_heatmap_score, center (cells), height,
            dim (logarithms) and rot (sine, cosine).
    """

    intercepts = 'get_bboxes'
    suppresses = True
    chosen_by = 'a heat map whose highest cells become queries'

    def __init__(
        self, head: nn.Module, batch: dict[str, Any], preds_dicts: dict[str, Tensor]
    ) -> None:
        self.head = head
        self.labels = head.query_labels[0]
        names = ('heatmap', 'query_heatmap_score', 'center', 'height', 'dim', 'rot')
        self.rows = {name: rows_of(preds_dicts[name][..., None]) for name in names}

    def of_label(self, label: int) -> Tensor:
        """Returns the queries of that label."""
        return (self.labels == label).nonzero().flatten()

    def choice(self) -> Tensor:
        """Returns the heat map's scores of the queries: each pass has its own."""
        return self.rows['query_heatmap_score'].detach()

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the queries' boxes."""
        rows = {name: full_precision(values[index]) for name, values in self.rows.items()}
        maps = {'center_z': rows['height'], 'dim': rows['dim'], 'rot': rows['rot'].flip(1)}
        return cell_boxes(self.head, rows['center'], self.head.feature_map_stride, maps)

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the decoder's class output."""
        return self.rows['heatmap'][index, label]

    def scores(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the product of the decoder's score and the heat map's."""
        weight = self.rows['query_heatmap_score'][index, label]
        return torch.sigmoid(self.logits(index, label)) * weight
