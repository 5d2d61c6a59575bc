"""Files that an evaluation reads: those that cannot be read are named, clouds may be skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from ...core.errors import Explain3DError, InputError
from ...core.session import overridden
from .host import replaced

#: What OpenPCDet's data sets call the methods that read a cloud.
_CLOUDS = ('get_lidar', 'get_lidar_with_sweeps')
_REMEDY = (
    'Mend or fetch the file, or leave the frame out of the info file that OpenPCDet made of the '
    'data set.'
)


@contextmanager
def readable_frames(dataset: Any, on_error: str, logger: Any) -> Iterator[None]:
    """Names what cannot be loaded of a data set while the context lasts.

    Workers of a data loader that are forked inside do the same.

    Args:
        dataset: A data set of OpenPCDet; None is left alone.
        on_error: With 'skip', a cloud that cannot be read counts as one without points, and its
            frame is skipped.
        logger: Is told of clouds that are skipped.

    Raises:
        InputError: From the data set, if a frame cannot be loaded; the message names it.
    """
    with ExitStack() as stack:
        for name in _CLOUDS:
            if hasattr(dataset, name):
                reading = _reading(dataset, name, on_error, logger)
                stack.enter_context(overridden(dataset, name, reading))
        if hasattr(dataset, 'dataset_cfg'):
            # Python looks this method up on the class alone.
            owner = next(c for c in type(dataset).__mro__ if '__getitem__' in vars(c))
            loading = _loading(vars(owner)['__getitem__'])
            stack.enter_context(replaced(owner, '__getitem__', loading))
        yield


def _reading(dataset: Any, name: str, on_error: str, logger: Any) -> Callable:
    host = getattr(dataset, name)

    def read(*args: Any, **kwargs: Any) -> Any:
        try:
            return host(*args, **kwargs)
        except Exception as error:
            what = ', '.join(map(repr, args))
            message = (
                f'The cloud of frame {what} in {getattr(dataset, "root_path", "the data set")} '
                f'cannot be read ({type(error).__name__}: {error}): expected a complete file. '
                f'{_REMEDY}'
            )
            if on_error != 'skip':
                raise InputError(message) from error
            logger.error(f"{message} With ON_ERROR 'skip' it counts as a cloud without points.")
            return np.zeros((0, len(columns_of(dataset))), np.float32)

    return read


def _loading(host: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    def load(self: Any, index: int) -> Any:
        try:
            return host(self, index)
        except Explain3DError:
            raise
        except Exception as error:
            raise InputError(
                f'Frame {index} of the data set in {getattr(self, "root_path", "?")} cannot be '
                f'loaded ({type(error).__name__}: {error}): expected readable files. {_REMEDY}'
            ) from error

    return load


def columns_of(dataset: Any) -> tuple[str, ...]:
    """Returns the names of the columns of points that a data set gives to ``prepare_data``."""
    # The encoder's own list, where there is one: data sets of sequences add the time to it.
    names = getattr(dataset.point_feature_encoder, 'src_feature_list', None)
    if names is None:
        names = dataset.dataset_cfg.POINT_FEATURE_ENCODING.src_feature_list
    return tuple(names)
