"""The linear network that LMD puts in place of a network, with a graph: its gradients (Eq. 19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import NotApplicableError
from .decomposition import Decomposition
from .rows import Rows
from .seeds import Seed
from .settings import Rules
from .twin import Carried, Twin

#: The one component there is: what depends on the seeds and layers, whosever it is.
ACTIVATION = 'activation'


class LinearNetwork(Decomposition):
    """Runs a network within the engine such that gradients flow through the components.

    By the rules of the decomposition every operation is a linear map of the components, with
    slopes, standard deviations, selections, attention and the frozen factors of products as
    constants. That map is the network F^ of Eq. 19: whatever the engine has a rule for, its
    gradient is the gradient of what the engine computes. The components of all modalities go
    through the same map, hence one is enough. How an activation shares out the bias moves parts of
    the activation between components and does not change the map of their sum: ``bias_split`` is
    left aside.

    Args:
        model: The network in eval mode.
        layers: Paths of modules; the gradient is with respect to their outputs.
        output: Path of the module at whose output the score is taken.
        rules: Rules of the decomposition, or a dict of them, ``per_module`` included.
        seeds: Where the decomposition starts. Behind them factors of products count as decomposed,
            on which the choice of the frozen one depends. Without any, layers are the start.

    Attributes:
        kept: (1, *shape) the component at each layer that has run, a node of the graph.
        value: The network's own output, or None before it has run.
        component: That of the output, with its graph; None if it does not depend on anything.

    Raises:
        UnknownNameError: If a module or rule does not exist.
    """

    differentiable = True
    least_modalities = 1

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        output: str,
        rules: Rules | Mapping[str, Any] | None = None,
        seeds: Sequence[Seed] = (),
    ) -> None:
        none = dict.fromkeys(('split', 'intervals', 'channel'))
        whole = [replace(seed, modality=ACTIVATION, **none) for seed in seeds]
        self._layers = tuple(layers)
        super().__init__(
            model,
            [*whole, *(Seed(path, at='output', modality=ACTIVATION) for path in layers)],
            [output],
            _without_splitting(Rules.from_config(rules)),
        )

    def _start(self) -> None:
        super()._start()
        self.kept: dict[str, Tensor] = {}
        self.value: Tensor | None = None
        self.component: Tensor | None = None

    def _after(self, path: str, out: Any) -> Any:
        if path in self._layers:
            check_layer(path, out, self.kept)
        return super()._after(path, out)

    def _seed(self, seed: Seed, value: Tensor) -> Tensor:
        if seed.at == 'input' or seed.module not in self._layers:
            return super()._seed(seed, value)
        with torch._C.DisableTorchFunctionSubclass(), torch.enable_grad():
            if isinstance(value, Carried):
                row = value._twin.rows(value).select((0,)).stack
                kept = row.clone() if row.requires_grad else row.clone().requires_grad_()
            else:
                value = value.view_as(value)
                kept = value.detach().clone()[None].requires_grad_()
            # What follows may work in place, on a copy.
            rows = Rows((0,), kept.clone())
            if isinstance(value, Carried):
                value._twin.write(value, rows)
            else:
                self.carry(value, Twin(self, value, rows))
        self.kept[seed.module] = kept
        return value

    def _keep_output(self, name: str, output: Any, count: int, out: Any) -> None:
        if count or not isinstance(out, Tensor):
            raise NotApplicableError(
                f'Output {name!r} ran {count + 1} times or is no map: expected one tensor '
                '(B, channels, Z, X).'
            )
        with torch._C.DisableTorchFunctionSubclass(), torch.enable_grad():
            self.value = out.detach().as_subclass(Tensor).clone()
            if isinstance(out, Carried):
                rows = out._twin.rows(out)
                self.component = rows.stack[rows.ids.index(0)] if 0 in rows.ids else None

    def _check_complete(self) -> None:
        """Leaves it to the caller to say what has not run."""


def check_layer(path: str, out: Any, kept: Mapping[str, Any]) -> None:
    """Refuses a layer whose output is no map, or that has run before.

    Raises:
        NotApplicableError: If so.
    """
    if not isinstance(out, Tensor) or out.dim() != 4:
        raise NotApplicableError(
            f'Layer {path!r} gives {type(out).__name__}: expected a map (B, C, Z, X).'
        )
    if path in kept:
        raise NotApplicableError(f'Layer {path!r} runs more than once: expected one run.')


def _without_splitting(rules: Rules) -> Rules:
    overrides = {
        pattern: {family: rule for family, rule in each.items() if family != 'bias_split'}
        for pattern, each in rules.per_module.items()
    }
    return replace(rules, bias_split='identity', per_module=overrides)
