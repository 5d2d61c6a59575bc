"""An explanation, or another kind of result, as named arrays, and back."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, ResultFileError
from .results_archive import Arrays
from .results_check import (
    ArrayCheck,
    check_keys,
    check_names,
    check_texts,
    class_count,
    seal,
)
from .results_settings import fingerprint, plain
from .structures import Detections, Explanation, Maps

FORMAT = 'explain3d.explanation'
#: Raised by one when a reader of the older version would misunderstand the file.
FORMAT_VERSION = 1
#: Formats of other results, and the module that encodes and decodes each; loaded when one is met.
OTHER_FORMATS = {
    'explain3d.decomposition': 'explain3d.lmd.frame_codec',
    'explain3d.sensor_shares': 'explain3d.lmd.detections_codec',
}
#: What the metadata of every format hold.
_KEYS = {
    'frame_id': str,
    'settings': dict,
    'settings_sha256': str,
    'versions': dict,
    'info': dict,
    'arrays': list,
}


def encode(explanation: Explanation, saliency_dtype: str = 'float32') -> Arrays:
    """Returns the arrays of a result file; docs/results.md describes each.

    Nothing refers to the explanation's own memory on an accelerator afterwards.

    Args:
        explanation: K detections, T targets, N points, on any device; or a result of another kind,
            such as ``lmd.frame.FrameDecomposition``.
        saliency_dtype: ``'float32'``, exact, or ``'float16'``: each map is divided by its maximum
            first, so that the error is below 2^-11 of a value or 2^-25 of the map's maximum,
            whichever is larger, at any scale.

    Raises:
        InputError: If shapes disagree, or a map is not finite.
    """
    if explanation.kind != Explanation.kind:
        codec = importlib.import_module(OTHER_FORMATS[f'explain3d.{explanation.kind}'])
        return codec.encode(explanation, saliency_dtype)
    if saliency_dtype not in ('float32', 'float16'):
        raise InputError(f"saliency_dtype is {saliency_dtype!r}: expected 'float32' or 'float16'.")
    _check_shapes(explanation)
    maps = explanation.maps
    arrays = {'points': _array(explanation.points), **_boxes(explanation.detections)}
    saliency = _stack(explanation)
    for target, values in zip(explanation.targets, saliency, strict=True):
        _check_finite(explanation, f'saliency of target {target!r}', values)
    arrays |= _half_or_full('saliency', saliency, saliency_dtype)
    if maps.global_map is not None:
        arrays['global_map'] = _array(maps.global_map)
        _check_finite(explanation, 'global map', arrays['global_map'])
    if maps.concepts is not None:
        concepts = _array(maps.concepts)
        _check_finite(explanation, 'concepts', concepts)
        arrays |= _half_or_full('concepts', concepts, 'float16')
    if explanation.ground_truth is not None:
        arrays |= _boxes(explanation.ground_truth, 'ground_truth_')
    if explanation.detection_indices is not None:
        arrays['detection_indices'] = _array(explanation.detection_indices)
    meta = _metadata(explanation)
    try:
        _check(meta, arrays)
    except ResultFileError as error:
        raise InputError(
            f'Frame {explanation.frame_id!r} cannot be written: {error}. Nothing was written.'
        ) from error
    return seal(meta, arrays)


def decode(arrays: Arrays) -> Explanation:
    """Returns the explanation that ``encode`` was given, on the CPU.

    Raises:
        ResultFileError: If the arrays are not those of a result file of a known version, or do
            not fit each other.
    """
    if 'metadata' not in arrays:
        raise ResultFileError('it was not written by explain3d')
    meta = decode_metadata(arrays['metadata'])
    check_names(meta, arrays)
    if meta['format'] != FORMAT:
        return importlib.import_module(OTHER_FORMATS[meta['format']]).decode(meta, arrays)
    _check(meta, arrays)
    saliency = _restore('saliency', arrays)
    return Explanation(
        frame_id=meta['frame_id'],
        points=_tensor(arrays['points']),
        detections=_detections(arrays, meta['class_names']),
        maps=Maps(
            saliency=dict(zip(meta['targets'], saliency, strict=True)),
            global_map=_tensor(arrays.get('global_map')),
            concepts=_restore('concepts', arrays),
            info=meta['info'],
        ),
        method=meta['method'],
        ground_truth=(
            _detections(arrays, meta['ground_truth_class_names'], 'ground_truth_')
            if meta['ground_truth_class_names'] is not None
            else None
        ),
        detection_indices=_tensor(arrays.get('detection_indices')),
        settings=meta['settings'],
        versions=meta['versions'],
    )


def decode_metadata(array: np.ndarray) -> dict[str, Any]:
    """Returns the metadata of a result file.

    Raises:
        ResultFileError: If it is not ours, or of a version that is not known here.
    """
    meta = json.loads(array.tobytes())
    if not isinstance(meta, dict) or meta.get('format') not in (FORMAT, *OTHER_FORMATS):
        raise ResultFileError('it was not written by explain3d')
    if meta.get('version') != FORMAT_VERSION:
        raise ResultFileError(
            f'it has format version {meta.get("version")!r}, this explain3d reads {FORMAT_VERSION}'
        )
    check_keys(meta, _KEYS)
    check_texts(meta, 'arrays')
    if fingerprint(meta['settings']) != meta['settings_sha256']:
        raise ResultFileError('its settings are not those that were written')
    return meta


def _check(meta: dict[str, Any], arrays: Arrays) -> None:
    """Raises ResultFileError unless metadata and arrays fit each other."""
    check_keys(meta, {'method': str, 'ground_truth_class_names': (list, type(None))})
    check_keys({'class_counts': {}, **meta}, {'class_counts': dict})
    check_texts(meta, 'targets')
    check_texts(meta, 'class_names', different=False)
    check = ArrayCheck(arrays, T=len(meta['targets']))
    check('points', ('N', 'P'), 'fiu')
    counts = meta.get('class_counts', {})
    check.boxes('K', counts.get('detections'))
    names = ['points', 'boxes', 'scores', 'labels', 'saliency']
    names += _check_map(check, 'saliency', ('T', 'K', 'N'))
    if 'global_map' in arrays:
        check('global_map', ('N',))
    if 'concepts' in arrays:
        names += _check_map(check, 'concepts', ('R', 'N'))
    if 'detection_indices' in arrays:
        check('detection_indices', ('K',), 'iu', low=0)
    if meta['ground_truth_class_names'] is not None:
        check_texts(meta, 'ground_truth_class_names', different=False)
        check.boxes('G', counts.get('ground_truth'), 'ground_truth_')
        names += [f'ground_truth_{name}' for name in ('boxes', 'scores', 'labels')]
    check.only([*names, 'global_map', 'concepts', 'detection_indices'])


def _check_map(check: ArrayCheck, name: str, shape: tuple[str, ...]) -> list[str]:
    """Checks values and, where these are halves of it, their maximum; returns its name."""
    if check(name, shape).dtype != np.float16:
        return []
    check(f'{name}_scale', shape[:-1], low=0)
    return [f'{name}_scale']


def _metadata(explanation: Explanation) -> dict[str, Any]:
    truth = explanation.ground_truth
    return {
        'format': FORMAT,
        'version': FORMAT_VERSION,
        'frame_id': explanation.frame_id,
        'method': explanation.method,
        'targets': list(explanation.targets),
        'class_names': list(explanation.detections.class_names),
        'ground_truth_class_names': None if truth is None else list(truth.class_names),
        'class_counts': {
            name: class_count(found.class_names, found.labels)
            for name, found in (('detections', explanation.detections), ('ground_truth', truth))
            if found is not None
        },
        'settings': plain(explanation.settings),
        'settings_sha256': fingerprint(explanation.settings),
        'versions': plain(explanation.versions, 'versions'),
        'info': plain(explanation.maps.info, 'info'),
    }


def _check_shapes(explanation: Explanation) -> None:
    """Raises InputError unless all shapes agree."""
    maps, truth = explanation.maps, explanation.ground_truth
    n, k = len(explanation.points), len(explanation.detections)
    wanted = [('points', explanation.points, (n, None))]
    wanted += _detection_shapes('detections', explanation.detections)
    wanted += [(f'saliency of target {t!r}', m, (k, n)) for t, m in maps.saliency.items()]
    wanted += [('global map', maps.global_map, (n,)), ('concepts', maps.concepts, (None, n))]
    wanted += [('detection indices', explanation.detection_indices, (k,))]
    if truth is not None:
        wanted += _detection_shapes('ground truth', truth)
    for name, tensor, shape in wanted:
        if tensor is None:
            continue
        fits = tensor.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            expected = ', '.join('*' if size is None else str(size) for size in shape)
            raise InputError(
                f'Frame {explanation.frame_id!r}: the {name} has the shape '
                f'{tuple(tensor.shape)}: expected ({expected}) for {k} detections and {n} points.'
            )


def _detection_shapes(name: str, detections: Detections) -> list[tuple]:
    k = len(detections)
    return [
        (f"{name}' boxes", detections.boxes, (k, 7)),
        (f"{name}' scores", detections.scores, (k,)),
        (f"{name}' labels", detections.labels, (k,)),
    ]


def _check_finite(explanation: Explanation, name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError(
            f'Frame {explanation.frame_id!r}: the {name} of {explanation.method} holds values '
            'that are not finite: expected finite ones. Nothing was written; find out which step '
            'of the method makes them.'
        )


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.numpy()


def _tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def _stack(explanation: Explanation) -> np.ndarray:
    """(T, K, N) float32 saliency."""
    maps = [m.detach().float() for m in explanation.maps.saliency.values()]
    if not maps:
        return np.zeros((0, len(explanation.detections), len(explanation.points)), np.float32)
    return torch.stack(maps).cpu().numpy()


def _half_or_full(name: str, values: np.ndarray, dtype: str) -> Arrays:
    """``values`` (..., N) as they are, or as halves of each row's maximum beside that maximum."""
    values = values.astype(np.float32, copy=False)
    if dtype == 'float32':
        return {name: values}
    scale = np.abs(values).max(-1, initial=0.0)
    divisor = np.where(scale > 0, scale, 1)[..., None]
    return {name: (values / divisor).astype(np.float16), f'{name}_scale': scale}


def _restore(name: str, arrays: Arrays) -> Tensor | None:
    values, scale = _tensor(arrays.get(name)), _tensor(arrays.get(f'{name}_scale'))
    return values if scale is None else values.float() * scale[..., None]


def _boxes(detections: Detections, prefix: str = '') -> Arrays:
    return {
        f'{prefix}boxes': _array(detections.boxes),
        f'{prefix}scores': _array(detections.scores),
        f'{prefix}labels': _array(detections.labels),
    }


def _detections(arrays: Arrays, class_names: list[str], prefix: str = '') -> Detections:
    return Detections(
        boxes=_tensor(arrays[f'{prefix}boxes']),
        scores=_tensor(arrays[f'{prefix}scores']),
        labels=_tensor(arrays[f'{prefix}labels']),
        class_names=tuple(class_names),
    )
