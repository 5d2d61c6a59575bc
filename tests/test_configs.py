"""Every config that ships loads, and what it names can be built."""

from pathlib import Path

import pytest

pytest.importorskip('mmdet3d')

from mmengine.config import Config
from mmengine.registry import HOOKS, init_default_scope

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob('[!_]*/*.py'))
EXPLAINING = [name for name in CONFIGS if name.startswith(('ffam/', 'contribution/'))]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet3d')


def test_there_are_configs():
    assert len(CONFIGS) >= 9
    assert len(EXPLAINING) >= 6


@pytest.mark.parametrize('name', CONFIGS)
def test_model_of_the_config_builds(name):
    from mmdet3d.registry import MODELS

    model = MODELS.build(Config.fromfile(ROOT / name).model)
    assert sum(p.numel() for p in model.parameters()) > 1e6


@pytest.mark.parametrize('name', EXPLAINING)
def test_explainer_of_the_config_builds_and_its_layer_is_there(name):
    from mmdet3d.registry import MODELS

    from explain3d.adapters.common.layers import find_layer
    from explain3d.adapters.mmdet3d.layers import layers

    config = Config.fromfile(ROOT / name)
    hook = HOOKS.build(config.custom_hooks[0])
    found = find_layer(layers(MODELS.build(config.model)), hook.explainer['layer'])
    # FFAM's block is the paper's, with 64 channels.
    stride = 8 if hook.explainer['type'] == 'Contribution' else 4
    assert found.geometry.stride[:2] == (stride, stride)
