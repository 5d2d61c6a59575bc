"""Where the raw attributes of MMDetection3D's detections stand in the maps of their head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....core.errors import NotApplicableError
from ....core.structures import Detections
from ....lmd.detections import LOGIT, Reading
from ...common.candidates import Candidates, identify
from ..heads import AnchorCandidates, CenterCandidates, candidates_class

#: Attributes of a head's maps, channel by channel; the size is a logarithm where boxes are
#: normalised.
_CENTER = {
    'reg': ('dx', 'dy'),
    'height': ('z',),
    'dim': ('l', 'w', 'h'),
    'rot': ('sin_yaw', 'cos_yaw'),
    'vel': ('vx', 'vy'),
}
_DELTAS = ('dx', 'dy', 'dz', 'dl', 'dw', 'dh', 'dyaw')


def readings_of(
    head: nn.Module, name: str, maps: Mapping[str, Tensor], found: Detections, frame_id: str
) -> list[Reading]:
    """Returns where each raw attribute of the detections of a frame stands.

    Args:
        head: A ``CenterHead``, an ``Anchor3DHead``, or a subclass of these.
        name: What the names of the head's outputs begin with.
        maps: All (C, H, W) outputs of the head in this frame, by 'name.path', the path as in the
            structure that the head's ``forward`` returns.
        found: The detections.
        frame_id: For messages.

    Raises:
        NotApplicableError: If the head's family is another, or it has several levels.
        InputError: If a detection is none of those that these maps can give.
    """
    family = candidates_class(head)
    if family not in _FAMILIES:
        raise NotApplicableError(
            f'Which outputs of {type(head).__name__} make a detection is not known: expected '
            'CenterHead, Anchor3DHead or a subclass. Add its family to '
            'explain3d.adapters.mmdet3d.lmd.readings.'
        )
    arguments, read = _FAMILIES[family]
    candidates = family(head, *arguments(name, maps))
    index = identify(candidates, found, frame_id)
    return read(candidates, index, found.labels, name)


def _center_arguments(name: str, maps: Mapping[str, Tensor]) -> tuple[list]:
    tasks: dict[int, dict[str, Tensor]] = {}
    for key, value in _paths(name, maps).items():
        task, level, kind = key.split('.')
        if level != '0':
            raise _several_levels()
        tasks.setdefault(int(task), {})[kind] = value[None]
    return ([[tasks[task]] for task in sorted(tasks)],)


def _anchor_arguments(name: str, maps: Mapping[str, Tensor]) -> tuple[list, ...]:
    kinds: dict[str, list[Tensor]] = {}
    for key, value in _paths(name, maps).items():
        kinds.setdefault(key.split('.')[0], []).append(value[None])
    if len(kinds['0']) != 1:
        raise _several_levels()
    if '2' not in kinds:
        raise NotApplicableError(
            'The anchor head has no direction classifier: expected one with '
            'use_direction_classifier=True.'
        )
    return kinds['0'], kinds['1'], kinds['2']


def _center_readings(
    candidates: CenterCandidates, index: Tensor, labels: Tensor, name: str
) -> list[Reading]:
    log = 'log_' if candidates.head.norm_bbox else ''
    cells, tasks = candidates.cells(index), index // candidates.cells_per_task
    found = []
    for task, maps in enumerate(candidates.maps):
        rows = (tasks == task).nonzero().flatten()
        channel = labels[rows] - candidates.first_label[task]
        found.append(Reading(LOGIT, f'{name}.{task}.0.heatmap', rows, channel, cells[rows]))
        for kind, attributes in _CENTER.items():
            if kind not in maps:
                continue
            for number, attribute in enumerate(attributes):
                title = log + attribute if kind == 'dim' else attribute
                channel = torch.full_like(rows, number)
                found.append(Reading(title, f'{name}.{task}.0.{kind}', rows, channel, cells[rows]))
    return found


def _anchor_readings(
    candidates: AnchorCandidates, index: Tensor, labels: Tensor, name: str
) -> list[Reading]:
    head, cells = candidates.head, candidates.cells(index)
    height, width = candidates.map_sizes[0]
    anchor = index % (len(candidates.anchors) // (height * width))
    rows = torch.arange(len(index), device=index.device)

    def reading(attribute: str, kind: int, channel: Tensor) -> Reading:
        return Reading(attribute, f'{name}.{kind}.0', rows, channel, cells)

    found = [reading(LOGIT, 0, anchor * head.num_classes + labels)]
    names = (*_DELTAS, *('vx', 'vy')[: max(head.box_code_size - len(_DELTAS), 0)])
    size = head.box_code_size
    found += [reading(n, 1, anchor * size + i) for i, n in enumerate(names[:size])]
    return [*found, *(reading(f'direction_{i}', 2, anchor * 2 + i) for i in range(2))]


def _paths(name: str, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f'{name}.'
    return {key[len(start) :]: value for key, value in maps.items() if key.startswith(start)}


def _several_levels() -> NotApplicableError:
    return NotApplicableError('The head has maps of several levels: expected one.')


#: Class of candidates to the arguments that it takes and to how its detections are read.
_FAMILIES: dict[type[Candidates], tuple[Callable[..., Any], Callable[..., list[Reading]]]] = {
    CenterCandidates: (_center_arguments, _center_readings),
    AnchorCandidates: (_anchor_arguments, _anchor_readings),
}
