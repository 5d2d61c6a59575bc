"""Traces of frames: the explained layer, and the detections with a graph that starts there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from ...core.capture import Leaf, leaf_at
from ...core.session import frozen_evaluation
from ...core.structures import Detections, Trace
from ..common.candidates import Candidates
from ..common.first_pass import FirstPass, Recording
from ..common.frames import Frame
from ..common.gradient_windows import GradientWindows
from ..common.layers import LayerInfo, find_layer
from ..common.nested import mapped
from ..common.replay import Read, Replays
from ..common.rows import layer_rows, require_dependence, require_leaf
from ..common.spconv_compat import differentiable_sparse_convolutions
from .black_box import black_box_of
from .detector import forgotten, head_of
from .head_pass import raw_outputs
from .heads import candidates_class
from .layers import input_coords, layers
from .proposals import Proposals


class Tracer:
    """Makes traces of a detector's frames for one layer.

    Args:
        model: The detector, without wrappers. It is left as found after each pass.
        layer: Module path or alias of the explained layer.
        head: Family of heads that the detector's is taken for, see ``heads.candidates_class``.
        through_proposals: Of a two-stage detector: whether the path through the proposal is
            explained beside the refinement.

    Raises:
        UnknownNameError: If there is no such layer or family; the message lists the candidates.
        NotApplicableError: If the model has no voxel grid or no head.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        head: str | None = None,
        through_proposals: bool = False,
    ) -> None:
        self.model, self.family = model, head
        self.through_proposals = through_proposals
        self.head_path, self.head = head_of(model)
        self.candidates = candidates_class(self.head, head)
        self.layer: LayerInfo = find_layer(layers(model), layer)
        self.module = model.get_submodule(self.layer.name)
        self.windows = GradientWindows(model, self.layer)
        self._raw: Any = None

    def recording(self) -> AbstractContextManager[Recording | None]:
        """Takes notes of the host's own pass, if its frames can be traced without a second one."""
        return self.windows.recording(
            self.head, self.candidates.intercepts, self.candidates.maps_of
        )

    def trace(
        self,
        predict: Callable[[dict], Any],
        frame: Frame,
        detections: Detections,
        first: FirstPass | None = None,
    ) -> Trace:
        """Rebuilds the detections of a frame with a graph, in a second pass where it takes one.

        Args:
            predict: The detector's own ``forward``.
            frame: The frame; its inputs are not changed.
            detections: K detections that the host reported for this frame.
            first: The frame in the host's own pass, if there are notes of it.

        Raises:
            InputError: If a detection is none of the head's candidates.
            NotApplicableError: If the layer does not run, or the detections do not depend on it.
        """
        batches: list[dict] = []
        proposals = Proposals(self.model, self.through_proposals)
        replay = Replays(
            lambda read, value: self._pass(predict, frame, read, value, batches, proposals),
            detections,
            frame.frame_id,
        )
        box = black_box_of(self.model, predict, self.family)
        leaf, attributes, raw = self.windows.begin(first, replay, box, self._taken)
        require_dependence(attributes, self.layer, self.head_path)
        coords = input_coords(batches[0], self.layer.key) if batches else None
        features, rows = layer_rows(self.layer, leaf, coords)
        return Trace(
            points=frame.points,
            features=features,
            detections=detections,
            attributes=attributes,
            leaf=leaf.tensor,
            rows=rows,
            frame_id=frame.frame_id,
            replay=replay,
            black_box=box,
            gradients=self.windows.source(leaf, rows, raw, replay, attributes, frame.points),
        )

    def _taken(self) -> Any:
        """The head's raw outputs in the last pass, which are not kept any longer."""
        raw, self._raw = self._raw, None
        return raw

    def _pass(
        self,
        predict: Callable[[dict], Any],
        frame: Frame,
        read: Read,
        value: Tensor | None,
        batches: list[dict],
        proposals: Proposals,
    ) -> tuple[Leaf, dict[str, Tensor]]:
        """Runs the frame with a graph from the layer on; ``value`` stands in for its features.

        What the host's dictionary held at the head is left in ``batches``.
        """
        inputs = {k: v.clone() if isinstance(v, Tensor) else v for k, v in frame.inputs.items()}
        with (
            frozen_evaluation(self.model),
            forgotten(self.model),
            differentiable_sparse_convolutions(self.model),
            proposals.deciding(),
            leaf_at(self.module, self.layer.name, self.layer.key, value) as leaf,
        ):
            candidates, batch = self._run(predict, inputs)
            require_leaf(leaf, self.layer, self.head_path)
            batches[:] = [batch]
            return leaf, read(candidates)

    def _run(self, predict: Callable[[dict], Any], inputs: dict) -> tuple[Candidates, dict]:
        """Runs the detector up to the point at which the head has the raw outputs."""
        args, kwargs, batch = raw_outputs(self.model, self.head, self.candidates, predict, inputs)
        if self.candidates.dense:  # Without the graph, which goes with the trace.
            self._raw = mapped(self.candidates.maps_of(*args, **kwargs), Tensor.detach)
        return self.candidates(self.head, batch, *args, **kwargs), batch
