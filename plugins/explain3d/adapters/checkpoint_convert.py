"""Turns a checkpoint of MMDetection3D into one of OpenPCDet, or the other way round.

What the weights cannot carry has to stand in the configuration:

- anchors: sizes, rotations and bottom heights of each class, in the order of the classes, and the
  stride of the map. MMDetection3D's ``ranges`` give the bottom height, OpenPCDet's anchors are
  moved up by half their height; the decoded centres are the same.
- direction: OpenPCDet's ``DIR_OFFSET`` is MMDetection3D's ``dir_offset`` (-pi/2 unless it is set;
  OpenPCDet's stock files have pi/4), ``DIR_LIMIT_OFFSET`` its ``dir_limit_offset``. With another
  offset the raw outputs are equal and some headings turned by pi.
- upsampling by a plain convolution (``USE_CONV_FOR_NO_STRIDE``) must be off in OpenPCDet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import CheckpointMismatchError, InputError, UnsafeCheckpointError
from . import checkpoint_weights as weights
from .checkpoint_names import COUNTER, STATE_KEYS, TITLES, Host, Kind, recognise, rename
from .checkpoint_reading import read_checkpoint

_CENTRE_PREFIX = 'pts_'
_HINTS = {
    'second': (
        'The configuration must have the anchors and classes in this order: {classes}. The '
        "direction offsets of the two toolboxes must agree: OpenPCDet's DIR_OFFSET is "
        "MMDetection3D's dir_offset (-1.5707963267948966 unless it is set), DIR_LIMIT_OFFSET its "
        'dir_limit_offset.'
    ),
    'centerpoint': (
        'The configuration must have the heads and their classes in the same order '
        '(CLASS_NAMES_EACH_HEAD in OpenPCDet, tasks in MMDetection3D), and the branches that '
        'the file has (vel or not).'
    ),
}


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a checkpoint's tensors and plain values, running no code of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointMismatchError: If it is no checkpoint, or holds other objects.
    """
    try:
        checkpoint = read_checkpoint(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'Expected a checkpoint file, received {path}: not there.'
        ) from error
    except UnsafeCheckpointError as error:
        raise CheckpointMismatchError(str(error)) from error
    except (RuntimeError, EOFError) as error:
        raise CheckpointMismatchError(
            f'Expected a checkpoint of tensors and plain values, received {path}, which torch '
            f'does not load ({str(error).splitlines()[0]}): it is damaged. Copy it again.'
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointMismatchError(
            f'Expected a checkpoint, received a {type(checkpoint).__name__} in {path}.'
        )
    return dict(checkpoint)


def configuration_hints(note: Mapping[str, Any]) -> str:
    """Says what the configuration in the other toolbox must have for the same detections.

    Args:
        note: ``meta['conversion']`` of a converted checkpoint.
    """
    classes = ', '.join(note['classes']) or 'that of the training configuration'
    return _HINTS[note['detector']].format(classes=classes)


def convert_checkpoint(
    checkpoint: Mapping[str, Any],
    classes: Sequence[str] | None = None,
    source_classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Returns the checkpoint for the other toolbox.

    Numbers are carried over as they are, in their own precision, except for what
    ``checkpoint_weights`` lists. Biases before a norm, which only OpenPCDet has, are rounded once.

    Args:
        checkpoint: As loaded from a file of either toolbox.
        classes: Order of the classes wanted, for an anchor head; None leaves it.
        source_classes: Order they have; by default the one noted in the checkpoint.

    Returns:
        With ``state_dict`` for MMDetection3D or ``model_state`` for OpenPCDet, and ``meta`` with
        all that the source's had and a note ``conversion``.

    Raises:
        CheckpointMismatchError: If it holds no weights of a SECOND or a voxel CenterPoint.
        InputError: If the classes do not fit.
    """
    state, kind = _read(checkpoint)
    meta = dict(checkpoint.get('meta') or {})
    earlier = meta.get('conversion') or {}
    source_classes = list(source_classes or _noted_classes(meta))
    target: Host = 'pcdet' if kind.host == 'mmdet3d' else 'mmdet3d'
    note: dict[str, Any] = {
        'tool': 'explain3d',
        'from': TITLES[kind.host],
        'to': TITLES[target],
        'detector': kind.detector,
    }
    wanted = list(classes or [])
    if wanted:
        _check_classes(kind, source_classes)
    common = _common_names(state, kind)
    note['classes'] = wanted or source_classes
    try:
        weights.kernels_first(common)
        if wanted:
            weights.reorder_classes(common, source_classes, wanted)
        weights.swap_sine_and_cosine(common)
        if target == 'pcdet':
            converted = _for_pcdet(common, kind, note, meta)
        else:
            converted = _for_mmdet3d(common, kind, note, earlier)
    except KeyError as error:
        raise CheckpointMismatchError(
            f'Expected all parameters of a {kind.detector}, received no {error.args[0]} '
            "(MMDetection3D's name): the file holds a part of a model only."
        ) from error
    if COUNTER in state:
        meta.setdefault('iterations', int(state[COUNTER].item()))
    if note['classes']:
        meta['dataset_meta'] = {**(meta.get('dataset_meta') or {}), 'classes': note['classes']}
    meta['conversion'] = note
    return {'meta': meta, STATE_KEYS[target]: converted}


def _read(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], Kind]:
    """State dict without a leading ``module.``, and what it is."""
    held = [key for key in STATE_KEYS.values() if key in checkpoint]
    if len(held) != 1:
        raise CheckpointMismatchError(
            "Expected a checkpoint with 'state_dict' (MMDetection3D) or 'model_state' "
            f'(OpenPCDet), received one with {sorted(map(str, checkpoint))[:6]}: give a file that '
            'one of the two toolboxes, or this tool, has written.'
        )
    state = {name.removeprefix('module.'): v for name, v in checkpoint[held[0]].items()}
    kind = recognise(state)
    if STATE_KEYS[kind.host] != held[0]:
        raise CheckpointMismatchError(
            f"Expected {TITLES[kind.host]}'s weights under '{STATE_KEYS[kind.host]}', received "
            f"them under '{held[0]}': the file was written by neither toolbox."
        )
    return state, kind


def _noted_classes(meta: Mapping[str, Any]) -> Sequence[str]:
    noted = meta.get('dataset_meta') or {}
    # MMDetection3D before 1.1 writes CLASSES.
    return noted.get('classes') or noted.get('CLASSES') or meta.get('CLASSES') or ()


def _check_classes(kind: Kind, source_classes: Sequence[str]) -> None:
    if kind.detector != 'second':
        raise InputError(
            'Expected an order of classes for an anchor head only, received one for a '
            'CenterPoint: there the configuration names the classes of each head.'
        )
    if not source_classes:
        raise InputError(
            'Expected a checkpoint that notes its classes, received one without: name them in '
            'the order of the training configuration (source_classes).'
        )


def _common_names(state: Mapping[str, Tensor], kind: Kind) -> dict[str, Tensor]:
    """The state under MMDetection3D's names without ``pts_``."""
    common, unknown = {}, []
    for name, value in state.items():
        if name == COUNTER and kind.host == 'pcdet':
            continue
        new = rename(name, kind)
        if new is None:
            unknown.append(name)
        else:
            common[(name if kind.host == 'mmdet3d' else new).removeprefix(_CENTRE_PREFIX)] = value
    if unknown:
        more = ', ...' if len(unknown) > 5 else ''
        raise CheckpointMismatchError(
            f'Expected a plain {kind.detector} of {TITLES[kind.host]}, received '
            f'{len(unknown)} parameters that have no counterpart in the other toolbox '
            f'({", ".join(unknown[:5])}{more}): a second stage, an IoU branch or a deformable '
            'head cannot be converted.'
        )
    return common


def _for_pcdet(common: dict[str, Tensor], kind: Kind, note: dict, meta: Mapping) -> OrderedDict:
    note['encoder_channels'] = weights.pad_encoder(common)
    # MMDetection3D's stock CenterPoints have plain convolutions here, its SECONDs transposed ones.
    note['plain_upsampling'] = weights.plain_upsampling(common, kind.detector == 'centerpoint')
    weights.transpose_upsampling(common, note['plain_upsampling'])
    weights.add_biases(common)
    plain = Kind('mmdet3d', 'second', kind.residual)
    state = OrderedDict((rename(name, plain), value) for name, value in common.items())
    iterations = meta.get('iterations', meta.get('iter', 0))
    state[COUNTER] = torch.tensor([int(iterations)])
    return state


def _for_mmdet3d(common: dict[str, Tensor], kind: Kind, note: dict, earlier: dict) -> OrderedDict:
    note['biases_folded'] = weights.fold_biases(common)
    if 'encoder_channels' in earlier:
        weights.trim_encoder(common, earlier['encoder_channels'])
    levels = weights.one_cell_upsampling(common) if kind.detector == 'centerpoint' else []
    plain = earlier.get('plain_upsampling', levels)
    found = weights.plain_upsampling(common, square_is_plain=False)
    weights.transpose_upsampling(common, set(plain) ^ set(found))
    prefix = _CENTRE_PREFIX if kind.detector == 'centerpoint' else ''
    state = OrderedDict((prefix + name, value) for name, value in common.items())
    state._metadata = _versions(state)
    return state


def _versions(state: Mapping[str, Tensor]) -> OrderedDict:
    """Versions of the modules, as ``model.state_dict()`` notes them.

    MMDetection3D permutes the kernels of a sparse convolution without version 2, taking them for
    spconv 1's, and torch looks for a norm's counter from version 2 on.
    """
    versions: OrderedDict = OrderedDict({'': {'version': 1}})
    for name, value in state.items():
        path = name.split('.')[:-1]
        for depth in range(1, len(path) + 1):
            versions.setdefault('.'.join(path[:depth]), {'version': 1})
        if value.ndim == 5 or name.endswith('.running_mean'):
            versions['.'.join(path)] = {'version': 2}
    return versions
