"""Is the checkpoint this model's? OpenPCDet loads what fits, and only logs the rest."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...core.errors import InputError
from ..common.checkpoints import mismatch
from .host import replaced

#: Buffers that say nothing of the weights.
_IGNORED = ('global_step', 'num_batches_tracked')


@contextmanager
def checked_checkpoints(template: type, wanted: Callable[[], bool]) -> Iterator[None]:
    """Makes detectors refuse files that are no checkpoints, and weights of other models.

    Args:
        template: OpenPCDet's ``Detector3DTemplate``.
        wanted: Whether to check that the weights are the model's.
    """
    loading = checked_loading(template._load_state_dict, wanted)
    reading = checked_file(template.load_params_from_file)
    with (
        replaced(template, '_load_state_dict', loading),
        replaced(template, 'load_params_from_file', reading),
    ):
        yield


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


def checked_file(load_params_from_file: Callable) -> Callable:
    """Returns ``Detector3DTemplate.load_params_from_file`` that says what a file is to be.

    Args:
        load_params_from_file: OpenPCDet's own.
    """

    def load(self: nn.Module, filename: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return load_params_from_file(self, filename, *args, **kwargs)
        except KeyError as error:
            if error.args != ('model_state',):
                raise
            raise _no_checkpoint(filename, 'it has no "model_state"') from error
        except (pickle.UnpicklingError, EOFError) as error:
            raise _no_checkpoint(filename, str(error).split('\n')[0]) from error

    return load


def _no_checkpoint(filename: Any, reason: str) -> InputError:
    return InputError(
        f'{filename} is no checkpoint of OpenPCDet ({reason}): expected a file of its train.py or '
        'model zoo, with "model_state". Weights of MMDetection3D are converted by '
        'tools/convert_checkpoint.py SOURCE TARGET (docs/convert_checkpoint.md).'
    )
