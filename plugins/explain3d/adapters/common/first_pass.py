"""What the host's own pass leaves of the explained layer and of the head.

A frame whose gradients come from windows needs nothing else, and so no second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import Leaf, cell_order, is_sparse, layer_tensor
from ...core.session import overridden
from .layers import LayerInfo
from .nested import frame_of, leaves, mapped

#: The head's raw outputs, maps of shape (B, C, H, W) in nested lists and dicts.
Raw = Any


@dataclass(frozen=True)
class FirstPass:
    """One frame of the host's own pass, as a batch of one.

    Attributes:
        leaf: The explained layer; its ``tensor`` requires a gradient and has no graph.
        raw: The head's raw outputs.
    """

    leaf: Leaf
    raw: Raw


class Recording:
    """Notes of one pass of the host over a batch.

    They refer to the host's tensors. Only those of inference mode, of which no graph can be made
    and whose changes cannot be seen, are copied.

    Args:
        module: The explained layer.
        layer: What is known of it.
        head: The module whose method gets the raw outputs.
        method: Name of that method.
        maps: Returns the raw outputs among the method's arguments.
        tell: Called with the reason why a frame cannot be explained with the notes.
    """

    def __init__(
        self,
        module: nn.Module,
        layer: LayerInfo,
        head: nn.Module,
        method: str,
        maps: Callable[..., Raw],
        tell: Callable[[str], None],
    ) -> None:
        self.module, self.layer, self.head, self.method = module, layer, head, method
        self._maps, self._tell = maps, tell
        self._outputs: list[_Output] = []
        self._raw: list[_Held] = []
        self._problem = ''

    @contextmanager
    def watching(self) -> Iterator[Recording]:
        """Takes notes while the context lasts; the pass is what it is without."""
        host = getattr(self.head, self.method)

        def noting(*args: Any, **kwargs: Any) -> Any:
            self._note(self._raw, lambda: _Held(self._maps(*args, **kwargs)))
            return host(*args, **kwargs)

        def see(_module: nn.Module, _inputs: tuple, output: Any) -> None:
            self._note(self._outputs, lambda: _Output.of(output, self.layer))

        handle = self.module.register_forward_hook(see)
        try:
            with overridden(self.head, self.method, noting):
                yield self
        finally:
            handle.remove()

    def frame(self, index: int, size: int) -> FirstPass | None:
        """Returns what there is of a frame; None, and the reason is told, if it does not serve.

        Args:
            index: Which frame of the batch.
            size: How many frames the batch has.
        """
        problem = self._problem or self._unfit(size)
        if problem:
            self._tell(problem)
            return None
        return FirstPass(self._outputs[0].leaf(index), frame_of(self._raw[0].nest, index))

    def _note(self, notes: list, make: Callable[[], Any]) -> None:
        try:
            notes.append(make())
        except Exception as error:  # The host's pass is not to fail for our notes.
            self._problem = f'it cannot be noted ({type(error).__name__}: {error})'

    def _unfit(self, size: int) -> str:
        if len(self._outputs) != 1 or len(self._raw) != 1:
            return 'the layer or the head ran not once'
        output, raw = self._outputs[0], self._raw[0]
        if output.size != size or {len(value) for value in leaves(raw.nest)} != {size}:
            return 'its batch is not that of the frames'
        if not (output.held.intact() and raw.intact()):
            return 'the network writes into what the layer or the head gave'
        return ''


class Recordings:
    """Notes of one pass for several layers.

    Args:
        notes: Those of each.
    """

    def __init__(self, notes: Sequence[Recording]) -> None:
        self._notes = notes

    def frame(self, index: int, size: int) -> tuple[FirstPass, ...] | None:
        """Returns what there is of a frame for each layer; None if there is nothing for one.

        Args:
            index: As in ``Recording.frame``.
            size: Likewise.
        """
        found = [notes.frame(index, size) for notes in self._notes]
        return None if None in found else tuple(found)


@contextmanager
def recordings(
    tracers: Iterable[AbstractContextManager[Recording | None]],
) -> Iterator[Recordings | None]:
    """Takes notes of one pass for several layers; gives None where there are none for one.

    Args:
        tracers: What takes them for each.
    """
    with ExitStack() as stack:
        notes = [stack.enter_context(notes) for notes in tracers]
        yield None if None in notes else Recordings(notes)


class _Held:
    """A nest of the host's tensors, and whether they are still what they were."""

    def __init__(self, nest: Any) -> None:
        self.nest = mapped(nest, _outside_inference)
        self._versions = [tensor._version for tensor in leaves(self.nest)]

    def intact(self) -> bool:
        return self._versions == [tensor._version for tensor in leaves(self.nest)]


def _outside_inference(tensor: Tensor) -> Tensor:
    """Returns the tensor without its graph, sharing its values where it can be in another."""
    if not tensor.is_inference():
        return tensor.detach()
    with torch.inference_mode(False):
        return tensor.clone()


@dataclass(frozen=True)
class _Output:
    """What the layer gave for a batch.

    A sparse tensor is taken apart: it would keep the index tables of all layers below it.

    Attributes:
        held: (features, indices) of a sparse layer, else (map,).
        size: Number of frames.
        sparse: Class of the sparse tensor, None for a map.
        shape: Its grid.
    """

    held: _Held
    size: int
    sparse: type | None = None
    shape: Sequence[int] = ()

    @classmethod
    def of(cls, output: Any, layer: LayerInfo) -> _Output:
        value = layer_tensor(output, layer.name, layer.key)
        if not is_sparse(value):
            return cls(_Held((value,)), len(value))
        held = _Held((value.features, value.indices))
        return cls(held, int(value.batch_size), type(value), list(value.spatial_shape))

    def leaf(self, index: int) -> Leaf:
        """Returns the layer of one frame, as a batch of one."""
        if self.sparse is None:
            tensor = self.held.nest[0][index : index + 1].requires_grad_()
            return Leaf(tensor, tensor.detach())
        features, indices = self.held.nest
        if self.size > 1:
            rows = indices[:, 0] == index
            features, indices = features[rows], indices[rows]
        order = cell_order(indices)  # Copies, too: modules may write into coordinates.
        indices, tensor = indices[order], features[order].detach().requires_grad_()
        indices[:, 0] = 0
        output = self.sparse(tensor.detach(), indices, self.shape, 1)
        return Leaf(tensor, output, indices, tuple(self.shape))
