"""A sparse encoder that remembers a frame, and computes of its versions what differs.

On a CPU, in plain chains of convolutions, normalisations and activations (SECOND, CenterPoint).
See ``sparse_rows`` for how.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import is_sparse, is_sparse_convolution
from ...core.reach import POINTWISE
from ...core.session import overridden
from .rows import cell_keys
from .sparse_rows import Layer, Pairs, Versions, convolve, versions_of
from .spconv_cpu import kernels, offsets
from .windows import Spans

_CONTAINERS = ('SparseSequential', 'Sequential')


class NoVersionError(Exception):
    """A cloud has a voxel that the remembered frame does not have."""


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    given: Any
    got: Any


class SparseMemory:
    """What the sparse convolutions of a detector did with a frame.

    Args:
        model: The detector.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._layers: list[tuple[nn.Module, Layer]] = []
        self._first: Any = None
        self._last: _Call | None = None

    def usable(self, shape: tuple[int, int]) -> bool:
        """Whether versions can be run, whose bird's-eye-view map has this shape, y and x."""
        return bool(self._layers) and tuple(self._last.got.spatial_shape[-2:]) == tuple(shape)

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Watches the pass of a frame, the only one of its batch."""
        convolutions: list[_Call] = []
        stages: list[_Call] = []
        depth = 0

        def enter(_module: nn.Module, inputs: tuple) -> None:
            nonlocal depth
            depth += bool(inputs and is_sparse(inputs[0]))

        def leave(module: nn.Module, inputs: tuple, output: Any) -> None:
            nonlocal depth
            if not (inputs and is_sparse(inputs[0])):
                return
            depth -= 1
            call = _Call(module, inputs[0], output)
            if depth == 0:
                stages.append(call)
            if is_sparse_convolution(module):
                convolutions.append(call)

        self._layers, self._last = [], None
        with ExitStack() as stack:
            for module in self.model.modules():
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            yield
        if _is_chain(stages, convolutions):
            tables: dict[int, Pairs] = {}
            layers = [(call.module, _layer(call, tables)) for call in convolutions]
            if all(layer is not None for _, layer in layers):
                self._layers, self._last = layers, stages[-1]
                self._first = convolutions[0].given

    @contextmanager
    def running(self, changed: Spans, window: Spans) -> Iterator[None]:
        """The next pass is one of versions of the frame; its map is the window alone.

        Args:
            changed: Input voxels of which versions may differ; what a version gives outside of
                them is ignored.
            window: Cells of the map.

        Raises:
            NoVersionError: In the pass, if a cloud has a voxel that the frame does not have.
        """
        state: Versions | None = None

        def forward(layer: Layer, value: Any) -> Any:
            nonlocal state
            if state is None:
                state = self._entered(value, changed)
            else:
                state = replace(state, features=value.features)
            state = convolve(layer, state)
            count = state.active.shape[1]
            indices = _numbered(layer.indices[state.rows], count, interleaved=True)
            return type(value)(state.features, indices, list(layer.shape), count)

        def leave(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
            return self._left(replace(state, features=output.features), window)

        with ExitStack() as stack:
            for module, layer in self._layers:
                run = lambda value, layer=layer: forward(layer, value)  # noqa: E731
                stack.enter_context(overridden(module, 'forward', run))
            stack.callback(self._last.module.register_forward_hook(leave).remove)
            yield

    def _entered(self, clouds: Any, changed: Spans) -> Versions:
        """Finds the voxels of a batch of clouds among the frame's."""
        frame, shape = self._first, self._first.spatial_shape
        rows = _within(frame.indices, changed).nonzero().flatten()
        keys, order = cell_keys(frame.indices[rows, 1:], shape).sort()
        inside = _within(clouds.indices, changed)
        wanted = cell_keys(clouds.indices[inside, 1:], shape)
        version = clouds.indices[inside, 0].long()
        place = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        if len(wanted) and not (len(keys) and torch.equal(keys[place], wanted)):
            raise NoVersionError
        place = order[place]
        features = frame.features.new_zeros(
            len(rows), clouds.batch_size, frame.features.shape[1]
        )  # fmt: skip
        active = torch.zeros(features.shape[:2], dtype=torch.bool, device=rows.device)
        features[place, version] = clouds.features[inside]
        active[place, version] = True
        return versions_of(frame.features, rows, features, active)

    def _left(self, versions: Versions, window: Spans) -> Any:
        """Returns a sparse tensor of the window: the frame's rows, and the versions' own."""
        frame, count = self._last.got, versions.active.shape[1]
        common = _within(frame.indices, window)
        own = common[versions.rows]
        common[versions.rows] = False
        row, version = (versions.active & own[:, None]).nonzero(as_tuple=True)
        indices = frame.indices[versions.rows[row]]
        indices[:, 0] = version.to(indices)
        indices = torch.cat([_numbered(frame.indices[common], count), indices])
        (y0, y1), (x0, x1) = window
        indices = indices - indices.new_tensor([0, 0, y0, x0])
        features = torch.cat(
            [frame.features[common].repeat(count, 1), versions.features[row * count + version]]
        )
        shape = [*list(frame.spatial_shape)[:-2], y1 - y0, x1 - x0]
        return type(frame)(features, indices, shape, count)


def _is_chain(stages: list[_Call], convolutions: list[_Call]) -> bool:
    """Whether each stage works on what the one before gave, and so does all inside of them."""
    parts = [module for call in stages for module in call.module.modules()]
    known = {id(call.module) for call in convolutions}
    return (
        len(convolutions) > 0
        and len(set(map(id, parts))) == len(parts)
        and len(known) == len(convolutions)
        and all(b.given is a.got for a, b in zip(stages, stages[1:], strict=False))
        and all(
            id(part) in known or type(part).__name__.startswith((*_CONTAINERS, *POINTWISE))
            for part in parts
        )
    )


def _layer(call: _Call, tables: dict[int, Pairs]) -> Layer | None:
    """Returns what a convolution did; None if spconv did not leave it as the CPU kernels do."""
    module, given, got = call.module, call.given, call.got
    data = getattr(got, 'indice_dict', {}).get(module.indice_key)
    pairs, counts = getattr(data, 'indice_pairs', None), getattr(data, 'indice_pair_num', None)
    weight = module.weight
    layout = (weight.shape[0], weight.shape[-1]) == (module.out_channels, module.in_channels)
    if pairs is None or counts is None or pairs.is_cuda or not layout or module.inverse:
        return None
    weight = kernels(weight)
    if id(data) not in tables:
        tables[id(data)] = list(offsets(pairs, counts, False, module.subm))
        if module.subm:
            every = torch.arange(len(given.features))
            tables[id(data)].insert(0, (len(weight) // 2, every, every))
    return Layer(
        tables[id(data)], weight, module.bias, given.features, got.features, got.indices,
        tuple(got.spatial_shape), module.subm,
    )  # fmt: skip


def _within(indices: Tensor, spans: Spans) -> Tensor:
    """(M,) bool: rows of (M, 4) frame, z, y, x inside of spans of y and x."""
    (y0, y1), (x0, x1) = spans
    y, x = indices[:, 2], indices[:, 3]
    return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)


def _numbered(indices: Tensor, count: int, interleaved: bool = False) -> Tensor:
    """(M * count, 4) the rows for each of ``count`` frames: row by row, or frame by frame."""
    out = indices.repeat_interleave(count, dim=0) if interleaved else indices.repeat(count, 1)
    frames = torch.arange(count).to(out)
    every = frames.repeat(len(indices)) if interleaved else frames.repeat_interleave(len(indices))
    out[:, 0] = every
    return out
