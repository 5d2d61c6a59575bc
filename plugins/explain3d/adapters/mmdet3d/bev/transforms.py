"""Ground truth, blanking and packing of bird's-eye-view samples."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import PixelData

from explain3d.core.errors import InputError
from explain3d.registry import TRANSFORMS

from ....core.override import override
from .geometry import BEVGrid
from .ground_truth import vehicle_maps

#: Names of the sensors and where their data are in a sample.
SENSORS = {'camera': 'img', 'lidar': 'points', 'radar': 'radar'}

_META = (
    *('sample_idx', 'token', 'scene', 'timestamp', 'cam_names', 'cam2ref', 'cam2img', 'img_shape'),
    *('img_path', 'ego2ref', 'radar_fields', 'bev_grid', 'blanked'),
)


@TRANSFORMS.register_module()
class VehicleBEVMaps(BaseTransform):
    """Makes the ground truth of bird's-eye-view vehicle segmentation out of ``vehicles``.

    Follows `ToReferenceFrame`. Writes ``gt_bev`` (`ground_truth.VehicleMaps`) and ``bev_grid``.

    Args:
        grid: ``dict(x=(low, high, cells), z=..., y=...)`` as the model's, metres.
        fill: ``centres`` or ``polygon``, see `ground_truth.fill`.
        ignored_visibility: nuScenes' levels of visibility whose cells are not valid.
        radius: Standard deviation of the heat around a vehicle's centre, cells.
    """

    def __init__(
        self,
        grid: dict,
        fill: str = 'centres',
        ignored_visibility: Sequence[int] = (1,),
        radius: float = 3.0,
    ) -> None:
        self.grid = BEVGrid(**{name: tuple(axis) for name, axis in grid.items()})
        self.options = dict(how=fill, ignored=tuple(ignored_visibility), radius=radius)

    @override
    def transform(self, results: dict) -> dict:
        """Adds ``gt_bev`` and ``bev_grid``."""
        vehicles = results['vehicles']
        results['gt_bev'] = vehicle_maps(
            np.asarray(vehicles['size'], np.float64).reshape(-1, 3),
            vehicles['box2ref'],
            vehicles['visibility'],
            self.grid,
            **self.options,
        )
        results['bev_grid'] = dict(x=self.grid.x, y=self.grid.y, z=self.grid.z)
        return results


@TRANSFORMS.register_module()
class BlankSensor(BaseTransform):
    """Takes sensors away: images become black, points none.

    With ``sensors=['camera']`` a test run tells how well a model does without its cameras
    (``blank_sensors`` of the data sets puts it into any pipeline). With probabilities it is
    sensor dropout: a model trained so cannot lean on one sensor alone.

    Args:
        sensors: Names out of ``camera``, ``lidar``, ``radar``, blanked in every sample; or their
            probabilities as ``dict(radar=0.3)``: at most one of them is blanked in a sample.

    Raises:
        InputError: If a name is not known, or probabilities add up to more than 1.
    """

    def __init__(self, sensors: Sequence[str] | dict[str, float]) -> None:
        unknown = [name for name in sensors if name not in SENSORS]
        total = sum(sensors.values()) if isinstance(sensors, dict) else 0
        if unknown or total > 1:
            raise InputError(
                f'Expected sensors out of {tuple(SENSORS)}, probabilities of at most 1 in sum, '
                f'received {sensors}: correct the names or the probabilities.'
            )
        self.sensors = dict(sensors) if isinstance(sensors, dict) else tuple(sensors)

    @override
    def transform(self, results: dict) -> dict:
        """Blanks the sensors in the sample; ``blanked`` names them."""
        blanked = tuple(self._draw())
        for name in blanked:
            key = SENSORS[name]
            if key not in results:
                continue
            value = results[key]
            results[key] = [np.zeros_like(v) for v in value] if name == 'camera' else value[:0]
        results['blanked'] = (*results.get('blanked', ()), *blanked)
        return results

    def _draw(self) -> Sequence[str]:
        if not isinstance(self.sensors, dict):
            return self.sensors
        level = random.random()
        bounds = np.cumsum(list(self.sensors.values()))
        index = int(np.searchsorted(bounds, level, side='right'))
        return list(self.sensors)[index : index + 1]


@TRANSFORMS.register_module()
class PackBEVInputs(BaseTransform):
    """Packs a sample for a bird's-eye-view model.

    Gives ``inputs`` with what was loaded of ``img`` (S, 3, H, W) uint8 BGR, ``points`` (N, 5) and
    ``radar`` (P, F), all in the reference frame, and ``data_samples`` with ``gt_bev_seg`` (data
    (1, Z, X) uint8, valid (1, Z, X) bool), ``gt_bev_center`` (1, Z, X) and ``gt_bev_offset``
    (2, Z, X) where there is ground truth, and as metainfo cameras, grid and names.
    """

    @override
    def transform(self, results: dict) -> dict:
        """Returns ``dict(inputs=..., data_samples=...)``."""
        inputs = {}
        if 'img' in results:
            images = np.stack(results['img']).transpose(0, 3, 1, 2)
            inputs['img'] = torch.from_numpy(np.ascontiguousarray(images))
        for key in ('points', 'radar'):
            if key in results:
                inputs[key] = torch.from_numpy(np.ascontiguousarray(results[key], np.float32))
        sample = Det3DDataSample(metainfo={key: results[key] for key in _META if key in results})
        if 'gt_bev' in results:
            maps = results['gt_bev']
            sample.gt_bev_seg = PixelData(
                data=torch.from_numpy(maps.seg)[None], valid=torch.from_numpy(maps.valid)[None]
            )
            sample.gt_bev_center = PixelData(data=torch.from_numpy(maps.center)[None])
            sample.gt_bev_offset = PixelData(data=torch.from_numpy(maps.offset))
        return dict(inputs=inputs, data_samples=sample)
