"""TransFusion's head: queries from a heat map, refined by a transformer, one box for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .....core.override import override
from .....lmd.detections import Reading
from ....common.query_readings import QueryMaps, cells_of
from ...heads.transfusion import TransFusionCandidates
from .base import HeadReadings

#: Where the head's dict of raw outputs stands in what its ``forward`` returns.
_OUT = '0.0'


class TransFusionReadings(HeadReadings):
    """``TransFusionHead``: the raw outputs of the prediction heads at a detection's query."""

    candidates_type = TransFusionCandidates

    @classmethod
    @override
    def layers(cls, head: nn.Module) -> tuple[str, ...]:
        """Returns the decoder's last layer, the first and the last prediction head."""
        last = len(head.prediction_heads) - 1
        found = (f'decoder.{last}', 'prediction_heads.0', f'prediction_heads.{last}')
        return tuple(dict.fromkeys(found))

    @classmethod
    @override
    def state(cls, head: nn.Module) -> dict[str, Tensor]:
        """Returns (B, Q) the classes for which cells became queries."""
        return {'query_labels': head.query_labels}

    @override
    def candidates(self) -> TransFusionCandidates:
        """Returns one candidate for each query."""
        outputs = {
            key.removeprefix(f'{_OUT}.'): value[None]
            for key, value in self.paths().items()
            if key.startswith(f'{_OUT}.')
        }
        return TransFusionCandidates(self.head, [[outputs]])

    @override
    def read(
        self, candidates: TransFusionCandidates, index: Tensor, labels: Tensor
    ) -> list[Reading]:
        """Returns the readings: at the queries, and in the heat map where these began."""
        rows = torch.arange(len(index), device=index.device)
        return self._maps().read(rows, index, labels)

    @override
    def again(self, readings: Sequence[Reading], labels: Tensor) -> list[Reading]:
        """Returns readings at the queries that began in the same cells for the same classes."""
        return self._maps().again(readings, labels, self.maps[f'{self.name}.query_labels'])

    def _maps(self) -> QueryMaps:
        last = len(self.head.prediction_heads) - 1
        return QueryMaps(
            self.maps,
            predictions=f'{self.name}.prediction_heads.{last}',
            heat=f'{self.name}.{_OUT}.dense_heatmap',
            queries=f'{self.name}.decoder.{last}',
            cells=self._cells(),
        )

    def _cells(self) -> Tensor:
        """(Q, 2) row and column; the head gives centres as offset plus place."""
        heat = self.maps[f'{self.name}.{_OUT}.dense_heatmap']
        centers = self.maps[f'{self.name}.{_OUT}.center'][:, : self.head.num_proposals]
        places = (centers - self.maps[f'{self.name}.prediction_heads.0.center']).T
        return cells_of(places, self.head.bev_pos[0], heat.shape[-1])
