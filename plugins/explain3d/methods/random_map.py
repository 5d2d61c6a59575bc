"""Random saliency: the floor of every metric."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS, Explainer


@EXPLAINERS.register('RandomMap')
class RandomMap(Explainer):
    """Gives every point a number drawn evenly from [0, 1).

    The numbers depend on the seed, the frame's name and the target's name, and on nothing else.
    """

    def explain(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns independent maps for every detection and target."""
        shape = (len(trace.detections), trace.points.shape[0])
        return Maps({t.name: self._draw(shape, trace, t.name) for t in targets})

    def _draw(self, shape: tuple[int, int], trace: Trace, target: str) -> Tensor:
        key = zlib.crc32(f'{self.seed}/{trace.frame_id}/{target}'.encode())
        # On the CPU, so that devices agree.
        numbers = torch.rand(shape, generator=torch.Generator().manual_seed(key))
        return numbers.to(trace.points.device)
