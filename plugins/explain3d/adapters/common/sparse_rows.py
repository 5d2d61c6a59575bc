"""Sparse convolution of many versions of a frame: of rows that are equal, one is computed.

A version is the frame without some of its points. At each layer its voxels are some of the
frame's, so that all versions share the frame's table of neighbours. A row of a layer's output
depends on the rows in the kernel around it; where none of them differs from those of another
version, neither does the row. Each version is compared with the one (or the frame) that it
resembles most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Number of a kernel's offset, rows of the input, rows of the output.
Pairs = list[tuple[int, Tensor, Tensor]]


@dataclass(frozen=True)
class Layer:
    """What a convolution did with the frame.

    Attributes:
        pairs: Which rows of its N inputs and M outputs meet; a submanifold's centre among them.
        weight: (V, C, K) of V offsets.
        bias: (K,), if it has one.
        source: (N, C) features of its input.
        target: (M, K) features of its output.
        indices: (M, 4) int32 frame, z, y, x of its output.
        shape: Of its output's grid, z, y, x.
        same: Whether its output has the rows of its input.
    """

    pairs: Pairs
    weight: Tensor
    bias: Tensor | None
    source: Tensor
    target: Tensor
    indices: Tensor
    shape: tuple[int, int, int]
    same: bool


@dataclass(frozen=True)
class Tree:
    """Which of B versions each is compared with.

    Attributes:
        order: The versions; parents come before their children.
        parent: Of each version; B stands for the frame.
    """

    order: list[int]
    parent: list[int]

    @classmethod
    def of(cls, content: Tensor) -> Tree:
        """Returns the tree, rooted in the frame, along which the fewest rows change.

        Args:
            content: (R, B + 1) a number for what each row holds in each version and in the frame.
        """
        apart = (content[:, :, None] != content[:, None]).sum(dim=0)
        count = content.shape[1] - 1
        nearest, parent, order = apart[count].clone(), [count] * count, []
        nearest[count] = len(content) + 1
        for _ in range(count):
            taken = int(nearest.argmin())
            order.append(taken)
            closer = apart[taken] < nearest
            closer[[*order, count]] = False
            for version in closer.nonzero().flatten().tolist():
                parent[version] = taken
            nearest = torch.where(closer, apart[taken], nearest)
            nearest[taken] = len(content) + 1
        return cls(order, parent)


@dataclass(frozen=True)
class Versions:
    """The rows of a layer that B versions do not all share with the frame.

    Attributes:
        rows: (R,) their places among the frame's rows.
        features: (R * B, C) what they hold; anything where a version does not have the row.
        active: (R, B) bool: whether a version has the row.
        changed: (R, B) bool: whether the row differs from that of the version's parent.
        tree: The parents.
    """

    rows: Tensor
    features: Tensor
    active: Tensor
    changed: Tensor
    tree: Tree


def versions_of(frame: Tensor, rows: Tensor, features: Tensor, active: Tensor) -> Versions:
    """Compares versions of some of a frame's rows.

    Args:
        frame: (N, C) features of the frame.
        rows: (R,) places among the frame's rows, of which a version may differ.
        features: (R, B, C) the versions'; zeros where a version does not have the row.
        active: (R, B) bool.
    """
    held = torch.cat([features, active[..., None].to(features)], dim=2)
    here = torch.cat([frame[rows], frame.new_ones(len(rows), 1)], dim=1)
    held = torch.cat([held, here[:, None]], dim=1)
    differ = (held[:, :-1] != held[:, -1:]).any(dim=2).any(dim=1)
    rows, held, active = rows[differ], held[differ], active[differ]
    # Equal sums for rows that differ would make the tree a worse one, and no result wrong.
    scale = torch.arange(1, held.shape[2] + 1, device=held.device, dtype=torch.float64).sqrt()
    tree = Tree.of((held.double() * scale).sum(dim=2))
    changed = (held[:, :-1] != held[:, tree.parent]).any(dim=2)
    return Versions(rows, features[differ].flatten(0, 1), active, changed, tree)


def convolve(layer: Layer, versions: Versions) -> Versions:
    """Applies a layer to all versions."""
    N, B = len(layer.source), versions.active.shape[1]
    rows, pairs = _touched(layer, versions.rows)
    has = versions.active.new_ones(N, B)
    has[versions.rows] = versions.active
    differs = torch.zeros_like(has)
    differs[versions.rows] = versions.changed
    changed = versions.active.new_zeros(len(rows), B)
    active = has[rows] if layer.same else torch.zeros_like(changed)
    for _, source, target in pairs:
        changed[target] |= differs.index_select(0, source)
        if not layer.same:
            active[target] |= has.index_select(0, source)

    computed = changed & active
    number = computed.flatten().cumsum(dim=0).view_as(computed) - 1
    count = int(computed.sum())
    # Where the content of each row of the input stands: in the frame, or in a version.
    pool = torch.cat([layer.source, versions.features])
    place = torch.arange(N, device=rows.device)[:, None].repeat(1, B)
    place[versions.rows] = N + torch.arange(len(versions.features), device=rows.device).view(-1, B)
    out = pool.new_zeros(count, layer.weight.shape[2])
    for offset, source, target in pairs:
        wanted = computed.index_select(0, target) & has.index_select(0, source)
        pair, version = wanted.nonzero(as_tuple=True)
        rows_in = place.flatten().index_select(0, source[pair] * B + version)
        rows_out = number.flatten().index_select(0, target[pair] * B + version)
        out.index_add_(0, rows_out, pool.index_select(0, rows_in) @ layer.weight[offset])
    if layer.bias is not None:
        out += layer.bias

    found = _inherited(computed, number + len(rows), versions.tree)
    known = torch.cat([layer.target[rows], out])
    return Versions(
        rows, known.index_select(0, found.flatten()), active, changed, versions.tree
    )  # fmt: skip


def _touched(layer: Layer, rows: Tensor) -> tuple[Tensor, Pairs]:
    """Returns the rows of the output that see ``rows``, and the pairs that end there.

    In the pairs, an output row is its place among those returned.
    """
    differs = torch.zeros(len(layer.source), dtype=torch.bool, device=rows.device)
    differs[rows] = True
    sees = torch.zeros(len(layer.target), dtype=torch.bool, device=rows.device)
    for _, source, target in layer.pairs:
        sees[target[differs.index_select(0, source)]] = True
    found = sees.nonzero().flatten()
    place = sees.cumsum(dim=0) - 1
    pairs = []
    for offset, source, target in layer.pairs:
        there = sees.index_select(0, target)
        pairs.append((offset, source[there], place[target[there]]))
    return found, pairs


def _inherited(computed: Tensor, number: Tensor, tree: Tree) -> Tensor:
    """(R, B) where each row's content stands: its own, or its parent's; the frame's come first."""
    frame = torch.arange(len(computed), device=computed.device)
    found = [frame] * (computed.shape[1] + 1)
    for version in tree.order:
        inherited = found[tree.parent[version]]
        found[version] = torch.where(computed[:, version], number[:, version], inherited)
    return torch.stack(found[:-1], dim=1)
