"""What the parameters of SECOND and CenterPoint are called in MMDetection3D and in OpenPCDet.

One table of name patterns, read in both directions. MMDetection3D calls CenterPoint's parts
``pts_middle_encoder`` where SECOND has ``middle_encoder``; that prefix is taken off first, so one
table serves both detectors.

| part | MMDetection3D | OpenPCDet |
|---|---|---|
| sparse encoder | ``middle_encoder.encoder_layers.encoder_layer2`` | ``backbone_3d.conv2`` |
| its residual form | downsampling is the last of a stage | the first of the next stage |
| 2D backbone | convolution, norm, ReLU | a padding layer before them: indices one higher |
| upsampling | ``neck.deblocks`` | ``backbone_2d.deblocks`` |
| anchor head | ``conv_reg`` | ``conv_box`` |
| centre head | ``reg``, ``height``, ``heatmap`` | ``center``, ``center_z``, ``hm`` |
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..core.errors import CheckpointMismatchError

Host = Literal['mmdet3d', 'pcdet']
Detector = Literal['second', 'centerpoint']

#: The hosts' names, as messages and notes have them.
TITLES = {'mmdet3d': 'MMDetection3D', 'pcdet': 'OpenPCDet'}
#: Where each host's checkpoint files keep the parameters.
STATE_KEYS = {'mmdet3d': 'state_dict', 'pcdet': 'model_state'}
#: A counter that OpenPCDet saves among its parameters.
COUNTER = 'global_step'
#: Parts of CenterPoint's heads, MMDetection3D's name first.
BRANCHES = {
    'heatmap': 'hm', 'reg': 'center', 'height': 'center_z', 'dim': 'dim', 'rot': 'rot',
    'vel': 'vel',
}  # fmt: skip

_ANCHOR = {'conv_cls': 'conv_cls', 'conv_reg': 'conv_box', 'conv_dir_cls': 'conv_dir_cls'}
_LAYERS = {'conv': '0', 'bn': '1'}
_MARKS = {
    ('mmdet3d', 'second'): ('middle_encoder.', 'bbox_head.conv_cls.'),
    ('mmdet3d', 'centerpoint'): ('pts_middle_encoder.', 'pts_bbox_head.task_heads.'),
    ('pcdet', 'second'): ('backbone_3d.', 'dense_head.conv_cls.'),
    ('pcdet', 'centerpoint'): ('backbone_3d.', 'dense_head.heads_list.'),
}


@dataclass(frozen=True)
class Kind:
    """What a state dict belongs to.

    Attributes:
        host: Toolbox whose names it has.
        detector: SECOND or voxel CenterPoint.
        residual: Whether the sparse encoder is of residual blocks: ``block_type='basicblock'``
            in MMDetection3D, ``VoxelResBackBone8x`` in OpenPCDet.
    """

    host: Host
    detector: Detector
    residual: bool


def recognise(names: Iterable[str]) -> Kind:
    """Tells the host and the detector by the names of the parameters.

    Args:
        names: Keys of the state dict, without a leading ``module.``.

    Raises:
        CheckpointMismatchError: If it is neither host's SECOND nor CenterPoint.
    """
    names = list(names)
    for (host, detector), marks in _MARKS.items():
        if all(any(name.startswith(mark) for name in names) for mark in marks):
            residual = any(
                re.search(r'(encoder_layer1|backbone_3d\.conv1)\.0\.conv1\.', name)
                for name in names
            )
            return Kind(host, detector, residual)
    parts = sorted({name.split('.')[0] for name in names})
    raise CheckpointMismatchError(
        'Expected the weights of a SECOND or a voxel CenterPoint, of MMDetection3D '
        '(middle_encoder, bbox_head; pts_middle_encoder, pts_bbox_head) or of OpenPCDet '
        f'(backbone_3d, dense_head), received parameters of {parts[:8]}: other detectors '
        'have no counterpart in the other toolbox.'
    )


def rename(name: str, kind: Kind) -> str | None:
    """Returns the other host's name of a parameter or buffer; None if it has no such part.

    Args:
        name: Without a leading ``module.``.
        kind: What the name belongs to.
    """
    if kind.host == 'pcdet':
        new = _to_mmdet3d(name, kind.residual)
        return new if new is None or kind.detector == 'second' else f'pts_{new}'
    if kind.detector == 'centerpoint':
        if not name.startswith('pts_'):
            return None
        name = name[len('pts_') :]
    return _to_pcdet(name, kind.residual)


def _to_pcdet(name: str, residual: bool) -> str | None:
    if found := re.fullmatch(r'middle_encoder\.(conv_input|conv_out)\.(.+)', name):
        return 'backbone_3d.{}.{}'.format(*found.groups())
    if found := re.fullmatch(
        r'middle_encoder\.encoder_layers\.encoder_layer(\d)\.(\d+)\.(.+)', name
    ):
        stage, block, rest = int(found[1]), int(found[2]), found[3]
        if residual and rest[0].isdigit():  # The downsampling, not a residual block.
            stage, block = stage + 1, 0
        elif residual and stage > 1:
            block += 1
        return f'backbone_3d.conv{stage}.{block}.{rest}'
    if found := re.fullmatch(r'backbone\.blocks\.(\d+)\.(\d+)\.(.+)', name):
        return f'backbone_2d.blocks.{found[1]}.{int(found[2]) + 1}.{found[3]}'
    if found := re.fullmatch(r'neck\.(deblocks\..+)', name):
        return f'backbone_2d.{found[1]}'
    if found := re.fullmatch(r'bbox_head\.(conv_\w+)\.(weight|bias)', name):
        return f'dense_head.{_ANCHOR[found[1]]}.{found[2]}' if found[1] in _ANCHOR else None
    if found := re.fullmatch(r'bbox_head\.shared_conv\.(conv|bn)\.(.+)', name):
        return f'dense_head.shared_conv.{_LAYERS[found[1]]}.{found[2]}'
    if found := re.fullmatch(r'bbox_head\.task_heads\.(\d+)\.(\w+)\.(\d+)\.(.+)', name):
        task, branch, index, rest = found.groups()
        if branch not in BRANCHES:
            return None
        layer, dot, leaf = rest.partition('.')
        rest = f'{_LAYERS[layer]}.{leaf}' if dot else layer
        return f'dense_head.heads_list.{task}.{BRANCHES[branch]}.{index}.{rest}'
    return None


def _to_mmdet3d(name: str, residual: bool) -> str | None:
    if found := re.fullmatch(r'backbone_3d\.(conv_input|conv_out)\.(.+)', name):
        return 'middle_encoder.{}.{}'.format(*found.groups())
    if found := re.fullmatch(r'backbone_3d\.conv(\d)\.(\d+)\.(.+)', name):
        stage, block, rest = int(found[1]), int(found[2]), found[3]
        if residual and rest[0].isdigit():
            stage, block = stage - 1, 2
        elif residual and stage > 1:
            block -= 1
        return f'middle_encoder.encoder_layers.encoder_layer{stage}.{block}.{rest}'
    if found := re.fullmatch(r'backbone_2d\.blocks\.(\d+)\.(\d+)\.(.+)', name):
        return f'backbone.blocks.{found[1]}.{int(found[2]) - 1}.{found[3]}'
    if found := re.fullmatch(r'backbone_2d\.(deblocks\..+)', name):
        return f'neck.{found[1]}'
    if found := re.fullmatch(r'dense_head\.(conv_\w+)\.(weight|bias)', name):
        layer = _inverse(_ANCHOR, found[1])
        return f'bbox_head.{layer}.{found[2]}' if layer else None
    if found := re.fullmatch(r'dense_head\.shared_conv\.([01])\.(.+)', name):
        return f'bbox_head.shared_conv.{_inverse(_LAYERS, found[1])}.{found[2]}'
    if found := re.fullmatch(r'dense_head\.heads_list\.(\d+)\.(\w+)\.(\d+)\.(.+)', name):
        task, branch, index, rest = found.groups()
        branch = _inverse(BRANCHES, branch)
        if branch is None:
            return None
        layer, dot, leaf = rest.partition('.')
        rest = f'{_inverse(_LAYERS, layer)}.{leaf}' if dot else layer
        return f'bbox_head.task_heads.{task}.{branch}.{index}.{rest}'
    return None


def _inverse(table: dict[str, str], value: str) -> str | None:
    return next((key for key, other in table.items() if other == value), None)
