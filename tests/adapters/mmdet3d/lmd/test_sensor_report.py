"""Whole test runs that tell which sensor made the boxes: hook, evaluator, command."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, METRICS, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import Dataset

pytest.importorskip('mmdet3d')

from mmdet3d.registry import DATASETS, MODELS

from explain3d.adapters.mmdet3d.lmd import SensorShareHook, SensorShareMetric
from explain3d.adapters.mmdet3d.lmd.share_decomposer import ShareDecomposer
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.results import ResultStore
from explain3d.lmd.tags import FrameTags, write_tags
from explain3d.locations import config_path
from tests.models import fusion_cases as cases

CLASSES = ('car', 'truck', 'bus', 'bicycle', 'pedestrian')


@DATASETS.register_module()
class TinyFusionFrames(Dataset):
    metainfo = METAINFO = dict(classes=CLASSES)

    def __init__(self, indices=3, **kwargs):
        self.count = indices

    def full_init(self):
        pass

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return cases.item(index)


@MODELS.register_module()
def TinyFusionDetector():  # noqa: N802 - configurations name it like the classes around it
    """Keeps the runners' configurations short, which they format several times."""
    return cases.build(seed=1)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save(dict(state_dict=cases.build().state_dict(), meta={}), path)
    return path


def config_of(folder, checkpoint, **extra):
    return Config(
        dict(
            default_scope='mmdet3d',
            work_dir=str(folder),
            load_from=str(checkpoint),
            model=dict(type='TinyFusionDetector'),
            test_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type='TinyFusionFrames'),
            ),
            test_evaluator=[dict(type='explain3d.OverlapAP', iou_thr=[0.1])],
            test_cfg=dict(type='TestLoop'),
            experiment_name=f'tiny{abs(hash(str(folder)))}',
            **extra,
        )
    )


PAGE = re.findall(
    r'```python\n(.*?)```',
    (Path(__file__).parents[4] / 'docs/sensor_shares.md').read_text('utf-8'),
    re.DOTALL,
)
HOOK = dict(type='explain3d.SensorShareHook', score_thr=0.3)


def test_a_run_is_what_it_is_without_us_and_goes_on_where_it_stopped(
    tmp_path, checkpoint, monkeypatch
):
    plain = Runner.from_cfg(config_of(tmp_path / 'plain', checkpoint)).test()
    config = config_of(tmp_path / 'ours', checkpoint, custom_hooks=[HOOK])
    config.test_evaluator.append(dict(type='explain3d.SensorShareMetric'))
    runner = Runner.from_cfg(config)
    found = runner.test()
    assert {key: found[key] for key in plain} == plain
    assert 'test_step' not in vars(runner.model)  # It let go of the model.
    assert found['sensors/all/boxes'] > 3
    frames = list(ResultStore(tmp_path / 'ours/sensor_shares'))
    assert [frame.frame_id for frame in frames] == ['t0', 't1', 't2']
    assert sum(len(frame.parts) for frame in frames) == found['sensors/all/boxes']
    assert frames[0].detections.class_names == CLASSES
    work = tmp_path / 'work_dirs/sensors/frames'
    work.parent.mkdir(parents=True)
    (tmp_path / 'ours/sensor_shares').rename(work)
    (work / 't0.npz').rename(work / 'f.npz')
    monkeypatch.chdir(tmp_path)
    exec(PAGE[1], {})
    (work / 'f.npz').rename(work / 't0.npz')
    work.rename(tmp_path / 'ours/sensor_shares')
    shares = [found[f'sensors/all/share_{name}'] for name in ('camera', 'lidar', 'bias')]
    assert sum(shares) == pytest.approx(1)
    monkeypatch.setattr(ShareDecomposer, 'decompose', None)  # All is there.
    config.experiment_name += 'again'
    again = Runner.from_cfg(config).test()
    assert again == pytest.approx(found, nan_ok=True)


