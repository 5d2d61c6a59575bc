"""Reading the detections of a head that makes boxes of queries (TransFusion), in either host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...lmd.detections import LOGIT, Projection, Reading

#: The heat map's logit at the cell where the query began; it chose the query, and its sigmoid
#: times that of ``logit`` is the score.
HEATMAP = 'heatmap_logit'
#: The query after the last decoder layer, along its own direction.
QUERY = 'query'
#: Attributes of a prediction head's outputs, channel by channel; offsets in cells, before the
#: query's place is added.
_ATTRIBUTES = {
    'center': ('dx', 'dy'),
    'height': ('z',),
    'dim': ('log_l', 'log_w', 'log_h'),
    'rot': ('sin_yaw', 'cos_yaw'),
    'vel': ('vx', 'vy'),
}


@dataclass(frozen=True)
class QueryMaps:
    """One frame's maps of such a head.

    Attributes:
        maps: All maps by name.
        predictions: What the names of the last prediction head's outputs (C, Q) begin with.
        heat: Name of the dense heat map (classes, H, W), logits.
        queries: Name of the query features (C, Q) after the last decoder layer.
        cells: (Q, 2) row and column of the heat map's cells that became queries.
    """

    maps: Mapping[str, Tensor]
    predictions: str
    heat: str
    queries: str
    cells: Tensor

    def read(self, rows: Tensor, query: Tensor, labels: Tensor) -> list[Reading]:
        """Returns where the raw attributes of n detections stand.

        Args:
            rows: (n,) which detections of the frame.
            query: (n,) the queries that they were made of.
            labels: (n,) their classes.
        """
        place = query[:, None]
        found = [
            Reading(LOGIT, f'{self.predictions}.heatmap', rows, labels, place),
            Reading(HEATMAP, self.heat, rows, labels, self.cells[query]),
            Projection(QUERY, self.queries, rows, None, place),
        ]
        for kind, attributes in _ATTRIBUTES.items():
            output = f'{self.predictions}.{kind}'
            if output not in self.maps:
                continue
            for number, attribute in enumerate(attributes):
                channel = torch.full_like(rows, number)
                found.append(Reading(attribute, output, rows, channel, place))
        return found

    def again(
        self, readings: Sequence[Reading], labels: Tensor, query_labels: Tensor
    ) -> list[Reading]:
        """Returns the readings of another pass's detections at the same places of this one.

        Without a sensor others become queries: an attribute of a detection whose cell has none any
        more is read nowhere. The heat map has a value at all cells.

        Args:
            readings: Those of the other pass.
            labels: (K,) the classes of its detections.
            query_labels: (Q,) the classes for which cells became queries in this pass.
        """
        (heat,) = (reading for reading in readings if reading.attribute == HEATMAP)
        same = (heat.cells[:, None] == self.cells).all(2)
        same &= heat.channels[:, None] == query_labels
        rows = same.any(1).nonzero().flatten()
        found = self.read(rows, same[rows].int().argmax(1), labels[rows])
        return [heat, *(reading for reading in found if reading.attribute != HEATMAP)]


def cells_of(places: Tensor, grid: Tensor, width: int) -> Tensor:
    """Returns the (Q, 2) row and column of cells.

    Args:
        places: (Q, 2) where they are, as the head encodes places.
        grid: (H * W, 2) the places of all cells, row by row.
        width: W.
    """
    flat = torch.cdist(places, grid.to(places)).argmin(1)
    return torch.stack([flat // width, flat % width], 1)
