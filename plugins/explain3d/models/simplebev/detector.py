"""SimpleBEV: cameras lifted to the bird's eye, fused there with radar and LiDAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmdet3d.models import Base3DDetector
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import PixelData
from torch import Tensor, nn

from ...core.errors import InputError, UnknownNameError
from ...lmd.seeds import Seed
from ...registry import MODELS
from .grid import VoxelGrid
from .inputs import calibration, required

#: The order in which MMDetection3D's nuScenes infos name the cameras.
CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)

#: Sensors that are rasterised: their key in ``inputs``, and their columns if samples do not say.
POINT_SENSORS = {
    'radar': ('radar', None),
    'lidar': ('points', ('x', 'y', 'z', 'intensity', 'time')),
}


@MODELS.register_module()
class SimpleBEV(Base3DDetector):
    """Vehicle segmentation in the bird's eye from cameras and, if configured, radar and LiDAR.

    Everything is in the reference frame (x right, y down, z forward, metres); its origin is
    whatever ``cam2ref`` and the points refer to. From ``fuser`` on there are plain tensor
    operations only.

    Args:
        grid: Voxels, ``dict(x=(low, high, cells), y=..., z=...)``.
        img_encoder: Configuration of the image encoder.
        decoder: Configuration of the bird's-eye network; its ``in_channels`` are filled in.
        heads: Configurations of the heads by name; 'segmentation' must be among them.
        rasterizers: Configurations by sensor, 'radar' and 'lidar'; their ``grid`` is this one
            unless they have their own.
        fuser: Configuration of the fusion; its ``in_channels`` are filled in.
        lift: Configuration of the lift; its ``grid`` is filled in.
        camera_pool: Configuration of what joins the cameras' volumes.
        camera_names: Names of the cameras, in the order of the images.
        flip_augmentation: Mirrors images, and maps between fusion and heads, at random while
            training, and mirrors back what comes out (SimpleBEV's ``rand_flip``).
        data_preprocessor: As in MMEngine.
        init_cfg: As in MMEngine.

    Raises:
        UnknownNameError: If a sensor is none of 'radar' and 'lidar'.
        InputError: If there is no segmentation head.
    """

    def __init__(
        self,
        grid: Mapping[str, Sequence[float]],
        img_encoder: dict,
        decoder: dict,
        heads: Mapping[str, dict],
        rasterizers: Mapping[str, dict] | None = None,
        fuser: dict | None = None,
        lift: dict | None = None,
        camera_pool: dict | None = None,
        camera_names: Sequence[str] = CAMERAS,
        flip_augmentation: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        rasterizers = rasterizers or {}
        unknown = [name for name in rasterizers if name not in POINT_SENSORS]
        if unknown:
            raise UnknownNameError(
                f'Unknown sensors {unknown}: expected among {list(POINT_SENSORS)}.'
            )
        if 'segmentation' not in heads:
            raise InputError(f"Expected a head 'segmentation', received {list(heads)}.")
        self.grid = VoxelGrid.of(grid)
        self.camera_names = tuple(camera_names)
        self.flip_augmentation = flip_augmentation
        self.img_encoder = MODELS.build(img_encoder)
        self.lift = _build(lift or {}, type='explain3d.BilinearLift', grid=self.grid)
        self.camera_pool = _build(camera_pool or {}, type='explain3d.CameraMean')
        # The order of the sensors is that of POINT_SENSORS, whatever that of the config.
        self.rasterizers = nn.ModuleDict(
            {
                name: _build(rasterizers[name], type='explain3d.PointRasterizer', grid=self.grid)
                for name in POINT_SENSORS
                if name in rasterizers
            }
        )
        channels = [self.img_encoder.out_channels * self.grid.shape[1]]
        channels += [rasterizer.out_channels for rasterizer in self.rasterizers.values()]
        self.fuser = _build(
            fuser or {},
            type='explain3d.ConcatConvFuser',
            in_channels=channels,
            out_channels=self.img_encoder.out_channels,
        )
        self.decoder = _build(
            decoder, type='explain3d.BEVUNet', in_channels=self.fuser.out_channels
        )
        self.heads = nn.ModuleDict(
            {
                name: _build(head, in_channels=self.decoder.out_channels)
                for name, head in heads.items()
            }
        )

    @property
    def sensors(self) -> tuple[str, ...]:
        """Names of the sensors in the order in which the fuser gets their maps."""
        return ('camera', *self.rasterizers)

    @property
    def lmd_outputs(self) -> tuple[str, ...]:
        """Paths of the modules whose outputs are worth decomposing, segmentation logits first."""
        return tuple(
            f'heads.{name}' for name in sorted(self.heads, key=lambda name: name != 'segmentation')
        )

    def lmd_once(self, seeds: Sequence[Seed]) -> tuple[str, ...]:
        """Returns paths of what need not run again on one input while rules differ.

        Args:
            seeds: Where the decomposition begins; nothing that contains one is among the paths.
        """
        fused = all(s.module.split('.')[0] in ('fuser', 'decoder', 'heads') for s in seeds)
        before = 'sensor_maps' if fused else 'img_encoder'
        return ('data_preprocessor', before, *self.lmd_outputs)

    def lmd_seeds(self, level: str = 'sensors') -> list[Seed]:
        """Returns where to begin a decomposition.

        Args:
            level: 'sensors': camera, radar, LiDAR. 'cameras': each camera by its name instead.

        Raises:
            UnknownNameError: If the level is another.
        """
        seeds = [
            Seed('fuser', path=f'0.{index}', modality=sensor)
            for index, sensor in enumerate(self.sensors)
        ]
        if level == 'cameras':
            each = Seed('lift', at='output', dim=1, split=dict.fromkeys(self.camera_names, 1))
            return [each, *seeds[1:]]
        if level != 'sensors':
            raise UnknownNameError(
                f"Unknown level {level!r} of modalities: expected 'sensors' or 'cameras'."
            )
        return seeds

    def sensor_maps(
        self, inputs: Mapping[str, object], samples: Sequence[Det3DDataSample]
    ) -> list[Tensor]:
        """Returns each sensor's bird's-eye map (B, C_m, Z, X), in the order of ``sensors``.

        Args:
            inputs: 'imgs' (B, S, 3, H, W), and lists of B clouds: 'radar', 'points'.
            samples: B data samples with the calibration in their metainfo.

        Raises:
            InputError: If a sensor, its calibration or its fields are missing or do not fit.
        """
        images = required(inputs, 'imgs', 'camera')
        if images.dim() != 5 or images.shape[1] != len(self.camera_names):
            raise InputError(
                f'Expected images (B, {len(self.camera_names)}, 3, H, W) of {self.camera_names}, '
                f'received {tuple(images.shape)}: load these cameras, or set camera_names.'
            )
        features = self._encode(images)
        cam2img, cam2ref = (
            calibration(samples, name, len(self.camera_names), features)
            for name in ('cam2img', 'cam2ref')
        )
        volumes = self.lift(features, cam2img, cam2ref, images.shape[-2:])
        maps = [self.camera_pool(volumes)]
        for name, rasterizer in self.rasterizers.items():
            key, fields = POINT_SENSORS[name]
            clouds = required(inputs, key, name)
            fields = samples[0].metainfo.get(f'{name}_fields', fields)
            if fields is None:
                raise InputError(
                    f"Expected '{name}_fields', the names of the columns of the {name} points, in "
                    'the metainfo of the data samples: let the packing transform keep it.'
                )
            # Half precision would move points by cells: it is for maps only.
            clouds = [cloud.to(cam2ref.dtype) for cloud in clouds]
            maps.append(rasterizer(clouds, fields).to(maps[0].dtype))
        return maps

    def extract_feat(
        self, inputs: Mapping[str, object], samples: Sequence[Det3DDataSample]
    ) -> Tensor:
        """Returns the (B, C, Z, X) map that the heads read; arguments as in ``sensor_maps``."""
        maps = self.sensor_maps(inputs, samples)
        if not (self.training and self.flip_augmentation):
            return self.decoder(self.fuser(maps))
        flips = [_coin(maps[0]), _coin(maps[0])]
        maps = [_mirror(_mirror(each, -1, flips[0]), -2, flips[1]) for each in maps]
        return _mirror(_mirror(self.decoder(self.fuser(maps)), -2, flips[1]), -1, flips[0])

    def loss(
        self, batch_inputs_dict: dict, batch_data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """Returns the losses of all heads, named ``{head}_loss`` and so on.

        Args:
            batch_inputs_dict: As in ``sensor_maps``.
            batch_data_samples: With ``gt_bev_seg`` (data and, optionally, valid), and
                ``gt_bev_{name}`` for each other target of a head.

        Raises:
            InputError: If a ground truth is missing.
        """
        outputs = self._forward(batch_inputs_dict, batch_data_samples)
        targets = self._targets(batch_data_samples, outputs['segmentation'])
        losses = {}
        for name, head in self.heads.items():
            for kind, value in head.loss(outputs[name], targets).items():
                losses[f'{name}_{kind}'] = value
        return losses

    def predict(
        self, batch_inputs_dict: dict, batch_data_samples: Sequence[Det3DDataSample]
    ) -> Sequence[Det3DDataSample]:
        """Adds ``pred_bev_seg`` with its (1, Z, X) ``logits`` to each data sample."""
        logits = self._forward(batch_inputs_dict, batch_data_samples)['segmentation']
        for sample, each in zip(batch_data_samples, logits, strict=True):
            sample.pred_bev_seg = PixelData(logits=each)
        return batch_data_samples

    def _forward(
        self, batch_inputs_dict: dict, batch_data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """Returns the raw map (B, C, Z, X) of each head by its name."""
        features = self.extract_feat(batch_inputs_dict, batch_data_samples)
        return {name: head(features) for name, head in self.heads.items()}

    def _encode(self, images: Tensor) -> Tensor:
        """Returns (B, S, C, Hf, Wf) features of (B, S, 3, H, W) images."""
        flat = images.flatten(0, 1)
        if self.training and self.flip_augmentation:
            flips = _coin(flat)
            features = _mirror(self.img_encoder(_mirror(flat, -1, flips)), -1, flips)
        else:
            features = self.img_encoder(flat)
        return features.unflatten(0, images.shape[:2])

    def _targets(self, samples: Sequence[Det3DDataSample], like: Tensor) -> dict[str, Tensor]:
        """Returns the ground truth of all heads, each (B, C, Z, X)."""
        segmentation = _stack(samples, 'gt_bev_seg', 'data', like)
        targets = {'segmentation': segmentation, 'valid': torch.ones_like(segmentation)}
        if 'valid' in samples[0].gt_bev_seg:
            targets['valid'] = _stack(samples, 'gt_bev_seg', 'valid', like)
        for name in {head.target for head in self.heads.values()} - {None}:
            targets[name] = _stack(samples, f'gt_bev_{name}', 'data', like)
        return targets


def _build(cfg: Mapping, **defaults: object) -> nn.Module:
    return MODELS.build({**defaults, **cfg})


def _stack(samples: Sequence[Det3DDataSample], field: str, key: str, like: Tensor) -> Tensor:
    """Returns (B, C, Z, X) of the ground truth ``field`` in the dtype of ``like``."""
    if any(field not in sample for sample in samples):
        raise InputError(
            f'Expected {field!r} in each data sample for the loss: let the pipeline make it, or '
            'remove the head that needs it.'
        )
    truth = torch.stack([sample.get(field).get(key) for sample in samples]).to(like)
    if truth.shape[-2:] != like.shape[-2:]:
        raise InputError(
            f'Expected {field!r} on the grid (Z, X) = {tuple(like.shape[-2:])} of the model, '
            f'received {tuple(truth.shape[-2:])}: use one grid for pipeline and model.'
        )
    return truth


def _coin(like: Tensor) -> Tensor:
    """Returns (B, 1, 1, 1) random booleans."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) < 0.5


def _mirror(maps: Tensor, dim: int, chosen: Tensor) -> Tensor:
    return torch.where(chosen, maps.flip(dim), maps)
