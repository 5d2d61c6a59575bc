"""Files that a test run reads: those that cannot be read are named, clouds may be skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from mmdet3d.datasets.transforms import LoadPointsFromFile
from mmengine.logging import MMLogger

from ...core.errors import Explain3DError, InputError
from ...core.session import overridden

#: What tells files among the entries of an info file.
_PATHS = ('lidar_path', 'img_path', 'radar_path')
_NAMED = 4


@contextmanager
def readable_frames(dataset: Any, on_error: str) -> Iterator[None]:
    """Names what cannot be loaded of a data set while the context lasts.

    Args:
        dataset: A data set of MMEngine, or one that wraps others; anything else is left alone.
            Workers of a data loader that start inside do the same.
        on_error: With 'skip', a cloud that cannot be read counts as one without points; its frame
            is skipped, or predicted from other sensors.

    Raises:
        InputError: From the data set, if a frame cannot be loaded; the message names the files.
    """
    with ExitStack() as stack:
        for part in _parts(dataset):
            stack.enter_context(overridden(part, 'prepare_data', _Preparing(part)))
            steps = getattr(getattr(part, 'pipeline', None), 'transforms', ())
            for step in steps:
                if isinstance(step, LoadPointsFromFile):
                    loading = _Loading(step, on_error)
                    stack.enter_context(overridden(step, '_load_points', loading))
        yield


def _parts(dataset: Any) -> Iterator[Any]:
    """Yields the data sets that load frames, inside those that only choose among them."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for part in inner:
        if part is not None:
            yield from _parts(part)
    if hasattr(dataset, 'prepare_data') and hasattr(dataset, 'get_data_info'):
        yield dataset


class _Preparing:
    """Stands in for ``prepare_data``; a class of its own, which workers can be sent.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, index: int) -> Any:
        try:
            return type(self.dataset).prepare_data(self.dataset, index)
        except Explain3DError:
            raise
        except Exception as error:
            files = list(dict.fromkeys(_files(self.dataset.get_data_info(index))))
            more = ', ...' if len(files) > _NAMED else ''
            raise InputError(
                f'Frame {index} of the data set cannot be loaded ({type(error).__name__}: '
                f'{error}): expected readable files, {", ".join(files[:_NAMED])}{more}. Mend or '
                "fetch the file, or leave the frame out of the data set's info file "
                "(on_error='skip' needs a frame that the detector can be given)."
            ) from error


class _Loading:
    """Stands in for ``_load_points``.

    Args:
        step: The loading step of the pipeline.
        on_error: As in ``readable_frames``.
    """

    def __init__(self, step: LoadPointsFromFile, on_error: str) -> None:
        self.step, self.on_error = step, on_error

    def __call__(self, path: str) -> np.ndarray:
        reason = ''
        try:
            points = type(self.step)._load_points(self.step, path)
            if points.size % self.step.load_dim:
                reason = f'{points.size} numbers are no multiple of load_dim={self.step.load_dim}'
        except (OSError, ValueError) as error:
            reason = f'{type(error).__name__}: {error}'
        if not reason:
            return points
        message = (
            f'The point file {path} cannot be read ({reason}): expected points of '
            f'{self.step.load_dim} columns of float32. Mend or fetch the file, or leave the frame '
            "out of the data set's info file."
        )
        if self.on_error != 'skip':
            raise InputError(message)
        MMLogger.get_current_instance().error(
            f"{message} With on_error='skip' it counts as a cloud without points."
        )
        return np.zeros(0, np.float32)


def _files(info: Any) -> Iterator[str]:
    """Yields the paths in an entry of an info file, those of the sensors' data alone."""
    if isinstance(info, dict):
        for key, value in info.items():
            if key in _PATHS and value is not None:
                yield from value if isinstance(value, (list, tuple)) else [str(value)]
            else:
                yield from _files(value)
    elif isinstance(info, (list, tuple)):
        for value in info:
            if isinstance(value, (dict, list, tuple)):
                yield from _files(value)
