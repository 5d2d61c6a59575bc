"""Radar-GradCAM (Eq. 16-19 of LMD) for any modality and layer, and Seg-Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError, NotApplicableError
from ..core.session import frozen_evaluation
from .components import Components
from .linearized import LinearNetwork, check_layer
from .paths import check_paths
from .seeds import Seed
from .settings import Rules

#: What a class activation map weights: a component of LMD, or the activation itself.
WHOLE = 'all'


def class_activation_map(activation: Tensor, gradient: Tensor) -> Tensor:
    """Returns ReLU(sum_k alpha_k A_k) with alpha_k the mean gradient of channel k (Eq. 16-18).

    Args:
        activation: (..., C, Z, X): the activation for Grad-CAM, h_m for Radar-GradCAM.
        gradient: (..., C, Z, X) gradient of the score with respect to the layer (Eq. 17, 19).

    Returns:
        (..., Z, X), zero or positive.
    """
    weights = gradient.mean((-2, -1), keepdim=True)
    return (weights * activation).sum(-3).relu()


def layer_gradients(
    model: nn.Module,
    forward: Callable[[], Any],
    layers: Sequence[str],
    output: str,
    region: Callable[[Tensor], Tensor] | Tensor,
    *,
    channel: int = 0,
    linearized: bool = True,
    rules: Rules | Mapping[str, Any] | None = None,
    seeds: Sequence[Seed] = (),
) -> dict[str, Tensor]:
    """Returns the gradient of a region's score with respect to layers (Eq. 17 and 19 of LMD).

    The score is the sum of the output over the region's cells. With ``linearized`` the network is
    the one that LMD puts in its place: slopes, standard deviations, selections, attention and the
    frozen factors of products are constants (Eq. 19); without it, it is the network itself
    (Eq. 17, Seg-Grad-CAM).

    Args:
        model: Left as it is found.
        forward: Runs the model once; its result is not looked at.
        layers: Paths of modules whose output is a map (B, C, Z, X).
        output: Path of the module whose output is (B, K, Z, X).
        region: (B, Z, X) or (Z, X) bool, or a function that makes it out of the output.
        channel: Which of the K channels.
        linearized: Whether to take the linear network's gradient.
        rules: The rules of the decomposition, see ``LinearNetwork``.
        seeds: Where the decomposition starts, see ``LinearNetwork``.

    Returns:
        The gradient (B, C, Z, X) by layer. The gradient of an empty region is zero.

    Raises:
        UnknownNameError: If a module or rule does not exist.
        UnknownOperationError: If there is no rule for an operation of the linear network.
        NotApplicableError: If a layer does not run, or the output does not depend on it, or a rule
            is not linear ('separate').
        InputError: If the region does not fit the output.
    """
    check_paths(model, [*((path, 'layer') for path in layers), (output, 'output')])
    with frozen_evaluation(model), torch.inference_mode(False):
        if linearized:
            kept, value, result = _linear_network(model, forward, layers, output, rules, seeds)
        else:
            kept, value, result = _network_itself(model, forward, layers, output)
        missing = [path for path in layers if path not in kept]
        if missing or result is None or not result.requires_grad:
            raise NotApplicableError(
                f'Output {output!r} does not depend on the layers {missing or list(layers)}: '
                'expected layers that run once, before the output.'
            )
        mask = _mask(value, region)
        score = (result[:, channel] * mask).sum()
        found = torch.autograd.grad(score, list(kept.values()), allow_unused=True)
    gradients = {}
    for (path, layer), gradient in zip(kept.items(), found, strict=True):
        gradient = torch.zeros_like(layer) if gradient is None else gradient
        gradients[path] = (gradient[0] if linearized else gradient).detach()
    return gradients


def _linear_network(
    model: nn.Module,
    forward: Callable[[], Any],
    layers: Sequence[str],
    output: str,
    rules: Any,
    seeds: Sequence[Seed],
) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
    """Layers, the output's value, and its component with a graph to the layers."""
    with torch.no_grad(), LinearNetwork(model, layers, output, rules, seeds) as run:
        forward()
    return run.kept, _as_map(run.value, output), run.component


def _network_itself(
    model: nn.Module, forward: Callable[[], Any], layers: Sequence[str], output: str
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Layers, the output's value, and the output with a graph to the layers."""
    kept: dict[str, Tensor] = {}
    results: list[Any] = []
    with ExitStack() as stack:
        for path in layers:
            hook = model.get_submodule(path).register_forward_hook(_keeper(kept, path))
            stack.callback(hook.remove)
        module = model.get_submodule(output)
        hook = module.register_forward_hook(lambda _m, _i, out: results.append(out))
        stack.callback(hook.remove)
        forward()
    result = results[0] if len(results) == 1 else None
    return kept, _as_map(result, output), result


def modality_gradcams(
    captured: Mapping[str, Components],
    gradients: Mapping[str, Tensor],
    modalities: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Returns Radar-GradCAM of every modality and layer (Eq. 18; for radar the paper's).

    Eq. 18 weights A(o_c, x_r) - A(o_c, o_r) of the linear network. That is h_radar with the
    identity rules; with the others it is not, and h_m is taken.

    Args:
        captured: Decomposition of each layer, (B, C, Z, X).
        gradients: Of ``layer_gradients`` with ``linearized``.
        modalities: Which; None: all, without the bias.

    Returns:
        (B, Z, X) by '{modality} @ {layer}'.
    """
    return {
        f'{name} @ {layer}': class_activation_map(captured[layer][name], gradient)
        for layer, gradient in gradients.items()
        for name in (captured[layer].modalities if modalities is None else modalities)
    }


def _keeper(kept: dict[str, Tensor], path: str) -> Callable:
    """Returns a hook that keeps a layer's output, as a leaf if the graph begins there."""

    def keep(_module: nn.Module, _inputs: tuple, out: Any) -> Tensor:
        check_layer(path, out, kept)
        kept[path] = out if out.requires_grad else out.detach().requires_grad_()
        return kept[path].clone()  # What follows may work in place.

    return keep


def _as_map(result: Any, output: str) -> Tensor:
    if not isinstance(result, Tensor) or result.dim() != 4:
        raise NotApplicableError(
            f'Output {output!r} did not run exactly once or is no map: expected one tensor '
            '(B, channels, Z, X).'
        )
    return result.detach()


def _mask(maps: Tensor, region: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
    mask = region(maps) if callable(region) else region
    if mask.dtype != torch.bool or mask.shape[-2:] != maps.shape[-2:] or mask.dim() > 3:
        raise InputError(
            f'Expected a region (B, Z, X) or (Z, X) of bool for output {tuple(maps.shape)}, '
            f'received {tuple(mask.shape)} of {mask.dtype}.'
        )
    return mask.to(maps.device)
