"""Gradients of detections with respect to a layer's features (Eq. 5 to 7 of FFAM).

One detection's gradient is as large as the features, so a thousand of them are never held: each is
reduced to a value per voxel as soon as it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor

from .errors import InputError, NotApplicableError
from .normalize import full_precision
from .structures import Trace
from .targets import Target

#: Turns the signed gradient (M, C) of one scalar into a value >= 0 per voxel, (M,).
Reducer = Callable[[Tensor], Tensor]


class GradientSource(Protocol):
    """Gives the gradients of a trace's detections, several to a backward pass.

    Attributes:
        leaf: The trace's leaf. For a trace with another leaf the source does not count.
        attributes: The trace's attributes, likewise.
        order: The order in which detections are best asked for.
        passes: Passes so far, forward and backward, beside those that end at ``leaf``.
    """

    leaf: Tensor
    attributes: dict[str, Tensor]
    order: Sequence[int]
    passes: int

    def gradient(self, k: int, names: tuple[str, ...], signed: bool) -> Tensor | None:
        """Returns the (M, C) gradient of detection k's attributes, or of the sum of |a|.

        None if they do not depend on the leaf.
        """


def absolute_sum(gradient: Tensor) -> Tensor:
    """Sums |G| over the channels: the weight omega of Eq. 7 of FFAM.

    Args:
        gradient: (M, C) gradient G of one scalar.

    Returns:
        (M,) omega.
    """
    return gradient.abs().sum(dim=1)


def reduce_gradients(
    trace: Trace, targets: Sequence[Target], reducer: Reducer = absolute_sum
) -> dict[str, Tensor]:
    """Returns a map over the voxels for every detection and target.

    Of a target with ``combine='sum'`` the gradient of the sum of absolute values is reduced (Eq. 5
    and 6); with ``combine='abs'`` each attribute's gradient is, and the results are summed.

    Args:
        trace: K detections over M voxels. Its graph is kept, no ``.grad`` is touched.
        targets: What of each detection to explain.
        reducer: Reduces one (M, C) gradient to (M,).

    Returns:
        (K, M) for each target's name.

    Raises:
        NotApplicableError: If an attribute is missing from the trace, or does not depend on the
            layer.
        InputError: If a gradient is not finite.
    """
    return reduce_at([trace], targets, reducer)[0]


def reduce_at(
    traces: Sequence[Trace], targets: Sequence[Target], reducer: Reducer = absolute_sum
) -> list[dict[str, Tensor]]:
    """Does the same at several layers of one frame, detection by detection at all of them.

    So a source that finds the gradients at several layers in one backward pass makes it once.

    Args:
        traces: One frame and its K detections at several layers.
        targets: As in ``reduce_gradients``.
        reducer: Likewise.

    Returns:
        (K, M) for each target's name, for each trace.

    Raises:
        NotApplicableError: As ``reduce_gradients``.
        InputError: Likewise.
    """
    found = [_empty_maps(trace, targets) for trace in traces]
    steps = [
        _reducing(trace, targets, reducer, maps)
        for trace, maps in zip(traces, found, strict=True)
        if len(trace.features.coords)
    ]
    for _ in zip_longest(*steps):
        pass
    return found


def _empty_maps(trace: Trace, targets: Sequence[Target]) -> dict[str, Tensor]:
    size = len(trace.detections), len(trace.features.coords)
    like = full_precision(trace.features.values)
    return {target.name: like.new_zeros(size) for target in targets}


def _reducing(
    trace: Trace, targets: Sequence[Target], reducer: Reducer, maps: dict[str, Tensor]
) -> Iterator[None]:
    """Adds to ``maps`` what one detection after the other has."""
    for k, gradients in attribute_gradients(trace, targets):
        for target in targets:
            for gradient in gradients.of(target):
                maps[target.name][k] += reducer(gradient)
        yield


@dataclass(frozen=True)
class DetectionGradients:
    """The gradients of one detection that a list of targets is made of.

    Attributes:
        single: (M, C) the gradient of an attribute, by its name.
        sums: (M, C) the gradient of the sum of absolute values, by the attributes.
        signs: The sign of each attribute of ``single``.
    """

    single: dict[str, Tensor]
    sums: dict[frozenset[str], Tensor]
    signs: dict[str, Tensor]

    def of(self, target: Target) -> list[Tensor]:
        """Returns the (M, C) gradients of ``target``: one for a sum, else one an attribute."""
        if target.combine == 'abs':
            return [self.single[attribute] for attribute in target.attributes]
        direct = self.sums.get(frozenset(target.attributes))
        if direct is not None:
            return [direct]
        return [sum(self.signs[name] * self.single[name] for name in target.attributes)]


def attribute_gradients(
    trace: Trace, targets: Sequence[Target]
) -> Iterator[tuple[int, DetectionGradients]]:
    """Yields the gradients of each detection, by as few backward passes as it takes.

    The gradient of a sum can be assembled from those of its attributes, so a sum costs a pass of
    its own only where its attributes are not asked for anyway. Whether all are finite is asked
    once, at the end: each question waits for the device.

    Args:
        trace: K detections; see ``reduce_gradients``.
        targets: What of each detection to explain.

    Yields:
        The number of a detection and its gradients, each detection once, in any order.

    Raises:
        NotApplicableError: See ``reduce_gradients``.
        InputError: See ``reduce_gradients``.
    """
    single, sums = plan_backwards(targets)
    if len(trace.detections):
        require_graph(trace, targets)
    source, check = _source(trace), _FiniteCheck()
    for k in range(len(trace.detections)) if source is None else source.order:
        values = {name: trace.attributes[name][k].detach() for name in single}
        found = DetectionGradients(
            single={name: _gradient(trace, k, (name,), signed=True) for name in single},
            sums={names: _gradient(trace, k, tuple(sorted(names))) for names in sums},
            signs={name: value.sign() for name, value in values.items()},
        )
        for name, gradient in found.single.items():
            check.add(gradient, k, (name,))
        for names, gradient in found.sums.items():
            check.add(gradient, k, sorted(names))
        yield k, found
    check.require()


class _FiniteCheck:
    """Looks at gradients where they are, and asks the device for all of them at once."""

    def __init__(self) -> None:
        self._finite: list[Tensor] = []
        self._whose: list[tuple[int, str]] = []

    def add(self, gradient: Tensor, k: int, names: Sequence[str]) -> None:
        self._finite.append(torch.isfinite(gradient).all())
        self._whose.append((k, '+'.join(names)))

    def require(self) -> None:
        """Raises an InputError for the first gradient that is not finite."""
        finite = torch.stack(self._finite).tolist() if self._finite else []
        if all(finite):
            return
        k, names = self._whose[finite.index(False)]
        raise InputError(
            f'Expected a finite gradient, received NaN or infinite values for {names} of '
            f'detection {k}: look for an overflow in the head (half precision, exp of a size).'
        )


def _source(trace: Trace) -> GradientSource | None:
    """Returns the trace's faster source, unless the trace was changed after it was made."""
    source = trace.gradients
    if source is None or source.leaf is not trace.leaf:
        return None
    return source if source.attributes is trace.attributes else None


