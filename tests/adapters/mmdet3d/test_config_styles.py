"""Every style of configuration that MMEngine reads, with the options of tools/test.py."""

import documented
import pytest
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from explain3d.adapters.mmdet3d import test_command
from explain3d.adapters.mmdet3d.hook import ExplainerHook
from explain3d.methods import RandomMap
from explain3d.registry import METRICS

HOOK = 'explainer=dict(type={0}), select=dict(score_thr=0.0, top_n=2)'
TEXT = f"""
_base_ = ['base.py']
custom_hooks = [dict(type='explain3d.ExplainerHook', {HOOK.format("'RandomMap'")})]
test_evaluator = dict(type='explain3d.SaliencyMetric', figures=['vea'])
"""
IN_DEFAULT_HOOKS = TEXT.replace('custom_hooks = [', 'default_hooks = dict(explain=').replace(
    '))]', ')))'
)
CLASSES = f"""
_base_ = ['base.py']
from explain3d.adapters.mmdet3d.hook import ExplainerHook as hook
from explain3d.adapters.mmdet3d.saliency_metric import SaliencyMetric as metric
from explain3d.methods import RandomMap as method
custom_hooks = [dict(type=hook, {HOOK.format('method')})]
test_evaluator = dict(type=metric, figures=['vea'])
del hook, metric, method
"""
LAZY = f"""
from mmengine.config import read_base
from explain3d.adapters.mmdet3d.hook import ExplainerHook
from explain3d.adapters.mmdet3d.saliency_metric import SaliencyMetric
from explain3d.methods import RandomMap
with read_base():
    from .base import *
custom_hooks = [dict(type=ExplainerHook, {HOOK.format('RandomMap')})]
test_evaluator = dict(type=SaliencyMetric, figures=['vea'])
"""
LAZY_MODEL = """
from mmengine.config import read_base
from explain3d.adapters.mmdet3d.explained_model import ExplainedModel
with read_base():
    from .base import *
model = dict(type=ExplainedModel, detector=model, explainer='RandomMap')
"""
STYLES = dict(
    text=TEXT, default_hooks=IN_DEFAULT_HOOKS, classes=CLASSES, lazy=LAZY, lazy_model=LAZY_MODEL
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The base of all styles, with weights."""
    folder = tmp_path_factory.mktemp('styles')
    documented.write(folder, '')
    return folder


@pytest.mark.parametrize('style', STYLES)
def test_a_run_of_every_style(folder, style, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    monkeypatch.setenv('LOCAL_RANK', '0')
    (folder / f'{style}.py').write_text(STYLES[style])
    figures = test_command.main(
        [
            str(folder / f'{style}.py'),
            *('--work-dir', str(folder / 'work' / style)),
            *('--out-dir', str(folder / 'out' / style)),
            *('--cfg-options', 'test_dataloader.batch_size=1'),
        ]
    )
    assert [path.name for path in (folder / 'out' / style).glob('*.npz')] == ['000000.npz']
    assert not list((folder / 'work' / style).rglob('*.npz'))
    if style != 'lazy_model':
        assert figures['saliency/objects'] == 0


def test_options_reach_hooks_of_every_style(folder):
    for style in ('text', 'classes', 'lazy'):
        (folder / f'{style}.py').write_text(STYLES[style])
        options = ['custom_hooks.0.interval=7', 'custom_hooks.0.explainer.seed=3']
        config = test_command.build_config(
            test_command.parse_args([str(folder / f'{style}.py'), '--cfg-options', *options])
        )
        hook = config.custom_hooks[0]
        assert (hook['interval'], hook['explainer']['seed']) == (7, 3)


def test_a_configuration_made_in_python_with_classes():
    hook = dict(type=ExplainerHook, explainer=dict(type=RandomMap))
    config = Config(dict(custom_hooks=[hook, ExplainerHook()], model=dict(type='VoxelNet')))
    test_command.set_out_dir(config, 'elsewhere')
    assert config.custom_hooks[0].outputs == dict(dir='elsewhere')


@pytest.mark.parametrize('name', sorted(METRICS.module_dict))
def test_every_metric_is_an_evaluator_by_itself(name, tmp_path):
    """MMEngine takes a dict with a key ``metrics`` for an evaluator of another kind."""
    import inspect

    kind = METRICS.get(f'explain3d.{name}')
    known = inspect.signature(kind).parameters
    given = dict(KittiMetricCPU=dict(ann_file=str(tmp_path / 'infos.pkl'))).get(name, {})
    for key, parameter in known.items():
        if key != 'metrics' and parameter.default is not parameter.empty:
            given.setdefault(key, parameter.default)
    runner = Runner.__new__(Runner)
    evaluator = runner.build_evaluator(dict(type=f'explain3d.{name}', **given))
    assert isinstance(evaluator, Evaluator)
    assert type(evaluator.metrics[0]) is kind


def test_the_former_name_of_figures_is_understood():
    with pytest.warns(DeprecationWarning, match='metrics is now called figures'):
        evaluator = Runner.__new__(Runner).build_evaluator(
            dict(type='explain3d.SaliencyMetric', metrics=['vea'])
        )
    assert isinstance(evaluator, Evaluator)
    assert evaluator.metrics[0].measure.evaluator.metrics == ('vea',)
