"""What a data set of OpenPCDet says of its frames before the first one is loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.results_settings import fingerprint
from ..common.data_facts import DataFacts
from ..common.frame_names import repeated_names
from .frames import name_of

#: Entries of an info that hold annotations, and those that say where to find them.
_ANNOTATION = ('annos', 'gt_boxes', 'gt_names')
_ELSEWHERE = ('cuboids', 'label', 'anno')


def facts_of(dataset: Any) -> DataFacts:
    """Returns what a data set says of its frames.

    Args:
        dataset: A data set of OpenPCDet, or anything else, which says little.
    """
    known = DataFacts(
        count=len(dataset) if hasattr(dataset, '__len__') else None,
        classes=tuple(getattr(dataset, 'class_names', None) or ()),
        kind=kind_of(dataset),
    )
    infos = infos_of(dataset)
    if infos is None:
        return known
    names = names_of(dataset, infos)
    frames = [_file(info) or i for i, info in enumerate(infos)]
    some = [(name, str(f)) for name, f in zip(names, frames, strict=True) if name is not None]
    return DataFacts(
        count=known.count,
        repeated=repeated_names([n for n, _ in some], [f for _, f in some]),
        names=tuple(names),
        annotated=_any_annotated(infos, known.classes),
        classes=known.classes,
        kind=known.kind,
    )


def kind_of(dataset: Any) -> dict[str, Any]:
    """Returns what kind of data a data set has, wherever it lies: its class and its split."""
    split = getattr(dataset, 'split', None)
    if dataset is None or not isinstance(split, str):
        return {}
    return {'data set': type(dataset).__name__, 'split': split}


def infos_of(dataset: Any) -> Sequence[Mapping[str, Any]] | None:
    """Returns what a data set knows of each frame, None if it does not say.

    OpenPCDet calls it ``infos``, ``kitti_infos``, ``once_infos`` and so on.
    """
    if not hasattr(dataset, '__dict__') or not hasattr(dataset, '__len__'):
        return None
    for name in sorted(vars(dataset)):
        value = vars(dataset)[name]
        if not name.endswith('infos') or not isinstance(value, (list, tuple)):
            continue
        if len(value) == len(dataset) and all(isinstance(info, Mapping) for info in value):
            return value if value else None
    return None


def names_of(dataset: Any, infos: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Returns the name of each frame as its item will have it, None where it is not known."""
    listed = getattr(dataset, 'sample_id_list', None)
    names = []
    for index, info in enumerate(infos):
        cloud = info.get('point_cloud')
        cloud = cloud if isinstance(cloud, Mapping) else {}
        found = name_of(info) or name_of({'frame_id': cloud.get('lidar_idx')})
        if found is None and isinstance(info.get('lidar_path'), (str, os.PathLike)):
            found = Path(info['lidar_path']).stem
        if found is None and isinstance(listed, (list, tuple)) and len(listed) == len(infos):
            found = str(listed[index])
        names.append(found)
    return names


def annotation_digest(dataset: Any) -> str | None:
    """Returns a digest of a data set's info files: data made anew has the same configuration.

    Where it names no such files, that of what the data set holds of each frame; None where it
    holds nothing.
    """
    digest, files = hashlib.sha256(), list(_info_files(dataset))
    for path in files:
        digest.update(path.read_bytes())
    if files:
        return digest.hexdigest()
    infos = infos_of(dataset)
    return None if infos is None else fingerprint({'frames': [_plain(info) for info in infos]})


def _info_files(dataset: Any) -> Iterator[Path]:
    config, mode = getattr(dataset, 'dataset_cfg', None), getattr(dataset, 'mode', 'test')
    named = (config or {}).get('INFO_PATH') or {}
    root = Path(getattr(dataset, 'root_path', None) or '.')
    for name in named.get(mode, ()) if isinstance(named, Mapping) else ():
        if (root / name).is_file():
            yield root / name


def _file(info: Mapping[str, Any]) -> str | None:
    path = info.get('lidar_path')
    return str(path) if isinstance(path, (str, os.PathLike)) else None


def _any_annotated(infos: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> bool | None:
    """Whether any frame has an object of the classes.

    None where infos do not hold annotations, or objects of other names alone, which a data set may
    give the names of classes when it loads them.
    """
    objects = [_objects(info) for info in infos]
    if any(names is True or not set(names).isdisjoint(classes) for names in objects if names):
        return True
    here = any(key in info for info in infos for key in _ANNOTATION)
    elsewhere = any(word in str(key) for info in infos for key in info for word in _ELSEWHERE)
    return None if any(objects) or (elsewhere and not here) else False


def _objects(info: Mapping[str, Any]) -> set[str] | bool:
    """The names of a frame's annotated objects; whether there are any where they have no names."""
    annotation = info.get('annos')
    annotation = annotation if isinstance(annotation, Mapping) else {}
    names = annotation.get('name', info.get('gt_names'))
    if names is not None:
        return set(map(str, names)) - {'DontCare'}
    boxes = annotation.get('gt_boxes_lidar', info.get('gt_boxes'))
    return boxes is not None and len(boxes) > 0


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in 'OUS':
        return [str(item) for item in value.ravel()]
    plain = value is None or isinstance(value, (bool, int, float, str, np.ndarray, np.generic))
    return value if plain else str(value)
