"""Names of the authors' parameters, both ways, and the tool that renames a checkpoint."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet3d')

from mmengine.config import Config

from explain3d.core.errors import CheckpointMismatchError
from explain3d.locations import config_path
from explain3d.models.simplebev.authors_names import convert, ours, theirs

from . import simplebev_cases as cases

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_simple_bev.py'


@pytest.fixture(scope='module')
def model():
    return cases.small_model()


@pytest.fixture
def state(model):
    return {theirs(name): value.clone() for name, value in model.state_dict().items()}


def test_names_are_one_to_one(model, state):
    names = list(model.state_dict())
    assert len(state) == len(names)
    assert [ours(theirs(name)) for name in names] == names


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('encoder.backbone.4.0.downsample.1.running_var', 'img_encoder.backbone.layer1.0.'),
        ('encoder.layer3.22.conv3.weight', 'img_encoder.backbone.layer3.22.conv3.weight'),
        ('decoder.up3_skip.upsample_layer.1.weight', 'decoder.up3_skip.conv.weight'),
        ('decoder.instance_center_head.3.bias', 'heads.center.predictor.bias'),
        ('decoder.feat_head.0.weight', 'heads.feature.conv.weight'),
        ('ce_weight', 'heads.segmentation.log_variance'),
    ],
)
def test_names_of_the_authors(name, expected):
    assert ours(name).startswith(expected)


def test_convert_ignores_the_prefix_of_a_parallel_model(model, state):
    converted = convert({f'module.{name}': value for name, value in state.items()}, model)
    assert set(converted) == set(model.state_dict())


def test_what_does_not_fit_is_named(model, state):
    state['decoder.instance_future_head.0.weight'] = state.pop('decoder.bn1.weight')
    state['bev_compressor.0.weight'] = state['bev_compressor.0.weight'][:, 1:]
    with pytest.raises(CheckpointMismatchError) as caught:
        convert(state, model)
    for part in (
        '1 not in the model (decoder.instance_future_head.0.weight)',
        '1 not in the file (decoder.bn1.weight)',
        '1 of another shape (bev_compressor.0.weight (8, 99, 3, 3) for (8, 100, 3, 3))',
        'choose the configuration',
    ):
        assert part in str(caught.value)


@pytest.fixture
def tool(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location('convert_simple_bev', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(checkpoint: dict) -> Path:
        torch.save(checkpoint, tmp_path / 'theirs.pth')
        config = config_path('_base_/models/simplebev_small.py')
        files = [str(tmp_path / name) for name in ('theirs.pth', 'ours.pth')]
        monkeypatch.setattr(sys, 'argv', ['convert', str(config), *files])
        module.main()
        return tmp_path / 'ours.pth'

    return run


def test_tool_writes_what_loads_strictly(tool):
    config = Config.fromfile(config_path('_base_/models/simplebev_small.py')).model
    first, second = cases.build(config), cases.build(config)
    state = {theirs(name): value for name, value in first.state_dict().items()}
    target = tool({'model_state_dict': state, 'optimizer_state_dict': {'state': {}}})
    second.load_state_dict(torch.load(target, weights_only=True)['state_dict'], strict=True)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_tool_refuses_other_checkpoints(tool):
    with pytest.raises(CheckpointMismatchError, match=r"'model_state_dict', received .*'weights'"):
        tool({'weights': {}})
