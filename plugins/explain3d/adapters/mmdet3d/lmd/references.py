"""Predictions of other models beside a decomposition (Appendix E.2 of LMD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from ....core.errors import InputError


@dataclass
class Reference:
    """A model that predicts on the same frames; for reference only.

    The paper warns: a camera-only model is another model, trained on other inputs. What it finds
    says that the cameras suffice there; what it misses says nothing about the fusion model.

    Attributes:
        config: Configuration file of the model.
        checkpoint: Its weights; None: the configuration's ``load_from``.
        field: Where a data sample has the prediction (K, Z, X).
        model: The model, after ``build``.
    """

    config: str
    checkpoint: str | None = None
    field: str = 'pred_bev_seg.logits'
    model: nn.Module | None = None

    def build(self, device: torch.device) -> Reference:
        """Builds the model, in eval mode; returns itself."""
        from mmdet3d.registry import MODELS

        config = Config.fromfile(self.config)
        model = MODELS.build(config.model)
        checkpoint = self.checkpoint or config.get('load_from')
        if checkpoint is None:
            raise InputError(
                f'Expected a checkpoint for the reference model {self.config}, received none.'
            )
        load_checkpoint(model, checkpoint, map_location='cpu', strict=True, logger='silent')
        self.model = model.to(device).eval()
        return self

    def predict(self, data: Mapping[str, Any]) -> list[Tensor]:
        """Returns the prediction (K, Z, X) for each frame of a batch."""
        with torch.no_grad():
            samples = self.model.test_step(data)
        return [self._prediction(sample) for sample in samples]

    def _prediction(self, sample: Any) -> Tensor:
        value = sample
        for name in self.field.split('.'):
            value = getattr(value, name, None)
        if not isinstance(value, Tensor) or value.dim() != 3:
            raise InputError(
                f'Expected a map (K, Z, X) as {self.field!r} of what the reference model '
                f'{self.config} predicts, received {type(value).__name__}: set field.'
            )
        return value
