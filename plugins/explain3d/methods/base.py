"""The interface that every explanation method has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ..core.checks import require_text, require_whole
from ..core.registry import NameRegistry
from ..core.structures import Maps, Trace
from ..core.targets import Target


class Explainer(ABC):
    """Turns a trace of one frame into a saliency value per point and detection.

    An explainer does not know which host the detector comes from, keeps no state between frames
    unless its documentation says so, and draws random numbers from its own generator only.

    Args:
        layer: Module path or alias (``stride4``) of the layer whose features are explained.
        seed: Seed of the explainer's own generator.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range, as in every explainer.
        UnknownNameError: If a choice among words is unknown, as in every explainer.
    """

    def __init__(self, layer: str = 'stride4', seed: int = 0) -> None:
        self.layer = require_text('layer', layer, 'stride4', optional=False)
        self.seed = require_whole('seed', seed, least=0)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers to be traced: that of the trace, and those of ``Trace.further``."""
        return (self.layer,)

    @abstractmethod
    def explain(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Explains every detection of ``trace`` for every target.

        Args:
            trace: A graph-keeping pass with K detections over N points.
            targets: What of each detection to explain.

        Returns:
            (K, N) saliency, finite and not negative, for each target.
        """

    def settings(self) -> dict:
        """Returns the settings in force as plain data, for the result file."""
        return {'type': type(self).__name__, **vars(self)}


EXPLAINERS = NameRegistry('explainer', Explainer)
