"""The sensor shares of a frame as named arrays, and back; docs/sensor_shares.md lists them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.results_archive import Arrays
from ..core.results_check import ArrayCheck, check_keys, check_texts, class_count, seal
from ..core.results_codec import FORMAT_VERSION
from ..core.results_settings import fingerprint, plain
from ..core.structures import Detections
from .detections import DetectionParts, Effect, SensorShares

FORMAT = 'explain3d.sensor_shares'

_EFFECT = ('found', 'scores', 'overlaps', 'raw')


def encode(frame: SensorShares, dtype: str = 'float32') -> Arrays:
    """Returns the arrays of a result file.

    Args:
        frame: On any device.
        dtype: Not used: parts are exact always, so that they still sum to the values.

    Raises:
        InputError: If a value is not finite; the message names frame and array.
    """
    found = frame.detections
    arrays = {
        'boxes': found.boxes, 'scores': found.scores, 'labels': found.labels,
        'value': frame.parts.value, 'parts': frame.parts.parts,
    }  # fmt: skip
    if frame.detection_indices is not None:
        arrays['detection_indices'] = frame.detection_indices
    for sensor, effect in frame.effects.items():
        arrays |= {f'without.{sensor}.{name}': getattr(effect, name) for name in _EFFECT}
    arrays = {name: np.ascontiguousarray(t.detach().cpu().numpy()) for name, t in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind == 'f' and not _is_defined(name, array):
            raise InputError(
                f'Frame {frame.frame_id!r}: {name} holds values that are not finite: expected '
                'finite ones. Nothing was written; look at the input of this frame.'
            )
    return seal(_metadata(frame), arrays)


def decode(meta: dict[str, Any], arrays: Arrays) -> SensorShares:
    """Returns the frame that ``encode`` was given, on the CPU.

    Raises:
        ResultFileError: If metadata and arrays do not fit each other.
    """
    _check(meta, arrays)

    def get(name: str) -> Tensor:
        return torch.from_numpy(arrays[name])

    return SensorShares(
        frame_id=meta['frame_id'],
        detections=Detections(
            get('boxes'), get('scores'), get('labels'), tuple(meta['class_names'])
        ),
        parts=DetectionParts(
            tuple(meta['attributes']),
            tuple(meta['names']),
            get('value'),
            get('parts'),
            meta['residual'],
        ),
        effects={
            sensor: Effect(**{name: get(f'without.{sensor}.{name}') for name in _EFFECT})
            for sensor in meta['effects']
        },
        detection_indices=get('detection_indices') if 'detection_indices' in arrays else None,
        settings=meta['settings'],
        versions=meta['versions'],
        info=meta['info'],
    )


def _check(meta: dict[str, Any], arrays: Arrays) -> None:
    """Raises ResultFileError unless metadata and arrays fit each other."""
    check_keys(meta, {'residual': (float, int, type(None))})
    check_texts(meta, 'names', 'attributes', 'effects')
    check_texts(meta, 'class_names', different=False)
    check = ArrayCheck(arrays, M=len(meta['names']), A=len(meta['attributes']))
    check.boxes('K', meta.get('class_count'))
    check('value', ('K', 'A'))
    check('parts', ('K', 'M', 'A'))
    known = ['boxes', 'scores', 'labels', 'value', 'parts']
    if 'detection_indices' in arrays:
        check('detection_indices', ('K',), 'iu', low=0)
        known.append('detection_indices')
    for sensor in meta['effects']:
        stem = f'without.{sensor}'
        check(f'{stem}.found', ('K',), 'b')
        check(f'{stem}.scores', ('K',), low=0)
        check(f'{stem}.overlaps', ('K',), low=0)
        check(f'{stem}.raw', ('K', 'A'), gaps=True)
        known += [f'{stem}.{name}' for name in _EFFECT]
    check.only(known)


def _is_defined(name: str, array: np.ndarray) -> bool:
    """Whether all is finite; without a sensor a place may have no value any more."""
    absent = np.isnan(array) if name.startswith('without.') and name.endswith('.raw') else False
    return bool((np.isfinite(array) | absent).all())


def _metadata(frame: SensorShares) -> dict[str, Any]:
    return {
        'format': FORMAT,
        'version': FORMAT_VERSION,
        'kind': frame.kind,
        'frame_id': frame.frame_id,
        'class_names': list(frame.detections.class_names),
        'class_count': class_count(frame.detections.class_names, frame.detections.labels),
        'names': list(frame.names),
        'attributes': list(frame.parts.attributes),
        'residual': frame.parts.residual,
        'effects': list(frame.effects),
        'settings': plain(frame.settings),
        'settings_sha256': fingerprint(frame.settings),
        'versions': plain(frame.versions, 'versions'),
        'info': plain(frame.info, 'info'),
    }
