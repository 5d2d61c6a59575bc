"""Traces of frames: the explained layer, and the detections with a graph that starts there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from ...core.capture import Leaf, leaf_at
from ...core.errors import NotApplicableError
from ...core.session import frozen_evaluation, overridden
from ...core.structures import Detections, Trace
from ..common.candidates import Candidates
from ..common.first_pass import FirstPass, Recording
from ..common.gradient_windows import GradientWindows
from ..common.layers import LayerInfo, find_layer
from ..common.nested import mapped
from ..common.replay import Read, Replays
from ..common.rows import layer_rows, require_dependence, require_leaf
from ..common.spconv_compat import differentiable_sparse_convolutions
from .black_box import black_box_of, raw_maps
from .detector import head_of
from .heads import candidates_class
from .layers import layers


class _HeadReached(Exception):  # noqa: N818 - ends the pass, is no error
    """The head has the raw outputs; what it would do with them (NMS) is not needed."""


class Tracer:
    """Makes traces of a detector's frames for one layer.

    Args:
        model: The detector, without wrappers. It is left as found after each pass.
        layer: Module path or alias of the explained layer.

    Raises:
        UnknownNameError: If there is no such layer; the message lists the candidates.
        NotApplicableError: If the model has no voxel grid or no head of a known family.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        self.model = model
        self.head_path, self.head = head_of(model)
        self.candidates = candidates_class(self.head)
        self.layer: LayerInfo = find_layer(layers(model), layer)
        self.module = model.get_submodule(self.layer.name)
        self.windows = GradientWindows(model, self.layer)
        self._raw: Any = None

    def recording(self) -> AbstractContextManager[Recording | None]:
        """Takes notes of the host's own pass, if its frames can be traced without a second one."""
        return self.windows.recording(
            self.head, self.candidates.intercepts, lambda *args, **_: raw_maps(args)
        )

    def trace(
        self,
        predict: Callable[[dict, list], Any],
        inputs: dict,
        sample: Any,
        detections: Detections,
        frame_id: str,
        first: FirstPass | None = None,
    ) -> Trace:
        """Rebuilds the detections of a frame with a graph, in a second pass where it takes one.

        Args:
            predict: The detector's own ``predict``.
            inputs: Inputs of a batch of this one frame.
            sample: A data sample with the frame's meta information; nothing is added to it.
            detections: K detections that the host reported for this frame.
            frame_id: Names the frame.
            first: The frame in the host's own pass, if there are notes of it.

        Raises:
            InputError: If a detection is none of the head's candidates.
            NotApplicableError: If the layer does not run, or the detections do not depend on it.
        """
        replay = Replays(
            lambda read, value: self._pass(predict, inputs, sample, read, value),
            detections,
            frame_id,
        )
        box = black_box_of(self.model, predict)
        leaf, attributes, raw = self.windows.begin(first, replay, box, self._taken)
        require_dependence(attributes, self.layer, self.head_path)
        features, rows = layer_rows(self.layer, leaf, inputs.get('voxels', {}).get('coors'))
        points = inputs['points'][0]
        return Trace(
            points=points,
            features=features,
            detections=detections,
            attributes=attributes,
            leaf=leaf.tensor,
            rows=rows,
            frame_id=frame_id,
            replay=replay,
            black_box=box,
            gradients=self.windows.source(leaf, rows, raw, replay, attributes, points),
        )

    def _taken(self) -> Any:
        """The head's raw outputs in the last pass, which are not kept any longer."""
        raw, self._raw = self._raw, None
        return raw

    def _pass(
        self,
        predict: Callable[[dict, list], Any],
        inputs: dict,
        sample: Any,
        read: Read,
        value: Tensor | None,
    ) -> tuple[Leaf, dict[str, Tensor]]:
        """Runs the frame with a graph from the layer on; ``value`` stands in for its features."""
        with (
            frozen_evaluation(self.model),
            differentiable_sparse_convolutions(self.model),
            leaf_at(self.module, self.layer.name, value=value) as leaf,
        ):
            # Some encoders change their inputs in place.
            candidates = self._run(predict, copy.deepcopy(inputs), sample)
            require_leaf(leaf, self.layer, self.head_path)
            return leaf, read(candidates)

    def _run(self, predict: Callable[[dict, list], Any], inputs: dict, sample: Any) -> Candidates:
        """Runs ``predict`` up to the point at which the head has the raw outputs."""
        caught: list[Candidates] = []

        def stop(*args: Any, **kwargs: Any) -> None:
            self._raw = mapped(raw_maps(args), Tensor.detach)  # The graph goes with the trace.
            caught.append(self.candidates(self.head, *args, **kwargs))
            raise _HeadReached

        with overridden(self.head, self.candidates.intercepts, stop):
            try:
                predict(dict(inputs), [type(sample)(metainfo=sample.metainfo)])
            except _HeadReached:
                return caught[0]
        raise NotApplicableError(
            f'{type(self.head).__name__}.{self.candidates.intercepts} was not called: expected a '
            'head that works as its parent class in MMDetection3D does.'
        )
