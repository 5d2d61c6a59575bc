"""Small runs that the configurations of the documents are merged into, each with one frame."""

import re

import tiny_detectors as tiny
import tiny_run
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch.utils.data import Dataset

from tests.models import fusion_cases, simplebev_cases


class OneFrame(Dataset):
    """A data set of one frame."""

    metainfo = METAINFO = dict(classes=('car', 'truck', 'bus', 'bicycle', 'pedestrian'))

    def __init__(self, **kwargs):
        pass

    def full_init(self):
        pass

    def __len__(self):
        return 1


@DATASETS.register_module()
class DocumentedFusionFrame(OneFrame):
    def __getitem__(self, index):
        return fusion_cases.item(index)


@DATASETS.register_module()
class DocumentedBEVFrame(OneFrame):
    metainfo = METAINFO = dict(classes=('vehicle',))

    def __getitem__(self, index):
        batch = simplebev_cases.batch((index,), sensors=('radar',))
        (sample,) = batch['data_samples']
        sample.set_metainfo(dict(token='t0', cam_names=[f'CAM_{i}' for i in range(6)]))
        return dict(inputs={k: v[0] for k, v in batch['inputs'].items()}, data_samples=sample)


@DATASETS.register_module()
class DocumentedSweepsFrame(OneFrame):
    metainfo = METAINFO = dict(classes=tiny.CLASSES)

    def __getitem__(self, index):
        points = torch.from_numpy(tiny.cloud(index))
        lag = 0.05 * (torch.arange(len(points)) % 2)
        meta = dict(token='t0', box_type_3d=LiDARInstance3DBoxes)
        sample = Det3DDataSample(metainfo=meta)
        return dict(inputs=dict(points=torch.cat([points, lag[:, None]], 1)), data_samples=sample)


@MODELS.register_module()
def DocumentedFusionModel(**_):  # noqa: N802 - configurations name it like the classes around it
    return fusion_cases.build()


@MODELS.register_module()
def DocumentedBEVModel(**_):  # noqa: N802
    return simplebev_cases.small_model('radar')


@MODELS.register_module()
def DocumentedSweepsModel(**_):  # noqa: N802
    config = ConfigDict(tiny.centerpoint_voxel())
    config.pts_voxel_encoder.num_features = config.pts_middle_encoder.in_channels = 5
    return tiny.build(config)


@MODELS.register_module()
def DocumentedLidarModel(**_):  # noqa: N802
    return tiny.build({**tiny.second(), 'test_cfg': {**tiny.ANCHOR_TEST, 'max_num': 3}})


def lidar(folder):
    """A detector of LiDAR points with three detections, on an annotated frame."""
    data = folder / 'data'
    if not data.exists():
        tiny_run.write_dataset(data, frames=1)
    return tiny_run.config_text(data, model=dict(type='DocumentedLidarModel'))


def of_sensors(name):
    """Returns what writes the base for a model and a data set that are registered above."""

    def text(folder):
        settings = dict(
            default_scope='mmdet3d',
            model=dict(type=f'Documented{name}Model'),
            test_dataloader=dict(
                batch_size=1,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type=f'Documented{name}Frame'),
            ),
            test_evaluator=[],
            test_cfg=dict(type='TestLoop'),
        )
        return ''.join(f'{key} = {value!r}\n' for key, value in settings.items())

    return text


#: What a snippet has to say to be run with a base; the first that fits is taken.
BASES = {
    r"channel=4.*'explain3d.SensorShareHook'": of_sensors('Sweeps'),
    r'heads\.segmentation': of_sensors('BEV'),
    r'explain3d\.(LMDHook|SensorShareHook)': of_sensors('Fusion'),
    '': lidar,
}


def base_of(text):
    """Returns what writes the base of a configuration."""
    return next(make for pattern, make in BASES.items() if re.search(pattern, text, re.DOTALL))


def write(folder, text):
    """Writes a configuration of the documents with the base that it is run with.

    Args:
        folder: Where.
        text: The configuration. A base that it names is replaced by the small one; it gets a hook
            if it has none.

    Returns:
        The file.
    """
    base = folder / 'base.py'
    base.write_text(base_of(text)(folder))
    init_default_scope('mmdet3d')
    model = MODELS.build(Config.fromfile(base).model)
    torch.save(dict(state_dict=tiny.half(model), meta={}), folder / 'weights.pth')
    base.write_text(f'{base.read_text()}load_from = {str(folder / "weights.pth")!r}\n')
    text = re.sub(r'^_base_ = .*$', '', text, flags=re.MULTILINE)
    imported = re.search(r'from \.(\w+) import \*', text)
    if imported:  # A configuration that imports what it names, its base too.
        base.rename(folder / f'{imported[1]}.py')
        (folder / 'config.py').write_text(text)
        return folder / 'config.py'
    if not re.search(r'^(custom_hooks|model) = ', text, re.MULTILINE):
        text += "custom_hooks = [dict(type='explain3d.ExplainerHook', explainer='RandomMap')]\n"
    (folder / 'config.py').write_text(f"_base_ = ['base.py']\n{text}")
    return folder / 'config.py'
