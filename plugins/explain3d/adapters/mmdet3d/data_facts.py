"""What a data set of MMDetection3D says of its frames before the first one is loaded."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core.results_settings import fingerprint
from ..common.data_facts import UNKNOWN, DataFacts
from ..common.frame_names import name_of_path, parts_needed, repeated_names
from .frames import NAMES, is_path, text_of

_LOG = logging.getLogger('explain3d')


def facts_of(dataset: Any, key: str | None = None) -> DataFacts:
    """Returns what a data set says of its frames.

    Args:
        dataset: Anything; what has no ``get_data_info`` says little.
        key: Entry of the meta information that names a frame; None: the first of ``frames.NAMES``.
    """
    known = DataFacts(
        count=len(dataset) if hasattr(dataset, '__len__') else None,
        classes=tuple((getattr(dataset, 'metainfo', None) or {}).get('classes') or ()),
        kind=kind_of(dataset),
        key=key,
    )
    infos = _infos(dataset)
    if infos is None:
        return known
    named = [_named(info, key) for info in infos]
    if all(entry is not None and is_path(entry[0]) for entry in named):
        paths = [str(value) for _, value in named]
        parts = parts_needed(paths)
        names: list[str | None] = [name_of_path(path, parts) for path in paths]
    else:
        parts, names = 1, [entry and text_of(*entry) for entry in named]
    frames = [info.get('lidar_path') or info.get('img_path') or i for i, info in enumerate(infos)]
    some = [(name, str(f)) for name, f in zip(names, frames, strict=True) if name is not None]
    return DataFacts(
        count=known.count,
        parts=parts,
        repeated=repeated_names([n for n, _ in some], [f for _, f in some]),
        names=tuple(names),
        annotated=_any_annotated(infos),
        classes=known.classes,
        kind=known.kind,
        key=key,
    )


def kind_of(dataset: Any) -> dict[str, Any]:
    """Returns what kind of data a data set has, wherever it lies: its class, folder of points."""
    if dataset is None:
        return {}
    parts = getattr(dataset, 'datasets', None)
    if isinstance(parts, (list, tuple)):
        return {'data sets': [kind_of(part) for part in parts]}
    inner = getattr(dataset, 'dataset', None)
    if inner is not None:
        return kind_of(inner)
    prefix, root = getattr(dataset, 'data_prefix', None), getattr(dataset, 'data_root', None)
    if not isinstance(prefix, Mapping):
        return {}
    folder = prefix.get('pts')
    if not isinstance(folder, str) or not folder or '://' in folder:
        return {'data set': type(dataset).__name__}
    return {'data set': type(dataset).__name__, 'points': os.path.relpath(folder, root or '.')}


def annotation_digest(dataset: Any) -> str | None:
    """Returns a digest of a data set's annotation: data made anew has the same configuration.

    That of the annotation file where there is one, else that of what the data set holds of each
    frame; None where neither is known.
    """
    parts = getattr(dataset, 'datasets', None)
    if isinstance(parts, (list, tuple)):
        found = [annotation_digest(part) for part in parts]
        return None if None in found else fingerprint({'parts': found})
    path = getattr(dataset, 'ann_file', None)
    if isinstance(path, (str, os.PathLike)) and os.path.isfile(path):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    infos = _infos(dataset)
    return None if infos is None else fingerprint({'frames': [_plain(info) for info in infos]})


def _infos(dataset: Any) -> list[Mapping[str, Any]] | None:
    """Returns what a data set knows of each frame without loading it, None if it does not say."""
    if not hasattr(dataset, 'get_data_info') or not hasattr(dataset, '__len__'):
        return None
    try:
        found = [dataset.get_data_info(i) for i in range(len(dataset))]
    except Exception as error:  # noqa: BLE001 - a data set of the user's
        _LOG.info('The data set does not tell of its frames beforehand: %s', error)
        return None
    return found if all(isinstance(info, Mapping) for info in found) else None


def _named(info: Mapping[str, Any], key: str | None) -> tuple[str, Any] | None:
    names = NAMES if key is None else (key,)
    return next(((name, info[name]) for name in names if info.get(name) is not None), None)


def _any_annotated(infos: list[Mapping[str, Any]]) -> bool | None:
    unknown = True
    for info in infos:
        found = _objects(info)
        if found:
            return True
        unknown = unknown and found is None
    return None if unknown else False


def _objects(info: Mapping[str, Any]) -> int | None:
    """The number of a frame's annotated objects of known classes, None where it is not known."""
    annotation = info.get('eval_ann_info') or info.get('ann_info')
    if isinstance(annotation, Mapping) and annotation.get('gt_labels_3d') is not None:
        return int((np.asarray(annotation['gt_labels_3d']) >= 0).sum())
    if isinstance(info.get('vehicles'), Mapping):
        return len(info['vehicles'].get('size', ()))
    instances = info.get('instances')
    return len(instances) if isinstance(instances, (list, tuple)) else None


def _plain(value: Any) -> Any:
    """Returns what a data set knows of a frame as plain data; boxes of the host by their tensor."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, 'tensor'):
        return value.tensor
    plain = value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.generic))
    return value if plain else str(type(value))


__all__ = ['UNKNOWN', 'annotation_digest', 'facts_of', 'kind_of']
