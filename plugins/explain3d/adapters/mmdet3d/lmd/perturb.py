"""Replacing or blanking one modality of a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ....core.checks import (
    require_dict,
    require_known,
    require_names,
    require_text,
    require_whole,
)
from ....core.errors import InputError, UnknownNameError

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Sensor:
    """What of an item of a data set belongs to a modality.

    Attributes:
        inputs: Keys of ``inputs``.
        metainfo: Entries of the meta information that go with them: images without their
            calibration make no sense.
        camera: Only this camera's slice of each; None: all of it.
        least: Points that stay when the modality is blanked, those farthest away: some detectors
            fail on a cloud without a point.
    """

    inputs: Sequence[str]
    metainfo: Sequence[str] = ()
    camera: str | None = None
    least: int = 0

    def replace(self, item: Item, donor: Item) -> dict[str, Any]:
        """Returns ``item`` with this modality taken from ``donor``; both stay as they are.

        Raises:
            InputError: If one of them lacks it.
        """
        theirs = self._index(donor)

        def take(value: Any, other: Any) -> Any:
            if self.camera is None:
                return other
            mixed = value.clone() if isinstance(value, torch.Tensor) else np.array(value)
            mixed[self._index(item)] = other[theirs]
            return mixed

        inputs, sample = dict(item['inputs']), item['data_samples'].clone()
        for key in self.inputs:
            inputs[key] = take(*(self._get(i['inputs'], key) for i in (item, donor)))
        meta = item['data_samples'].metainfo, donor['data_samples'].metainfo
        for key in self.metainfo:
            if key in meta[0] or key in meta[1]:
                sample.set_metainfo({key: take(*(self._get(m, key) for m in meta))})
        return {**item, 'inputs': inputs, 'data_samples': sample}

    def blank(self, item: Item) -> dict[str, Any]:
        """Returns ``item`` with black images and without (``least``) points of this modality."""
        inputs = dict(item['inputs'])
        for key in self.inputs:
            value = self._get(inputs, key)
            if self.camera is not None:
                inputs[key] = value.clone()
                inputs[key][self._index(item)] = 0
            else:
                inputs[key] = torch.zeros_like(value) if value.dim() > 2 else self._last(value)
        return {**item, 'inputs': inputs, 'data_samples': item['data_samples'].clone()}

    def _last(self, points: torch.Tensor) -> torch.Tensor:
        if not self.least:
            return points[:0]
        return points[points[:, :2].norm(dim=1).argsort(descending=True)[: self.least]]

    def _index(self, item: Item) -> int:
        if self.camera is None:
            return -1
        return list(item['data_samples'].metainfo['cam_names']).index(self.camera)

    def _get(self, where: Mapping[str, Any], key: str) -> Any:
        if key not in where:
            raise InputError(
                f'Expected {key!r} in a sample to replace or blank {self}, received '
                f'{sorted(where)}: load the sensor, or say in sensors= what belongs to it.'
            )
        return where[key]


#: What belongs to the sensors of our data sets.
SENSORS = {
    'camera': Sensor(('img',), ('cam_names', 'cam2img', 'cam2ref', 'img_shape', 'img_path')),
    'radar': Sensor(('radar',), ('radar_fields',)),
    'lidar': Sensor(('points',)),
}


def check_sensors(given: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Refuses what is given for modalities if it is wrong whatever the frame.

    Raises:
        UnknownNameError: If a key is unknown.
        InputError: If a value is missing or of the wrong kind.
    """
    example = "dict(inputs=['img'], metainfo=['cam2img'])"
    for name, spec in require_dict('sensors', given, f'dict(camera={example})').items():
        spec = require_dict(f'sensors[{name!r}]', spec, example)
        require_known(f'sensors[{name!r}]', spec, [f.name for f in fields(Sensor)])
        require_names('inputs', spec.get('inputs'), 'img', optional=False)
        require_names('metainfo', spec.get('metainfo', ()), 'cam2img', optional=False)
        require_text('camera', spec.get('camera'), 'CAM_FRONT')
        require_whole('least', spec.get('least', 0), least=0)


def sensors_of(
    modalities: Sequence[str], given: Mapping[str, Mapping[str, Any]] | None, item: Item
) -> dict[str, Sensor]:
    """Returns what belongs to each modality: as given, or known; a camera's name is its slice.

    Raises:
        UnknownNameError: If that is not known of a modality.
    """
    known = {**SENSORS, **{name: Sensor(**spec) for name, spec in (given or {}).items()}}
    cameras = tuple(item['data_samples'].metainfo.get('cam_names', ()))
    found = {}
    for name in modalities:
        if name in known:
            found[name] = known[name]
        elif name in cameras:
            found[name] = Sensor(('img',), ('cam2img', 'cam2ref'), name)
        else:
            raise UnknownNameError(
                f'What belongs to modality {name!r} is not known: expected one of '
                f"{[*known, *cameras]}, or sensors={{{name!r}: dict(inputs=['img'], "
                "metainfo=['cam2img'])}."
            )
    return found


def only(sensors: Mapping[str, Sensor], name: str, item: Item) -> Item:
    """Returns ``item`` with all modalities but one blanked."""
    blanks: list[Callable] = [sensor.blank for other, sensor in sensors.items() if other != name]
    for blank in blanks:
        item = blank(item)
    return item
