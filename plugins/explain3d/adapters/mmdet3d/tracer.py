"""The second pass over a frame: from the explained layer up, with a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import Leaf, leaf_at
from ...core.errors import NotApplicableError
from ...core.session import frozen_evaluation, overridden
from ...core.structures import Detections, LayerFeatures, Trace
from .detector import head_of
from .heads import Candidates, candidates_class
from .heads.base import rebuild
from .layers import BEV, PILLARS, SPARSE, LayerInfo, find_layer, layers
from .spconv_compat import differentiable_sparse_convolutions


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

    def trace(
        self,
        predict: Callable[[dict, list], Any],
        inputs: dict,
        sample: Any,
        detections: Detections,
        frame_id: str,
    ) -> Trace:
        """Runs one frame a second time and rebuilds its detections with a graph.

        Args:
            predict: The detector's own ``predict``.
            inputs: Inputs of a batch of this one frame.
            sample: A data sample with the frame's meta information; nothing is added to it.
            detections: K detections that the host reported for this frame.
            frame_id: Names the frame.

        Raises:
            InputError: If a detection is none of the candidates of the second pass.
            NotApplicableError: If the layer does not run, or the detections do not depend on it.
        """
        with (
            frozen_evaluation(self.model),
            differentiable_sparse_convolutions(self.model),
            leaf_at(self.module, self.layer.name) as leaf,
        ):
            candidates = self._run(predict, inputs, sample)
            if leaf.tensor is None:
                raise NotApplicableError(
                    f'Layer {self.layer.name!r} did not run on the way to the head '
                    f'{self.head_path!r}: choose a layer below it.'
                )
            attributes = rebuild(candidates, detections, frame_id)
        if not all(value.requires_grad for value in attributes.values()):
            raise NotApplicableError(
                f'The outputs of {self.head_path!r} do not depend on layer {self.layer.name!r} '
                'through differentiable operations: choose another layer.'
            )
        features, rows = self._rows(leaf, inputs)
        return Trace(
            points=inputs['points'][0],
            features=features,
            detections=detections,
            attributes=attributes,
            leaf=leaf.tensor,
            rows=rows,
            frame_id=frame_id,
        )

    def _run(self, predict: Callable[[dict, list], Any], inputs: dict, sample: Any) -> Candidates:
        """Runs ``predict`` up to the point at which the head has the raw outputs."""
        caught: list[Candidates] = []

        def stop(*args: Any, **kwargs: Any) -> None:
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

    def _rows(self, leaf: Leaf, inputs: dict) -> tuple[LayerFeatures, Callable[[Tensor], Tensor]]:
        """Returns the layer's features as rows, and how to bring a gradient into that form."""
        to_rows = _cells_as_rows if self.layer.kind == BEV else _as_it_is
        if self.layer.kind == SPARSE:
            coords, shape = leaf.indices[:, 1:], leaf.spatial_shape
        elif self.layer.kind == PILLARS:
            coords = inputs['voxels']['coors'] if leaf.indices is None else leaf.indices
            coords, shape = coords[:, 1:], self.layer.spatial_shape
        else:
            coords, shape = _grid_coords(leaf.tensor), (1, *leaf.tensor.shape[2:])
        if tuple(shape) != self.layer.spatial_shape:
            raise NotApplicableError(
                f'Layer {self.layer.name!r} has the grid {tuple(shape)}: expected '
                f'{self.layer.spatial_shape} as in the probe. Its voxels cannot be located.'
            )
        values = to_rows(leaf.tensor.detach())
        features = LayerFeatures(
            values, coords.long(), self.layer.spatial_shape, self.layer.geometry, self.layer.name
        )
        return features, to_rows


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _cells_as_rows(value: Tensor) -> Tensor:
    """(1, C, H, W) to (H * W, C)."""
    return value[0].flatten(1).T


def _grid_coords(value: Tensor) -> Tensor:
    """(H * W, 3) z, y, x of the cells of a (1, C, H, W) map."""
    height, width = value.shape[2:]
    cell = torch.arange(height * width, device=value.device)
    return torch.stack([torch.zeros_like(cell), cell // width, cell % width], 1)
