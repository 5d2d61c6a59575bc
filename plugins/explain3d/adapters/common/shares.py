"""What the hosts' adapters share for reading sensor shares of detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ...core.errors import InputError
from ...core.matching import match
from ...core.structures import Detections
from ...lmd.detections import Effect
from ...lmd.nested import tensors


def effect_of(before: Detections, after: Detections, raw: Tensor, overlap: float) -> Effect:
    """Returns what became of K detections.

    Args:
        before: The K detections.
        after: Those of the run without a sensor.
        raw: (K, A) raw attributes at the places of the K detections in that run.
        overlap: In the bird's-eye view, above which a box of the same class is the same one.
    """
    names = [
        f'class {i}' for i in range(1 + max([0, *before.labels.tolist(), *after.labels.tolist()]))
    ]
    # Numbers tell classes apart where their names are not known.
    before, after = (replace(each, class_names=tuple(names)) for each in (before, after))
    matches = match(before, after, overlap, 'bev')
    found = matches.true_positives
    scores = before.scores.new_zeros(len(before))
    scores[found] = after.scores[matches.indices[found]].to(scores.dtype)
    return Effect(found, scores, matches.overlaps, raw)


@contextmanager
def kept_outputs(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keeps what modules give in one pass, by the names that a decomposition has for it.

    Args:
        model: The model.
        paths: Of modules that run once.

    Yields:
        Copies of all tensors (B, ...) by 'path.position', empty until the pass.

    Raises:
        InputError: From the pass, if a module runs more than once.
    """
    maps: dict[str, Tensor] = {}

    def keep(path: str, out: Any) -> None:
        found = {
            f'{path}.{name}' if name else path: each.detach().clone() for name, each in tensors(out)
        }
        if not maps.keys().isdisjoint(found):
            raise InputError(f'{path!r} ran more than once in a pass: expected one run.')
        maps.update(found)

    with ExitStack() as stack:
        for path in paths:
            hook = lambda _, __, out, path=path: keep(path, out)  # noqa: E731
            stack.callback(model.get_submodule(path).register_forward_hook(hook).remove)
        yield maps
