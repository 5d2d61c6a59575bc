"""Every configuration of LMD fits its model: modules, rules, pictures."""

from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import HOOKS, init_default_scope

import explain3d.adapters.mmdet3d  # noqa: F401 - registers
from explain3d.adapters.mmdet3d.lmd.decomposer import FrameDecomposer
from explain3d.adapters.mmdet3d.lmd.proposals import proposed_seeds
from explain3d.adapters.mmdet3d.lmd.recorder import DecompositionRecorder
from explain3d.adapters.mmdet3d.lmd.separation import SeparationTest
from explain3d.adapters.mmdet3d.lmd.share_decomposer import ShareDecomposer
from tests.adapters.mmdet3d.lmd import toy_bevfusion

ROOT = Path(__file__).parents[4] / 'configs/lmd'
CONFIGS = sorted(p.name for p in ROOT.glob('*.py'))


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet3d')


@pytest.mark.parametrize('name', CONFIGS)
def test_a_configuration_fits_its_model(name):
    config = Config.fromfile(ROOT / name)
    with torch.device('meta'):  # Shapes and names only.
        model = MODELS.build(config.model)
    if 'separation' in name:
        arguments = {k: v for k, v in config.test_cfg.items() if k not in ('type', 'shifts')}
        test = SeparationTest(model, **arguments)
        assert {'sum, identity-ratio', 'ratio, identity-ratio'} <= set(test.rules)
        assert len(test.rules) == 24 + 6
        assert len(set(map(str, test.rules.values()))) == 30
        # The three rules that are not linear have no frozen row; blanked input has one row.
        assert len(test.rows) == 30 + 27 + 1
        # All but the fusion runs once for an input; with single cameras it begins earlier.
        heads = {f'heads.{name}' for name in model.heads} - set(test.outputs)
        assert set(test.once) == {'data_preprocessor', 'sensor_maps', *heads}
        six = SeparationTest(model, arguments['rules'], seeds='cameras')
        assert 'img_encoder' in six.once
        assert 'sensor_maps' not in six.once
        return
    hook = HOOKS.build(config.custom_hooks[0])
    found = FrameDecomposer(model, **hook.settings)
    modalities = [m for seed in found.seeds for m in seed.modalities]
    sensors = name.split('_')[2 if 'r101' not in name else 3].split('-')
    cameras = 6 if 'six-cameras' in name else 1
    assert len(modalities) == (cameras + 1 if cameras == 6 else len(sensors))
    assert set(hook.results['pictures']) <= set(DecompositionRecorder.kinds())
    assert len(found.capture) == 8


@pytest.mark.parametrize('level', ['sensors', 'branches'])
def test_a_configuration_goes_on_top_of_bevfusions_own(level, tmp_path, monkeypatch):
    base = tmp_path / 'bevfusion.py'
    base.write_text(
        "model = dict(type='BEVFusion')\ntest_evaluator = dict(type='NuScenesMetric')\n"
    )
    monkeypatch.setenv('BEVFUSION_CONFIG', str(base))
    config = Config.fromfile(ROOT.parent / f'fusion/lmd_bevfusion_{level}.py')
    assert config.model.type == 'BEVFusion'
    assert [each.type for each in config.test_evaluator] == [
        'NuScenesMetric', 'explain3d.SensorShareMetric',
    ]  # fmt: skip
    hook = HOOKS.build(config.custom_hooks[0])
    model = toy_bevfusion.build()
    found = ShareDecomposer(model, **hook.settings)
    assert found.seeds == proposed_seeds(model, level)
    assert ShareDecomposer(model, **config.sensor_report).settings == found.settings
    monkeypatch.delenv('BEVFUSION_CONFIG')
    with pytest.raises(FileNotFoundError, match='BEVFUSION_CONFIG_is_not_set'):
        Config.fromfile(ROOT.parent / f'fusion/lmd_bevfusion_{level}.py')