def test_the_command_writes_the_report_in_all_forms(tmp_path, checkpoint, capsys):
    path = Path(__file__).parents[4] / 'tools/sensor_report.py'
    spec = importlib.util.spec_from_file_location('sensor_report_under_test', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    config = config_of(tmp_path / 'work', 'nowhere.pth', sensor_report=dict(score_thr=0.3))
    config.dump(tmp_path / 'config.py')
    write_tags(tmp_path / 'tags.json', {'t1': FrameTags({'weather': 'rain'})})
    figures = tool.main(
        [str(tmp_path / 'config.py'), str(checkpoint), '--frames', '2', '--blank', 'lidar',
         '--tags', str(tmp_path / 'tags.json'),
         '--pictures', '--edges', '0', '8', '--out-dir', str(tmp_path / 'out')]
    )  # fmt: skip
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'frames', 'report.md', 'report.csv', 'report.json', 'report.png'
    }  # fmt: skip
    assert len(list((tmp_path / 'out/frames').glob('*.npz'))) == 2
    pictures = sorted(p.name for p in (tmp_path / 'out/frames/pictures').iterdir())
    assert pictures == ['t0_boxes.png', 't1_boxes.png']
    text = (tmp_path / 'out/report.md').read_text()
    assert 'blanking lidar loses' in text
    assert 'blanking camera' not in text
    assert 'Protocol: frames 2, ' in text
    assert 'score_thr 0.3' in text
    assert 'frames with tags 1' in text
    assert 0 < figures['sensors/weather=rain/boxes'] < figures['sensors/all/boxes']
    content = json.loads((tmp_path / 'out/report.json').read_text())
    assert content['names'] == ['camera', 'lidar', 'bias']
    everything = content['groups'][0]
    assert everything['boxes'] == figures['sensors/all/boxes'] > 0
    assert everything['lost_without_lidar'] == figures['sensors/all/lost_without_lidar']
    assert str(tmp_path / 'out') in capsys.readouterr().out


def test_an_evaluator_without_a_hook_and_without_boxes():
    metric = SensorShareMetric()
    with pytest.raises(InputError, match='add an explain3d.SensorShareHook'):
        metric.process({}, [dict()])
    assert metric.compute_metrics([dict(frame='a', boxes=[], settings={})]) == {'all/boxes': 0}


def test_tags_of_another_split_are_refused(tmp_path, checkpoint):
    write_tags(tmp_path / 'tags.json', {'elsewhere': FrameTags({'weather': 'rain'})})
    config = config_of(tmp_path / 'run', checkpoint, custom_hooks=[HOOK | dict(blank=[])])
    config.test_evaluator.append(
        dict(type='explain3d.SensorShareMetric', tags=str(tmp_path / 'tags.json'))
    )
    with pytest.raises(InputError, match="such as 't0', received those of others.*'elsewhere'"):
        Runner.from_cfg(config).test()


def test_unknown_settings_are_refused():
    with pytest.raises(UnknownNameError, match=r"\['score'\] of SensorShareHook.*'score_thr'"):
        SensorShareHook(score=0.3)


def test_the_shipped_configuration_fits_its_model():
    init_default_scope('mmdet3d')
    config = Config.fromfile(config_path('fusion/lmd_bevfusion_small_mini-nuscenes.py'))
    model = MODELS.build(config.model)
    hook = HOOKS.build(config.custom_hooks[0])
    found = ShareDecomposer(model, **hook.settings)
    assert found.modalities == found.blank == ('camera', 'lidar')
    assert 'explain3d.SensorShareMetric' in [each.type for each in config.test_evaluator]


def test_the_configuration_of_the_page_fits_the_model():
    init_default_scope('mmdet3d')
    page = {}
    exec(PAGE[0], page)
    hook = HOOKS.build(page['custom_hooks'][0])
    assert METRICS.build(page['test_evaluator'][0]).dir == 'work_dirs/sensors'
    assert ShareDecomposer(cases.build(), **hook.settings).modalities == ('camera', 'lidar')