def plan_backwards(targets: Sequence[Target]) -> tuple[list[str], list[frozenset[str]]]:
    """Chooses which gradients to compute for each detection.

    Args:
        targets: What of each detection to explain.

    Returns:
        The attributes whose own gradients are computed, and the sets of attributes whose sum of
        absolute values gets a backward pass of its own.
    """
    single = dict.fromkeys(n for t in targets if t.combine == 'abs' for n in t.attributes)
    sums = {frozenset(t.attributes): t.attributes for t in targets if t.combine == 'sum'}
    sums = {names: order for names, order in sums.items() if not names <= single.keys()}
    missing = [n for n in dict.fromkeys(n for o in sums.values() for n in o) if n not in single]
    if len(missing) < len(sums):
        return [*single, *missing], []
    return list(single), list(sums)


def _gradient(trace: Trace, k: int, names: tuple[str, ...], signed: bool = False) -> Tensor:
    """Returns (M, C), the gradient of detection k's attributes: as they are, or of sum |a|."""
    source = _source(trace)
    if source is None:
        gradient = gradient_at(trace.leaf, trace.attributes, k, names, signed)
        gradient = gradient if gradient is None else trace.rows(gradient)
    else:
        gradient = source.gradient(k, names, signed)
    if gradient is None:
        raise _detached(trace, names)
    return full_precision(gradient)


def gradient_at(
    leaf: Tensor,
    attributes: dict[str, Tensor],
    k: int | slice,
    names: Sequence[str],
    signed: bool,
) -> Tensor | None:
    """Returns the gradient at ``leaf`` of the sum of some attributes, or of their absolute values.

    Args:
        leaf: Where the graph starts.
        attributes: (K,) tensors by name.
        k: Which of the K; the sum goes over several.
        names: Attributes of the sum.
        signed: Whether the sum is of the values as they are.

    Returns:
        A tensor of the shape of ``leaf``; None if there is no dependence.
    """
    return gradients_at([leaf], attributes, k, names, signed)[0]


def gradients_at(
    tensors: Sequence[Tensor],
    attributes: dict[str, Tensor],
    k: int | slice,
    names: Sequence[str],
    signed: bool,
) -> list[Tensor | None]:
    """Returns the gradients at several tensors of one graph, by one backward pass.

    Args:
        tensors: Where gradients are wanted.
        attributes: As in ``gradient_at``, like those that follow.
        k: Likewise.
        names: Likewise.
        signed: Likewise.
    """
    with torch.enable_grad():
        values = [attributes[name][k] for name in names]
        scalar = sum((value if signed else value.abs()).sum() for value in values)
        return list(torch.autograd.grad(scalar, tensors, retain_graph=True, allow_unused=True))


def require_graph(trace: Trace, targets: Sequence[Target]) -> None:
    """Refuses a trace whose detections do not depend on the layer.

    Raises:
        NotApplicableError: See ``reduce_gradients``.
    """
    wanted = dict.fromkeys(name for target in targets for name in target.attributes)
    missing = [name for name in wanted if name not in trace.attributes]
    if missing:
        raise NotApplicableError(
            f'Expected the attributes {missing}, but the head of this detector delivers only '
            f'{sorted(trace.attributes)}: choose targets made of these.'
        )
    detached = [name for name in wanted if not trace.attributes[name].requires_grad]
    if not trace.leaf.requires_grad:
        detached = list(wanted)
    if detached:
        raise _detached(trace, detached)


def _detached(trace: Trace, names: Sequence[str]) -> NotApplicableError:
    return NotApplicableError(
        f'Expected {", ".join(names)} to depend on the layer {trace.features.name!r}, but no graph '
        f'leads there: the head detaches its predictions, or computes them from another branch. '
        f'Choose a layer that the head uses, or an adapter that rebuilds them with a graph.'
    )
