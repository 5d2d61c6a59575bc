"""Every config that ships loads, and what it names can be built."""

import ast
import functools
from pathlib import Path

import pytest

pytest.importorskip('mmdet3d')

from mmengine.config import Config, ConfigDict
from mmengine.registry import HOOKS, init_default_scope

ROOT = Path(__file__).parents[1] / 'configs'
#: Without those on top of a configuration that others have.
CONFIGS = sorted(
    str(p.relative_to(ROOT))
    for p in ROOT.glob('[!_]*/*.py')
    if '$BEVFUSION_CONFIG' not in p.read_text()
)
BENCHMARKS = [name for name in CONFIGS if name.startswith('benchmark/')]
EXPLAINING = [n for n in CONFIGS if n.startswith(('ffam/', 'contribution/')) or '/ffam_' in n]


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet3d')


def test_there_are_configs():
    assert len(CONFIGS) >= 9
    assert len(EXPLAINING) >= 6
    assert len(BENCHMARKS) >= 9


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


@functools.cache
def layers_of(model):
    """The layers of a model's configuration, given as text: benchmarks share detectors."""
    from mmdet3d.registry import MODELS

    from explain3d.adapters.mmdet3d.layers import layers

    return layers(MODELS.build(ConfigDict(ast.literal_eval(model))))


@pytest.mark.parametrize('name', BENCHMARKS)
def test_methods_of_a_benchmark_build_and_their_layers_are_there(name):
    from explain3d.adapters.common.benchmark_plan import BenchmarkPlan
    from explain3d.adapters.common.layers import find_layer
    from explain3d.methods import EXPLAINERS

    config = Config.fromfile(ROOT / name)
    plan = BenchmarkPlan.of(config.benchmark.to_dict(), config=name)
    assert '_delete_' not in plan.methods
    assert len(plan.methods) >= 4
    assert plan.reference in (None, *plan.methods)
    table = layers_of(str(config.model.to_dict()))
    built = [EXPLAINERS.build(dict(method)) for method in plan.methods.values()]
    for explainer in built:
        layer = find_layer(table, explainer.layer)
        if getattr(explainer, 'init', 'random') != 'random':
            assert explainer.rank <= layer.channels
    settings = [(type(explainer).__name__, explainer.settings()) for explainer in built]
    assert all(settings.count(some) == 1 for some in settings)


def test_the_benchmark_has_every_method():
    from explain3d.methods import EXPLAINERS

    methods = Config.fromfile(ROOT / 'benchmark/benchmark_second_miniworld.py').benchmark.methods
    # Tests may have registered others.
    ours = {name for name in EXPLAINERS if EXPLAINERS.get(name).__module__.startswith('explain3d.')}
    assert {method['type'] for method in methods.values()} == ours
