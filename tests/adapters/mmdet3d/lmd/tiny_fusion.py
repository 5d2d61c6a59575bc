"""A camera-radar network of a few thousand parameters, its data set, and configurations."""

import numpy as np
import torch
from mmdet3d.models import Base3DDetector
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import METRICS
from mmengine.structures import PixelData
from torch import nn
from torch.utils.data import Dataset

from explain3d.lmd import Seed

CAMERAS = ('CAM_FRONT', 'CAM_BACK')
CELLS = 12
LAYERS = ['fuse', 'block']


@MODELS.register_module()
class TinyPreprocessor(BaseDataPreprocessor):
    def forward(self, data, training=False):
        inputs = {**data['inputs'], 'img': torch.stack([i.float() for i in data['inputs']['img']])}
        return dict(inputs=inputs, data_samples=data['data_samples'])


@MODELS.register_module()
class TinyFusion(Base3DDetector):
    """Sums pictures over cameras by their calibration, rasterises radar, fuses, predicts."""

    def __init__(self, data_preprocessor=None, init_cfg=None, **kwargs):
        super().__init__(data_preprocessor or TinyPreprocessor(), init_cfg)
        self.encoder = nn.Conv2d(3, 4, 3, padding=1)
        self.fuse = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.GELU(),
        )  # fmt: skip
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.head = nn.Conv2d(8, 1, 1)
        self.grid = dict(x=(-6, 6, CELLS), y=(-1, 1, 1), z=(-6, 6, CELLS))
        self.spare = nn.Identity()

    lmd_outputs = ('head',)

    def lmd_seeds(self, level='sensors'):
        radar = Seed('fuse', split=dict(camera=4, radar=2))
        return [radar] if level == 'sensors' else [Seed('fuse', path='nowhere', modality='x')]

    def forward_maps(self, inputs, samples):
        images = inputs['img'] / 255
        size = images.shape[1]
        features = self.encoder(images.flatten(0, 1)).unflatten(0, (-1, size)).tanh()
        scale = torch.as_tensor(np.stack([s.metainfo['cam2ref'] for s in samples])).float()
        camera = (features * scale[:, :, None, None, None, 0, 0]).sum(1)
        radar = torch.zeros(len(samples), 2, CELLS, CELLS)
        for b, points in enumerate(inputs['radar']):
            column, row = (points[:, [0, 2]] + 6).long().clamp(0, CELLS - 1).unbind(1)
            radar[b, 0, row, column] = 1
            radar[b, 1, row, column] = points[:, 3]
        return torch.cat([camera, radar], 1)

    def predict(self, inputs, samples, **kwargs):
        logits = self.head(self.block(self.fuse(self.forward_maps(inputs, samples))))
        for sample, each in zip(samples, logits, strict=True):
            sample.pred_bev_seg = PixelData(logits=each)
        return samples

    def loss(self, *args, **kwargs):
        raise NotImplementedError

    def _forward(self, *args, **kwargs):
        raise NotImplementedError

    def extract_feat(self, *args, **kwargs):
        raise NotImplementedError


@DATASETS.register_module()
class TinyScenes(Dataset):
    METAINFO = metainfo = dict(classes=('vehicle',))

    def __init__(self, count=5, **kwargs):
        self.count = count

    def full_init(self):
        pass

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return item(index)


@METRICS.register_module()
class TinyMetric(BaseMetric):
    """Means of logits, and what came along as decompositions."""

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            found = sample.get('decomposition')
            radar = float(found.output['radar'].abs().mean()) if found else 0.0
            logit = float(sample['pred_bev_seg']['logits'].mean())
            self.results.append(dict(logit=logit, radar=radar))

    def compute_metrics(self, results):
        return {key: float(np.mean([r[key] for r in results])) for key in results[0]}


def item(index, bad=False):
    rng = np.random.default_rng(index)
    images = torch.from_numpy(rng.integers(0, 255, (2, 3, CELLS, CELLS)).astype(np.uint8))
    radar = torch.from_numpy(rng.uniform(-6, 6, (7, 4)).astype(np.float32))
    if bad:
        radar[3, 3] = torch.nan
    calibration = np.tile(np.eye(4), (2, 1, 1)) * rng.uniform(0.5, 1.5, (2, 1, 1))
    meta = dict(token=f't{index}', cam_names=CAMERAS, cam2ref=calibration, radar_fields='xyzv')
    sample = Det3DDataSample(metainfo=meta)
    truth = torch.from_numpy((rng.random((1, CELLS, CELLS)) < 0.1).astype(np.uint8))
    sample.gt_bev_seg = PixelData(data=truth, valid=torch.ones_like(truth).bool())
    return dict(inputs=dict(img=images, radar=radar), data_samples=sample)


def batch(*indices, bad=()):
    return pseudo_collate([item(i, i in bad) for i in indices])


def build(seed=0):
    torch.manual_seed(seed)
    model = TinyFusion().eval()
    model.block[1].running_mean.normal_()
    model.block[1].running_var.uniform_(0.5, 2)
    return model


def config(work_dir, checkpoint, count=5, batch_size=2, **extra):
    return dict(
        default_scope='mmdet3d',
        custom_imports=dict(imports=['explain3d.adapters.mmdet3d'], allow_failed_imports=False),
        work_dir=str(work_dir),
        load_from=str(checkpoint),
        model=dict(type='TinyFusion'),
        test_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='TinyScenes', count=count),
        ),
        test_evaluator=dict(type='mmengine.TinyMetric'),
        test_cfg=dict(type='TestLoop'),
        experiment_name=f'tiny{abs(hash(str(work_dir)))}',
        **extra,
    )
