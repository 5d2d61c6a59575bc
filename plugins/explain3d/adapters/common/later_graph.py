"""Attributes whose values are known before their graph is made, by a pass when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.capture import Leaf
from ...core.override import override
from .rows import cell_keys

#: A pass with a graph: the leaf, and the attributes by name.
Pass = Callable[[], tuple[Leaf, dict[str, Tensor]]]


class LaterGraph:
    """Joins attributes to a leaf without a pass; whoever differentiates them makes it run, once.

    Args:
        run: The pass.
        leaf: The layer as it is known; the rows of a sparse one may come in another order.
    """

    def __init__(self, run: Pass, leaf: Leaf) -> None:
        self._run, self._leaf = run, leaf
        self._found: tuple[Leaf, dict[str, Tensor]] | None = None

    def attributes(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the attributes with a graph that starts at the leaf's tensor.

        Args:
            values: What the pass will give, without a graph.
        """
        with torch.enable_grad():
            found = _Joined.apply(self, tuple(values), self._leaf.tensor, *values.values())
        return dict(zip(values, found, strict=True))

    def gradient(self, names: Sequence[str], weights: Sequence[Tensor | None]) -> Tensor | None:
        """Returns the gradient of a weighted sum of attributes, of the leaf's shape.

        Args:
            names: The attributes.
            weights: (K,) for each of them, None for 0.

        Returns:
            None where there is no dependence.
        """
        if self._found is None:
            self._found = self._run()
        leaf, attributes = self._found
        terms = [(attributes[n], w) for n, w in zip(names, weights, strict=True) if w is not None]
        terms = [(value, weight) for value, weight in terms if value.requires_grad]
        if not terms:
            return None
        values, weights = zip(*terms, strict=True)
        with torch.enable_grad():
            (found,) = torch.autograd.grad(
                values, leaf.tensor, weights, retain_graph=True, allow_unused=True
            )
        return None if found is None else self._in_order(found, leaf.indices)

    def _in_order(self, rows: Tensor, indices: Tensor | None) -> Tensor:
        """Brings the pass's rows into the order of those that are known."""
        known = self._leaf.indices
        if known is None or torch.equal(indices, known):
            return rows
        ordered = torch.empty_like(rows)
        ordered[self._sorted(known)] = rows[self._sorted(indices)]
        return ordered

    def _sorted(self, indices: Tensor) -> Tensor:
        return cell_keys(indices[:, 1:], self._leaf.spatial_shape).argsort()


class _Joined(torch.autograd.Function):
    """The values as they are; the gradient at the leaf comes from ``LaterGraph``."""

    @staticmethod
    @override
    def forward(
        ctx: Any, later: LaterGraph, names: tuple[str, ...], leaf: Tensor, *values: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.later, ctx.names = later, names
        ctx.set_materialize_grads(False)
        return tuple(value.clone() for value in values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    @override
    def backward(ctx: Any, *weights: Tensor | None) -> tuple[Tensor | None, ...]:
        found = ctx.later.gradient(ctx.names, weights)
        return None, None, found, *(None for _ in weights)
