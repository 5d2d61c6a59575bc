"""TransFusion's head: queries from a heat map, refined by a transformer, one box for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .....lmd.detections import LOGIT, Projection, Reading
from ...heads.transfusion import TransFusionCandidates
from .base import HeadReadings
from .center import CHANNELS

#: Where the head's dict of raw outputs stands in what its ``forward`` returns.
_OUT = '0.0'
#: The heat map's logit at the cell where the query began; it chose the query, and its sigmoid
#: times that of ``logit`` is the score.
HEATMAP = 'heatmap_logit'
#: The query after the last decoder layer, along its own direction.
QUERY = 'query'


class TransFusionReadings(HeadReadings):
    """``TransFusionHead``: the raw outputs of the prediction heads at a detection's query.

    Offsets are read before the query's place is added, in cells.
    """

    candidates_type = TransFusionCandidates

    @classmethod
    def layers(cls, head: nn.Module) -> tuple[str, ...]:
        """Returns the decoder's last layer, the first and the last prediction head."""
        last = len(head.prediction_heads) - 1
        found = (f'decoder.{last}', 'prediction_heads.0', f'prediction_heads.{last}')
        return tuple(dict.fromkeys(found))

    @classmethod
    def state(cls, head: nn.Module) -> dict[str, Tensor]:
        """Returns (B, Q) the classes for which cells became queries."""
        return {'query_labels': head.query_labels}

    def candidates(self) -> TransFusionCandidates:
        """Returns one candidate for each query."""
        outputs = {
            key.removeprefix(f'{_OUT}.'): value[None]
            for key, value in self.paths().items()
            if key.startswith(f'{_OUT}.')
        }
        return TransFusionCandidates(self.head, [[outputs]])

    def read(
        self, candidates: TransFusionCandidates, index: Tensor, labels: Tensor
    ) -> list[Reading]:
        """Returns the readings: at the queries, and in the heat map where these began."""
        rows = torch.arange(len(index), device=index.device)
        return self._readings(rows, index, labels)

    def again(self, readings: Sequence[Reading], labels: Tensor) -> list[Reading]:
        """Returns readings at the queries that began in the same cells for the same classes.

        Without a sensor others become queries: an attribute of a detection whose cell has none any
        more is read nowhere. The heat map has a value at all cells.
        """
        (heat,) = (reading for reading in readings if reading.attribute == HEATMAP)
        queries = self.maps[f'{self.name}.query_labels']
        same = (heat.cells[:, None] == self._cells()).all(2) & (heat.channels[:, None] == queries)
        rows = same.any(1).nonzero().flatten()
        found = self._readings(rows, same[rows].int().argmax(1), labels[rows])
        return [heat, *(reading for reading in found if reading.attribute != HEATMAP)]

    def _readings(self, rows: Tensor, query: Tensor, labels: Tensor) -> list[Reading]:
        last = len(self.head.prediction_heads) - 1
        start, place = f'{self.name}.prediction_heads.{last}', query[:, None]
        found = [
            Reading(LOGIT, f'{start}.heatmap', rows, labels, place),
            Reading(HEATMAP, f'{self.name}.{_OUT}.dense_heatmap', rows, labels,
                    self._cells()[query]),
            Projection(QUERY, f'{self.name}.decoder.{last}', rows, None, place),
        ]  # fmt: skip
        for kind, attributes in {'center': CHANNELS['reg'], **CHANNELS}.items():
            if f'{start}.{kind}' not in self.maps:
                continue
            for number, attribute in enumerate(attributes):
                title = f'log_{attribute}' if kind == 'dim' else attribute
                channel = torch.full_like(rows, number)
                found.append(Reading(title, f'{start}.{kind}', rows, channel, place))
        return found

    def _cells(self) -> Tensor:
        """(Q, 2) row and column of the heat map's cells that became queries.

        The head gives centres as offset plus place, and keeps the places of its cells.
        """
        heat = self.maps[f'{self.name}.{_OUT}.dense_heatmap']
        centers = self.maps[f'{self.name}.{_OUT}.center'][:, : self.head.num_proposals]
        places = (centers - self.maps[f'{self.name}.prediction_heads.0.center']).T
        grid = self.head.bev_pos[0].to(places)
        flat, width = torch.cdist(places, grid).argmin(1), heat.shape[-1]
        return torch.stack([flat // width, flat % width], 1)
