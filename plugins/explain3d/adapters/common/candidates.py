"""From detections back to the raw outputs that they were decoded from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import InputError, NotApplicableError
from ...core.normalize import full_precision
from ...core.structures import BOX_ATTRIBUTES, Detections

#: How far a rebuilt candidate may be from the detection it explains: metres, radians or score.
#: The two come from passes of different batch size, which rounds differently; a candidate of
#: another object is farther away than this, and the closest one is taken in any case.
TOLERANCE = 0.05
_CHUNK = 64


class Candidates(ABC):
    """Everything that a head could have reported for one frame, with an autograd graph.

    Args:
        head: The head.
        args: Positional arguments with which the host called ``head.<intercepts>`` on a batch of
            one frame; an adapter may put others in front.
        kwargs: Keyword arguments of the same call.
    """

    #: The head's method that gets the raw outputs.
    intercepts: ClassVar[str] = 'predict_by_feat'
    #: Whether the candidates are the same for every frame, anchors or cells of a dense map: then
    #: ``of_label``, ``places`` and ``cells`` depend on nothing else.
    dense: ClassVar[bool] = False
    #: What chooses the candidates by the whole frame, so that they are no function of what is
    #: around them; None: nothing.
    chosen_by: ClassVar[str | None] = None
    #: Whether what the head reports as the score is the logit.
    reports_logits: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, head: nn.Module, *args: Any, **kwargs: Any) -> None: ...

    @abstractmethod
    def of_label(self, label: int) -> Tensor:
        """Returns the (A,) int64 indices of the candidates that can be reported as ``label``."""

    @abstractmethod
    def boxes(self, index: Tensor) -> Tensor:
        """Returns the (n, 7) x, y, z, l, w, h, yaw of candidates ``index``, geometric centre."""

    @abstractmethod
    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the (n,) raw classification output of candidates ``index`` for ``label``."""

    def cells(self, index: Tensor) -> Tensor:
        """Returns the (n, 2) row and column of candidates ``index`` in the head's map."""
        raise self._nowhere()

    def places(self, index: Tensor) -> Tensor:
        """Returns the (n, 2) x, y in metres of the anchors or cells of candidates ``index``."""
        raise self._nowhere()

    def _nowhere(self) -> NotApplicableError:
        return NotApplicableError(
            f'{type(self).__name__} has no anchors or cells on one map: expected a one-stage head '
            'with one level (SECOND, PointPillars, CenterPoint).'
        )

    def choice(self) -> Tensor | None:
        """Returns what tells of which things (proposals, queries, voxels) the candidates are.

        Two passes whose choices are equal have the same candidates in the same order.

        Returns:
            None where no pass can choose others, as for anchors and cells.
        """
        return None

    def scores(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the (n,) score in [0, 1] of candidates ``index`` for the (n,) ``label``."""
        return self.logits(index, label).sigmoid()

    def above(self, label: int, score_thr: float) -> Tensor:
        """Returns the indices of the candidates with a score above ``score_thr`` for a label."""
        index = self.of_label(label)
        return index[self.scores(index, torch.full_like(index, label)) > score_thr]


def attributes_of(candidates: Candidates, index: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Returns the attributes of candidates ``index``, (K,), as detections of ``labels``, (K,)."""
    boxes = full_precision(candidates.boxes(index))
    return {
        **dict(zip(BOX_ATTRIBUTES, boxes.unbind(1), strict=True)),
        'score': full_precision(candidates.scores(index, labels)),
        'logit': full_precision(candidates.logits(index, labels)),
    }


@torch.no_grad()
def identify(candidates: Candidates, detections: Detections, frame_id: str) -> Tensor:
    """Finds each detection among the candidates of its label, by box and score.

    The candidate with the smallest deviation is taken; the deviation is the largest difference
    over x, y, z, l, w, h, the yaw modulo half a turn, and the score.

    Returns:
        (K,) int64 candidate indices.

    Raises:
        InputError: If the smallest deviation is above ``TOLERANCE``.
    """
    index = torch.empty_like(detections.labels)
    wanted = _keys(detections.boxes, detections.scores).float()
    for label in detections.labels.unique().tolist():
        rows = (detections.labels == label).nonzero().flatten()
        pool = candidates.of_label(label)
        labels = pool.new_full(pool.shape, label)
        scores = candidates.scores(pool, labels)
        keys = _keys(candidates.boxes(pool), scores).float()
        for part in rows.split(_CHUNK):
            if len(pool) == 0:
                _refuse(detections, part[0], frame_id, float('inf'))
            # A candidate that is not finite is no detection's.
            distance = torch.cdist(wanted[part], keys, p=float('inf')).nan_to_num(nan=torch.inf)
            deviation, best = distance.min(1)
            worst = int(deviation.argmax())
            if not deviation[worst] <= TOLERANCE:
                _refuse(detections, part[worst], frame_id, float(deviation[worst]))
            index[part] = pool[best]
    return index


def _keys(boxes: Tensor, scores: Tensor) -> Tensor:
    """(n, 9): distances between these are deviations; small turns count in radians."""
    turn = torch.stack([boxes[:, 6].mul(2).sin(), boxes[:, 6].mul(2).cos()], 1) / 2
    return torch.cat([boxes[:, :6], turn, scores[:, None]], 1)


def _refuse(detections: Detections, row: Tensor, frame_id: str, deviation: float) -> None:
    one = detections[row[None]]
    box = [round(v, 3) for v in one.boxes[0].tolist()]
    raise InputError(
        f'Frame {frame_id!r}: the detection {one.names()[0]} with score {float(one.scores):.3f} '
        f'and box {box} is none of the candidates that the head gave: expected '
        f'a deviation of at most {TOLERANCE}, the closest one deviates by {deviation:.3g}. Is the '
        'head customised, or does the model draw random numbers?'
    )


def with_geometric_center(boxes: Tensor) -> Tensor:
    """Turns (n, >= 7) boxes with a bottom centre into (n, 7) with the geometric one."""
    z = boxes[:, 2:3] + boxes[:, 5:6] / 2
    return torch.cat([boxes[:, :2], z, boxes[:, 3:7]], 1)
