"""The decomposition of a frame as named arrays, and back; docs/lmd_usage.md lists the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError, ResultFileError
from ..core.results_archive import Arrays
from ..core.results_check import ArrayCheck, check_keys, check_texts, seal
from ..core.results_codec import FORMAT_VERSION
from ..core.results_settings import fingerprint, plain
from .components import Components
from .frame import BevArea, FrameDecomposition

FORMAT = 'explain3d.decomposition'

#: Fields of a frame that map names to tensors; those of the second kind are kept as float16 of
#: their maximum: they are for pictures.
_TENSORS, _HALVES = ('points', 'references'), ('energies', 'gradcams')
_OPTIONAL = ('ground_truth', 'ground_truth_valid')


def encode(frame: FrameDecomposition, dtype: str = 'float32') -> Arrays:
    """Returns the arrays of a result file.

    Args:
        frame: On any device.
        dtype: Type of the captured layers: 'float32', exact, or 'float16' of their maximum.
            Outputs are exact always, so that their parts still sum to them.

    Raises:
        InputError: If a value is not finite; the message names frame and array.
    """
    arrays: Arrays = {}
    for field in ('outputs', 'captured'):
        for name, components in getattr(frame, field).items():
            half = field == 'captured' and dtype == 'float16'
            for part in ('value', 'parts'):
                _put(arrays, f'{field}.{name}.{part}', getattr(components, part), half)
    for field in (*_TENSORS, *_HALVES):
        for name, tensor in getattr(frame, field).items():
            _put(arrays, f'{field}.{name}', tensor, field in _HALVES)
    for field in _OPTIONAL:
        if getattr(frame, field) is not None:
            _put(arrays, field, getattr(frame, field))
    for name, array in arrays.items():
        if array.dtype.kind == 'f' and not np.isfinite(array).all():
            raise InputError(
                f'Frame {frame.frame_id!r}: {name} holds values that are not finite: expected '
                'finite ones. Nothing was written; look at the input of this frame, then for the '
                "first layer of the model whose activation is not finite (mode='check')."
            )
    return seal(_metadata(frame), arrays)


def decode(meta: dict[str, Any], arrays: Arrays) -> FrameDecomposition:
    """Returns the frame that ``encode`` was given, on the CPU.

    Raises:
        ResultFileError: If metadata and arrays do not fit each other.
    """
    _check(meta, arrays)
    area = meta['area']
    return FrameDecomposition(
        frame_id=meta['frame_id'],
        **{field: _components(meta, arrays, field) for field in ('outputs', 'captured')},
        **{
            field: {name: _get(arrays, f'{field}.{name}') for name in meta['fields'][field]}
            for field in (*_TENSORS, *_HALVES)
        },
        **{field: _get(arrays, field) for field in _OPTIONAL if field in arrays},
        shares={
            name: torch.tensor([np.nan if s is None else s for s in row], dtype=torch.float64)
            for name, row in meta['shares'].items()
        },
        area=None if area is None else BevArea(tuple(area['x']), tuple(area['z'])),
        settings=meta['settings'],
        versions=meta['versions'],
        info=meta['info'],
    )


def _check(meta: dict[str, Any], arrays: Arrays) -> None:
    """Raises ResultFileError unless metadata and arrays fit each other."""
    dictionaries = dict.fromkeys(('fields', 'residuals', 'shares'), dict)
    check_keys(meta, {**dictionaries, 'area': (dict, type(None))})
    check_texts(meta, 'names')
    fields = ('outputs', 'captured', *_TENSORS, *_HALVES)
    check_texts(meta['fields'], *fields)
    check, count = ArrayCheck(arrays), len(meta['names'])
    known = [field for field in _OPTIONAL if field in arrays]
    for field in known:
        check(field, ('Z', 'X'), 'bu', high=1)
    for field in fields:
        for name in meta['fields'][field]:
            stem = f'{field}.{name}'
            if field in ('outputs', 'captured'):
                value = _check_values(check, f'{stem}.value', known)
                _check_values(check, f'{stem}.parts', known, (count, *value.shape))
            else:
                values = _check_values(check, stem, known)
                if field == 'points' and (values.ndim != 2 or values.shape[1] < 3):
                    raise ResultFileError(f'{stem!r} has the shape {values.shape}: expected (P, 3)')
    for name, row in meta['shares'].items():
        plain = isinstance(row, list) and all(s is None or isinstance(s, float) for s in row)
        if not plain or len(row) != count:
            raise ResultFileError(f'the shares of {name!r} are {row!r:.60}: expected {count}')
    check.only(known)


def _check_values(
    check: ArrayCheck, name: str, known: list[str], shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """Checks values of any shape, or of this one, and their maximum where it is kept."""
    if shape is None and name in check.arrays:
        shape = check.arrays[name].shape
    values = check(name, shape or (), 'fiub')
    known.append(name)
    if values.dtype == np.float16:
        check(f'{name}.scale', (), low=0)
        known.append(f'{name}.scale')
    return values


def _metadata(frame: FrameDecomposition) -> dict[str, Any]:
    decomposed = {**frame.outputs, **frame.captured}
    fields = ('outputs', 'captured', *_TENSORS, *_HALVES)
    return {
        'format': FORMAT,
        'version': FORMAT_VERSION,
        'kind': frame.kind,
        'frame_id': frame.frame_id,
        'names': list(frame.names),
        'fields': {field: list(getattr(frame, field)) for field in fields},
        'residuals': {name: found.residual for name, found in decomposed.items()},
        'shares': {
            name: [None if s != s else s for s in row.tolist()]
            for name, row in frame.shares.items()
        },
        'area': None if frame.area is None else {'x': frame.area.x, 'z': frame.area.z},
        'axes': ['z', 'x'],
        'settings': plain(frame.settings),
        'settings_sha256': fingerprint(frame.settings),
        'versions': plain(frame.versions, 'versions'),
        'info': plain(frame.info, 'info'),
    }


def _components(meta: dict[str, Any], arrays: Arrays, field: str) -> dict[str, Components]:
    return {
        name: Components(
            *(_get(arrays, f'{field}.{name}.{part}') for part in ('value', 'parts')),
            names=tuple(meta['names']),
            residual=meta['residuals'][name],
        )
        for name in meta['fields'][field]
    }


def _put(arrays: Arrays, name: str, tensor: Tensor, half: bool = False) -> None:
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    values = np.ascontiguousarray(tensor.numpy())
    if not half:
        arrays[name] = values
        return
    scale = np.float32(np.abs(values).max(initial=0.0))
    arrays[name] = (values / (scale if scale > 0 else 1)).astype(np.float16)
    arrays[f'{name}.scale'] = np.array(scale)


def _get(arrays: Arrays, name: str) -> Tensor:
    values = torch.from_numpy(arrays[name])
    scale = arrays.get(f'{name}.scale')
    return values if scale is None else values.float() * float(scale)
