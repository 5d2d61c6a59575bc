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
        rows: Of each window, (n,) which rows of ``tensor`` it has, for a sparse layer.
        places: Of each window, (n,) which rows of the frame's these are, for a sparse layer.
    """

    tensor: Tensor
    rows: Sequence[Tensor] = ()
    places: Sequence[Tensor] = ()


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
        coords = self._in_frame_coords(value.indices[:, 1:].long(), windows, spans)
        places, known = self._places(coords)
        counts = torch.zeros(len(spans) + 1, dtype=torch.long, device=places.device)
        counts = counts.index_add_(0, windows, torch.ones_like(windows))
        counts[-1] = known
        # All at once: each question for a number waits for the device.
        *sizes, all_known = counts.tolist()
        if not all_known:
            return None
        order = windows.argsort(stable=True)
        return Seen(tensor, order.split(sizes), places[order].split(sizes))

    @torch.no_grad()
    def fits(self, seen: Seen, spans: Sequence[Spans], gradient: Tensor) -> list[bool]:
        """Tells which windows are what the detector sees of the frame; waits once for all.

        Args:
            seen: Of the pass over the batch.
            spans: The batch's windows.
            gradient: Of the shape of ``seen.tensor``.

        Returns:
            Of each window, whether all cells whose gradient is not 0 have the frame's features.
        """
        frame = self.leaf.tensor.detach()
        worst = []
        for number in range(len(spans)):
            there, at = self._matched(seen, spans, number)
            part, values, known = gradient[there], seen.tensor[there], frame[at]
            wrong = deviation(values, known).masked_fill(part == 0, 0)
            worst.append(wrong.amax() if wrong.numel() else wrong.new_zeros(()))
        return (torch.stack(worst) <= TOLERANCE).tolist()

    @torch.no_grad()
    def in_frame(self, seen: Seen, spans: Sequence[Spans], number: int, gradient: Tensor) -> Tensor:
        """Puts the gradient of one window where the window is.

        Args:
            seen: Of the pass over the batch.
            spans: The batch's windows.
            number: Which of them; one that ``fits``.
            gradient: Of the shape of ``seen.tensor``.

        Returns:
            A tensor of the shape of ``leaf.tensor``.
        """
        whole = torch.zeros_like(self.leaf.tensor, dtype=gradient.dtype)
        there, at = self._matched(seen, spans, number)
        whole[at] = gradient[there]
        return whole

    def _matched(self, seen: Seen, spans: Sequence[Spans], number: int) -> tuple[Any, Any]:
        """Returns what picks a window's cells from the batch's features, and from the frame's."""
        if seen.places:
            return seen.rows[number], seen.places[number]
        (y0, _), (x0, _) = spans[number]
        y, x = round(y0 / self.ratio[0]), round(x0 / self.ratio[1])
        # A window may reach over the end of the frame.
        height = min(seen.tensor.shape[2], self.leaf.tensor.shape[2] - y)
        width = min(seen.tensor.shape[3], self.leaf.tensor.shape[3] - x)
        there = (number, slice(None), slice(height), slice(width))
        return there, (0, slice(None), slice(y, y + height), slice(x, x + width))

    def _in_frame_coords(self, coords: Tensor, windows: Tensor, spans: Sequence[Spans]) -> Tensor:
        first = [[y0 / self.ratio[0], x0 / self.ratio[1]] for (y0, _), (x0, _) in spans]
        coords[:, -2:] += torch.tensor(first, device=coords.device).round().long()[windows]
        return coords

    def _places(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the numbers of the frame's rows with these coordinates, and whether all have."""
        if self._keys is None:
            self._keys = cell_keys(self.leaf.indices[:, 1:], self.leaf.spatial_shape).sort()
        keys, order = self._keys
        wanted = cell_keys(coords, self.leaf.spatial_shape)
        if len(keys) == 0:
            return torch.zeros_like(wanted), torch.tensor(len(wanted) == 0)
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return order[place], (keys[place] == wanted).all()
