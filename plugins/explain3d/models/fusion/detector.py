"""Cameras and LiDAR fused in the bird's eye, boxes by a stock head of MMDetection3D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmdet3d.models import Base3DDetector
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from ...core.errors import UnknownNameError
from ...lmd.seeds import Seed
from ...registry import MODELS
from ..simplebev.detector import CAMERAS
from ..simplebev.inputs import calibration, required


@MODELS.register_module()
class BEVFusionDetector(Base3DDetector):
    """A detector in the manner of BEVFusion, of registered parts, without CUDA extensions.

    ::

        images -> img_branch -----------------------------> (B, C_c, H, W) --+
                                                                              fuser -> backbone
        points -> voxels -> voxel_encoder -> middle_encoder (B, C_l, H, W) --+  -> neck -> head

    The LiDAR's parts and the parts behind the fusion have the names that MMDetection3D's detectors
    give them. From ``fuser`` to the head's raw maps there are plain tensor operations only. A
    sensor that is blanked stays in its place: images are black, a batch without a point has a
    LiDAR map of zeros, which is what the sparse encoder gives for a cloud without points.

    Args:
        img_branch: Configuration of images to map.
        pts_voxel_encoder: As in MMDetection3D.
        pts_middle_encoder: As in MMDetection3D.
        fuser: Configuration of the fusion of [camera map, LiDAR map].
        pts_backbone: As in MMDetection3D.
        pts_neck: As in MMDetection3D.
        pts_bbox_head: A dense head: CenterHead, Anchor3DHead.
        camera_names: Names of the cameras, in the order of the images.
        data_preprocessor: One that voxelises.
        init_cfg: As in MMEngine.
    """

    #: Sensors in the order in which the fuser gets their maps.
    sensors = ('camera', 'lidar')
    #: Where a decomposition ends: the head's raw maps, before boxes are decoded.
    lmd_outputs = ('pts_bbox_head',)

    def __init__(
        self,
        img_branch: dict,
        pts_voxel_encoder: dict,
        pts_middle_encoder: dict,
        fuser: dict,
        pts_backbone: dict,
        pts_neck: dict,
        pts_bbox_head: dict,
        camera_names: Sequence[str] = CAMERAS,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.camera_names = tuple(camera_names)
        self.img_branch = MODELS.build(img_branch)
        self.pts_voxel_encoder = MODELS.build(pts_voxel_encoder)
        self.pts_middle_encoder = MODELS.build(pts_middle_encoder)
        self.fuser = MODELS.build(fuser)
        self.pts_backbone = MODELS.build(pts_backbone)
        self.pts_neck = MODELS.build(pts_neck)
        self.pts_bbox_head = MODELS.build(pts_bbox_head)

    def lmd_seeds(self, level: str = 'sensors') -> list[Seed]:
        """Returns where to begin a decomposition.

        Args:
            level: 'sensors': camera and LiDAR. 'cameras': each camera by its name instead.

        Raises:
            UnknownNameError: If the level is another.
        """
        camera = Seed('fuser', path='0.0', modality='camera')
        if level == 'cameras':
            names = dict.fromkeys(self.camera_names, 1)
            camera = Seed('img_branch.lift', at='output', dim=1, split=names)
        elif level != 'sensors':
            raise UnknownNameError(
                f"Unknown level {level!r} of modalities: expected 'sensors' or 'cameras'."
            )
        return [camera, Seed('fuser', path='0.1', modality='lidar')]

    def sensor_maps(
        self, inputs: Mapping[str, object], samples: Sequence[Det3DDataSample]
    ) -> list[Tensor]:
        """Returns the maps (B, C_m, H, W) of cameras and LiDAR.

        Args:
            inputs: 'imgs' (B, S, 3, H_i, W_i) and 'voxels', as the data preprocessor gives them.
            samples: With ``cam2img`` and ``cam2lidar`` (S, 4, 4) in their metainfo.

        Raises:
            InputError: If a sensor or its calibration is missing or does not fit.
        """
        images = required(inputs, 'imgs', 'camera')
        voxels = required(inputs, 'voxels', 'lidar')
        cam2img, cam2lidar = (
            calibration(samples, name, len(self.camera_names), images)
            for name in ('cam2img', 'cam2lidar')
        )
        camera = self.img_branch(images, cam2img, cam2lidar)
        return [camera, self._lidar_map(voxels, len(samples), camera)]

    def extract_feat(
        self, batch_inputs_dict: Mapping[str, object], batch_data_samples: Sequence[Det3DDataSample]
    ) -> list[Tensor]:
        """Returns what the head reads; arguments as in ``sensor_maps``."""
        fused = self.fuser(self.sensor_maps(batch_inputs_dict, batch_data_samples))
        return self.pts_neck(self.pts_backbone(fused))

    def loss(
        self, batch_inputs_dict: dict, batch_data_samples: Sequence[Det3DDataSample], **kwargs
    ) -> dict[str, Tensor]:
        """Returns the head's losses."""
        features = self.extract_feat(batch_inputs_dict, batch_data_samples)
        return self.pts_bbox_head.loss(features, batch_data_samples)

    def predict(
        self, batch_inputs_dict: dict, batch_data_samples: Sequence[Det3DDataSample], **kwargs
    ) -> Sequence[Det3DDataSample]:
        """Adds ``pred_instances_3d`` to each data sample."""
        features = self.extract_feat(batch_inputs_dict, batch_data_samples)
        found = self.pts_bbox_head.predict(features, batch_data_samples)
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _forward(
        self, batch_inputs_dict: dict, batch_data_samples: Sequence[Det3DDataSample], **kwargs
    ) -> tuple:
        """Returns the head's raw maps."""
        return self.pts_bbox_head(self.extract_feat(batch_inputs_dict, batch_data_samples))

    def _lidar_map(self, voxels: Mapping[str, Tensor], batch: int, like: Tensor) -> Tensor:
        """Returns (B, C_l, H, W); zeros where there is no voxel, which spconv refuses."""
        if len(voxels['voxels']) == 0:
            channels = self.fuser.in_channels[1]
            return like.new_zeros(batch, channels, *like.shape[-2:])
        features = self.pts_voxel_encoder(voxels['voxels'], voxels['num_points'], voxels['coors'])
        return self.pts_middle_encoder(features, voxels['coors'], batch)
