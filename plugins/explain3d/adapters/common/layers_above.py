"""Gradients at a layer above the explained one, from the same backward passes over windows.

The graph of a window starts at the explained layer and leads through the other one to the head:
the gradient at the other is on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import Leaf, exchange, is_sparse, layer_tensor, with_features
from .layers import LayerInfo
from .rows import cell_keys
from .windows import Spans

#: How far a window's values may be from the frame's, see ``deviation``: rounding is below.
TOLERANCE = 1e-3


def deviation(window: Tensor, frame: Tensor) -> Tensor:
    """Returns how far a window's values are from the frame's, relative to 1 + |value|."""
    return (window - frame).abs() / (1 + frame.abs())


@dataclass
class Seen:
    """What a layer gave in a pass over windows.

    Attributes:
        tensor: Its features in the pass's graph.
        windows: Of each row the number of its window, for a sparse layer.
        places: Of each row its number in the frame, likewise.
    """

    tensor: Tensor
    windows: Tensor | None = None
    places: Tensor | None = None


class LayerAbove:
    """A layer between the explained one and the head.

    Args:
        module: The layer.
        info: What is known of it.
        leaf: The layer in the frame's pass.
        ratio: Cells of the explained layer to one of this, along y and x.
    """

    def __init__(
        self, module: nn.Module, info: LayerInfo, leaf: Leaf, ratio: tuple[float, float]
    ) -> None:
        self.module, self.info, self.leaf, self.ratio = module, info, leaf, ratio
        self._keys: tuple[Tensor, Tensor] | None = None
        self._caught: list[Any] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees what the layer gives while the context lasts."""
        self._caught = []

        def see(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
            value = layer_tensor(output, self.info.name, self.info.key)
            self._caught.append(value)
            # The network goes on with a copy, as behind a leaf: it may write into what it gets.
            if is_sparse(value):
                return exchange(output, value, with_features(value, value.features.clone()))
            return exchange(output, value, value.clone())

        handle = self.module.register_forward_hook(see)
        try:
            yield
        finally:
            handle.remove()

    def seen(self, spans: Sequence[Spans]) -> Seen | None:
        """Returns what the layer gave for a batch of windows of the explained layer.

        Args:
            spans: Those windows, in cells of the explained layer.

        Returns:
            None where it does not lie between the two, or its cells cannot be found in the frame.
        """
        caught, self._caught = self._caught, []
        if len(caught) != 1 or any(y0 % self.ratio[0] or x0 % self.ratio[1]
                                   for (y0, _), (x0, _) in spans):  # fmt: skip
            return None
        value = caught[0]
        tensor = value.features if is_sparse(value) else value
        if not tensor.requires_grad:  # Below the explained layer, or beside it.
            return None
        if not is_sparse(value):
            return Seen(tensor)
        windows = value.indices[:, 0].long()
        places = self._places(self._in_frame_coords(value.indices[:, 1:].long(), windows, spans))
        return None if places is None else Seen(tensor, windows, places)

    @torch.no_grad()
    def in_frame(
        self, seen: Seen, spans: Sequence[Spans], number: int, gradient: Tensor
    ) -> Tensor | None:
        """Puts the gradient of one window where the window is.

        Args:
            seen: Of the pass over the batch.
            spans: The batch's windows.
            number: Which of them.
            gradient: Of the shape of ``seen.tensor``.

        Returns:
            A tensor of the shape of ``leaf.tensor``; None where a cell that counts has not the
            frame's features, so that the window is not what the detector sees of it.
        """
        frame = self.leaf.tensor.detach()
        whole = torch.zeros_like(frame, dtype=gradient.dtype)
        if seen.windows is not None:
            rows = (seen.windows == number).nonzero().flatten()
            places = seen.places[rows]
            part, values, known = gradient[rows], seen.tensor[rows], frame[places]
            whole[places] = part
        else:
            (y0, _), (x0, _) = spans[number]
            y, x = round(y0 / self.ratio[0]), round(x0 / self.ratio[1])
            known = frame[0, :, y : y + gradient.shape[2], x : x + gradient.shape[3]]
            height, width = known.shape[1:]
            part, values = (t[number, :, :height, :width] for t in (gradient, seen.tensor))
            whole[0, :, y : y + height, x : x + width] = part
        worst = deviation(values, known).masked_fill(part == 0, 0)
        return whole if worst.numel() == 0 or float(worst.amax()) <= TOLERANCE else None

    def _in_frame_coords(self, coords: Tensor, windows: Tensor, spans: Sequence[Spans]) -> Tensor:
        first = [[y0 / self.ratio[0], x0 / self.ratio[1]] for (y0, _), (x0, _) in spans]
        coords[:, -2:] += torch.tensor(first, device=coords.device).round().long()[windows]
        return coords

    def _places(self, coords: Tensor) -> Tensor | None:
        """Returns the numbers of the frame's rows with these coordinates; None if one has none."""
        if self._keys is None:
            self._keys = cell_keys(self.leaf.indices[:, 1:], self.leaf.spatial_shape).sort()
        keys, order = self._keys
        wanted = cell_keys(coords, self.leaf.spatial_shape)
        place = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        if len(keys) == 0 or not torch.equal(keys[place], wanted):
            return None
        return order[place]
