"""Batches of images, LiDAR and radar."""

from __future__ import annotations

from mmdet3d.models import Det3DDataPreprocessor

from ...registry import MODELS


@MODELS.register_module()
class BEVDataPreprocessor(Det3DDataPreprocessor):
    """MMDetection3D's preprocessor, which drops radar, with radar.

    ``inputs`` comes out with 'imgs' (B, S, 3, H, W), normalised, 'points' and 'radar', lists of
    B tensors, each where the sensor is there.
    """

    def simple_process(self, data: dict, training: bool = False) -> dict:
        """Returns the batch on the model's device, as the base class does, and the radar."""
        radar = data['inputs'].get('radar')
        batch = super().simple_process(data, training)
        if radar is not None:
            batch['inputs']['radar'] = self.cast_data(radar)
        return batch
