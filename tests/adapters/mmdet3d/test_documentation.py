"""The examples of docs/mmdet3d.md run."""

import re
from pathlib import Path

import pytest
import tiny_detectors as tiny
import tiny_run
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS

TEXT = (Path(__file__).parents[3] / 'docs/mmdet3d.md').read_text()


def example(heading):
    section = TEXT.split(f'## {heading}\n')[1].split('\n## ')[0]
    return re.search(r'```python\n(.*?)```', section, re.DOTALL)[1]


def test_python_example(tmp_path, monkeypatch, capsys):
    data = tiny_run.write_dataset(tmp_path / 'data', frames=1)
    (tmp_path / 'config.py').write_text(
        tiny_run.config_text(data) + f'class_names = {tiny.CLASSES!r}\n'
    )
    state = tiny.half(tiny.build(tiny.second()))
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'checkpoint.pth')
    tiny.cloud(0).tofile(tmp_path / 'frame.bin')
    monkeypatch.chdir(tmp_path)
    exec(example('From Python'), {})
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.split(' ')[0] in tiny.CLASSES for line in lines) == 5


def test_hook_example(tmp_path):
    (tmp_path / 'config.py').write_text(example('A hook in the configuration'))
    config = Config.fromfile(tmp_path / 'config.py')
    assert config.model.type == 'VoxelNet'
    hook = HOOKS.build(config.custom_hooks[0])
    assert hook.outputs == dict(dir='work_dirs/ffam', pictures=['sheet'])


def test_model_example(tmp_path):
    base = tiny_run.config_text(tiny_run.write_dataset(tmp_path / 'data', frames=1))
    (tmp_path / 'second_of_my_project.py').write_text(base)
    (tmp_path / 'config.py').write_text(example('A model that explains itself'))
    model = tiny.build(Config.fromfile(tmp_path / 'config.py').model)
    assert type(model).__name__ == 'VoxelNet'
    assert 'predict' in vars(model)


@pytest.mark.parametrize('name', ['second', 'centerpoint_voxel'])
def test_layers_are_those_of_the_table(name):
    from explain3d.adapters.mmdet3d import layers

    model = tiny.build(tiny.MODELS[name]())
    for layer in layers(model):
        for alias in layer.aliases:
            assert f'`{alias}`' in TEXT
            if alias == 'stride4':
                assert f'`{layer.name}`' in TEXT
