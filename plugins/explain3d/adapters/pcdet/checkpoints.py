"""Is the checkpoint this model's? OpenPCDet loads what fits, and only logs the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ..common.checkpoints import mismatch

#: Buffers that say nothing of the weights.
_IGNORED = ('global_step', 'num_batches_tracked')


def checked_loading(load_state_dict: Callable, wanted: Callable[[], bool]) -> Callable:
    """Returns ``Detector3DTemplate._load_state_dict`` that refuses another model's weights.

    Args:
        load_state_dict: OpenPCDet's own; it returns the model's state and the part that it took.
        wanted: Whether to check.
    """

    def load(self: nn.Module, state: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        expected, taken = result = load_state_dict(self, state, *args, **kwargs)
        left = [k for k in expected if k not in taken and not k.endswith(_IGNORED)]
        if left and wanted():
            missing = [key for key in left if key not in state]
            differing = [
                f'{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}'
                for key in left
                if key in state
            ]
            raise mismatch(
                'The checkpoint', self, missing, differing, 'EXPLAINER.CHECK_CHECKPOINT: False'
            )
        return result

    return load
