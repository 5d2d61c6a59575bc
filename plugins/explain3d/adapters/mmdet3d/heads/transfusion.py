"""TransFusion's head, as in BEVFusion: queries from a heat map, refined by a transformer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....core.normalize import full_precision
from ...common.candidates import Candidates


class TransFusionCandidates(Candidates):
    """One candidate for each query of the last decoder layer and each class.

    The head reports a query for the class that its cell was chosen for. Its score is the product of
    the decoder's and of the heat map's at that cell; the host detaches the latter, which enters as
    a constant. The logit is the decoder's.

    Args:
        head: A ``TransFusionHead``.
        outputs: One level, one dict of (1, C, Q) each: heatmap (logits), query_heatmap_score,
            center (cells), height, dim (logarithms) and rot (sine, cosine).
    """

    chosen_by = 'a heat map whose highest cells become queries'

    def __init__(
        self, head: nn.Module, outputs: list[list[dict[str, Tensor]]], *_: Any, **__: Any
    ) -> None:
        self.head, count = head, head.num_proposals
        names = ('heatmap', 'query_heatmap_score', 'center', 'height', 'dim', 'rot')
        self.rows = {name: outputs[0][0][name][0].T[-count:] for name in names}

    def of_label(self, label: int) -> Tensor:
        """Returns all queries."""
        return torch.arange(len(self.rows['center']), device=self.rows['center'].device)

    def choice(self) -> Tensor:
        """Returns the heat map's scores of the queries: each pass has its own."""
        return self.rows['query_heatmap_score'].detach()

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the queries' boxes."""
        rows = {name: full_precision(values[index]) for name, values in self.rows.items()}
        coder, cells = self.head.bbox_coder, rows['center']
        size = cells.new_tensor(coder.voxel_size[:2]) * coder.out_size_factor
        xy = cells * size + cells.new_tensor(coder.pc_range[:2])
        yaw = torch.atan2(rows['rot'][:, :1], rows['rot'][:, 1:2])
        return torch.cat([xy, rows['height'], rows['dim'].exp(), yaw], 1)

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the decoder's class output."""
        return self.rows['heatmap'][index, label]

    def scores(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the product of the decoder's score and the heat map's."""
        weight = self.rows['query_heatmap_score'][index, label]
        return self.logits(index, label).sigmoid() * weight
