"""Batches of MMDetection3D out of what users give: point files, points, items of data sets."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ...core.errors import InputError
from ..common.point_columns import PointColumns
from ..common.point_files import read_points


def batches_of(model: nn.Module, data: Any) -> tuple[Iterator[dict], bool]:
    """Returns collated batches, made one by one, and whether the user gave several frames.

    Args:
        model: The detector; points need its configuration (``model.cfg``).
        data: A point file, points, an item of the data set, or a sequence of these; or a collated
            batch.

    Raises:
        InputError: If it is none of these, or, from the iterator, a file cannot be read.
    """
    if isinstance(data, Mapping):
        batch, one = collated(model, data)
        return iter([batch]), not one
    if isinstance(data, (list, tuple)):
        return (_batch_of(model, one, index) for index, one in enumerate(data)), True
    return iter([_batch_of(model, data, 0)]), False


def collated(model: nn.Module, data: Any) -> tuple[dict, bool]:
    """Returns a collated batch, and whether it was made of one item.

    Args:
        model: For messages.
        data: An item of a data set or a collated batch.

    Raises:
        InputError: If it is neither.
    """
    if not isinstance(data, Mapping) or not {'inputs', 'data_samples'} <= set(data):
        keys = sorted(map(str, data)) if isinstance(data, Mapping) else ''
        raise InputError(
            'Expected an item of a data set or a collated batch, a dict with "inputs" and '
            f'"data_samples", for {type(model).__name__}, received {type(data).__name__}{keys}.'
        )
    one = not isinstance(data['data_samples'], (list, tuple))
    return (pseudo_collate([data]) if one else dict(data)), one


def _batch_of(model: nn.Module, data: Any, index: int) -> dict:
    """Returns a batch of one frame; points without a name get a number."""
    if isinstance(data, Mapping):
        batch, one = collated(model, data)
        if not one:
            raise InputError(
                'Expected files, points or items of a data set in a sequence, received a collated '
                'batch: give batches one by one.'
            )
        return batch
    if isinstance(data, (str, os.PathLike)):
        path = os.fspath(data)
        return _prepared(model, path, lambda loader: _file(path, loader))
    if isinstance(data, (np.ndarray, Tensor)):
        name = f'frame_{index:06d}'
        return _prepared(
            model, name, lambda loader: _columns_of(loader).checked(data, 'The points')
        )
    raise InputError(
        'Expected a point file, an array or a tensor of points, an item of the data set or a '
        f'collated batch, received {type(data).__name__}.'
    )


def _file(path: str, loader: Any) -> np.ndarray:
    try:
        content = fileio.get(path, backend_args=loader.backend_args)
    except OSError as error:
        raise InputError(
            f'The point file {path} cannot be read ({error.strerror or error}): expected a file. '
            'Look at the path; a relative one begins in the working directory.'
        ) from error
    return read_points(bytes(content), path, _columns_of(loader))


def _columns_of(loader: Any) -> PointColumns:
    return PointColumns(loader.load_dim, f'load_dim of {type(loader).__name__}')


def _from_files(pipeline: list) -> list:
    """Returns a test pipeline that begins with files.

    ``mmdet3d.apis.inference_detector``, once it was given an array, leaves a first step in the
    model's configuration that takes arrays as they are, columns and intensity included.
    """
    kind = pipeline[0]['type'] if pipeline else ''
    if getattr(kind, '__name__', kind).rpartition('.')[2] == 'LoadPointsFromDict':
        pipeline[0]['type'] = 'mmdet3d.LoadPointsFromFile'
    return pipeline


def _prepared(model: nn.Module, path: str, points: Callable[[Any], np.ndarray]) -> dict:
    """Returns a batch as the test pipeline makes it of a point file.

    Whatever the points come from, they go through the pipeline's own loading step: choice of
    columns and normalisation of the intensity are the same for files and arrays.

    Args:
        model: The detector, with its configuration.
        path: What the frame is called.
        points: Returns the content of the file, given the loading step.
    """
    from mmdet3d.datasets.transforms import LoadPointsFromFile
    from mmdet3d.structures import get_box_type

    if not hasattr(model, 'cfg'):
        raise InputError(
            f'{type(model).__name__} has no configuration (model.cfg): expected a detector of '
            'mmdet3d.apis.init_model, or an item of a data set or a collated batch for data.'
        )
    dataset = model.cfg.test_dataloader.dataset
    with DefaultScope.overwrite_default_scope(model.cfg.get('default_scope', 'mmdet3d')):
        pipeline = Compose(_from_files(copy.deepcopy(dataset.pipeline)))
    loader = pipeline.transforms[0]
    if not isinstance(loader, LoadPointsFromFile):
        raise InputError(
            f'The test pipeline begins with {type(loader).__name__}: expected LoadPointsFromFile '
            'where points alone are given. Give an item of the data set: '
            'mmdet3d.registry.DATASETS.build(model.cfg.test_dataloader.dataset)[0].'
        )
    found = points(loader)
    loader._load_points = lambda _path: found
    box_type, box_mode = get_box_type(dataset.get('box_type_3d', 'LiDAR'))
    entry = dict(
        lidar_points=dict(lidar_path=path),
        timestamp=1,  # As mmdet3d.apis.inference_detector has these.
        axis_align_matrix=np.eye(4),
        box_type_3d=box_type,
        box_mode_3d=box_mode,
    )
    with DefaultScope.overwrite_default_scope(model.cfg.get('default_scope', 'mmdet3d')):
        return pseudo_collate([pipeline(entry)])
