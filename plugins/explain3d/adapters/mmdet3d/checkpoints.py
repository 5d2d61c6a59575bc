"""Is the checkpoint this model's? MMEngine only warns if it is not."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ...core.capture import is_sparse_convolution
from ...core.errors import CheckpointMismatchError
from ..common.checkpoints import mismatch
from .detector import unwrap


def check_checkpoint(runner: Any) -> tuple[str, ...]:
    """Refuses a run whose checkpoint leaves parameters at their random values.

    Args:
        runner: A runner that has loaded its checkpoint. Without one there is a warning, unless the
            model's weights are trained: somebody has loaded them by hand.

    Returns:
        The names of the classes that the checkpoint was trained for, by label; empty where it
        does not say.

    Raises:
        CheckpointMismatchError: If parameters are missing from it, or have other shapes.
    """
    path = runner._load_from
    if path is None and runner._resume:  # The latest one of the work folder, of this very run.
        return ()
    if path is None:
        parts = parts_as_built(unwrap(runner.model))
        if parts:
            runner.logger.warning(
                f'No checkpoint is loaded, and the weights of {", ".join(parts)} look like those '
                'the model was built with: explanations of random weights mean nothing. Give a '
                'checkpoint, set load_from, or load the weights before the test starts.'
            )
        return ()
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    compare(unwrap(runner.model), checkpoint.get('state_dict', checkpoint), str(path))
    return classes_in(checkpoint)


def parts_as_built(model: nn.Module) -> list[str]:
    """Returns the names of a model's parts whose normalisations are as they were built.

    Training changes the scale, the shift or the statistics of a normalisation, which all begin at
    the same values. A model without any normalisation is returned as a whole, by its class: nothing
    is known of it.

    Args:
        model: The model, without wrappers.
    """
    fresh, known = [], False
    for name, part in model.named_children():
        norms = [module for module in part.modules() if _normalises(module)]
        known |= bool(norms)
        if norms and all(map(_is_as_built, norms)):
            fresh.append(name)
    return fresh if known else [type(model).__name__]


def _normalises(module: nn.Module) -> bool:
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    return isinstance(module, kinds) and bool(module.state_dict())


def _is_as_built(norm: nn.Module) -> bool:
    first = {'weight': 1, 'bias': 0, 'running_mean': 0, 'running_var': 1, 'num_batches_tracked': 0}
    return all(bool((v == first.get(k, 0)).all()) for k, v in norm.state_dict().items())


def classes_in(checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the classes that a checkpoint's meta information holds, by label."""
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get('dataset_meta')
    data = data if isinstance(data, Mapping) else {}
    names = data.get('classes') or data.get('CLASSES') or meta.get('CLASSES') or ()
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else ()


class CheckpointWatch:
    """Remembers whether what was loaded last into a model fits it.

    A checkpoint that does not fit is not refused when it is loaded, which training from another
    model's weights does on purpose, but when ``check`` is called.

    Args:
        model: The detector; nothing of it is kept alive.
    """

    def __init__(self, model: nn.Module) -> None:
        self._error: CheckpointMismatchError | None = None
        self._model = weakref.ref(model)
        # The public form of this came with torch 2.5.
        model._register_load_state_dict_pre_hook(self._before_loading, with_module=True)

    def check(self) -> None:
        """Refuses a model whose last checkpoint left parameters at their random values.

        Raises:
            CheckpointMismatchError: If it did.
        """
        if self._error is not None:
            raise self._error

    def _before_loading(
        self, model: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any
    ) -> None:
        if prefix or model is not self._model():
            return  # Part of a larger model, or a copy.
        try:
            compare(model, state, 'The checkpoint')
            self._error = None
        except CheckpointMismatchError as error:
            self._error = error


def compare(model: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Compares a model with the state dict that was loaded into it.

    Args:
        model: The detector.
        state: Parameters and buffers by name; a leading ``module.`` is ignored.
        path: Where it comes from, for the message.

    Raises:
        CheckpointMismatchError: If a parameter or buffer is missing or has another shape.
    """
    known = {name.removeprefix('module.'): value for name, value in state.items()}
    permuted = _permuted_weights(model, getattr(state, '_metadata', None) or {})
    missing, differing = [], []
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or name.endswith('num_batches_tracked'):
            continue
        if name not in known:
            missing.append(name)
            continue
        shape = tuple(known[name].shape)
        loaded = (*shape[-1:], *shape[:-1]) if name in permuted else shape
        if loaded != tuple(value.shape):
            differing.append(f'{name} {shape} for {tuple(value.shape)}')
    if not missing and not differing:
        return
    layout = (
        'Sparse weights without version information are taken for those of spconv 1: keep the '
        '_metadata of model.state_dict() when a checkpoint is converted. '
        if any(name.split(' ')[0] in permuted for name in differing)
        else ''
    )
    raise mismatch(path, model, missing, differing, 'check_checkpoint=False', layout)


def _permuted_weights(model: nn.Module, metadata: Mapping[str, dict]) -> set[str]:
    """Names of the weights that MMDetection3D takes for spconv 1's, and permutes when it loads."""
    return {
        f'{name}.weight'
        for name, module in model.named_modules()
        if is_sparse_convolution(module)
        and getattr(module, '_version', None) == 2
        and metadata.get(name, {}).get('version') != 2
    }
