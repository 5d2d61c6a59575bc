"""The configurations of README and docs are run; the examples of docs/mmdet3d.md, too."""

import ast
import re
import sys
from pathlib import Path

import documented
import pytest
import tiny_detectors as tiny
import tiny_run
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS

from explain3d.adapters.mmdet3d import test_command
from explain3d.methods import EXPLAINERS
from tests.helpers.snippets import all_snippets, parameters

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


#: What makes explanations: two of them in one run would explain one detector twice.
_EXPLAINING = {'custom_hooks', 'model'}


def _fits(group, snippet):
    """Whether a snippet says nothing that one of the group says otherwise."""
    values = snippet.values
    if documented.base_of(snippet.text) is not documented.base_of(group[0].text):
        return False
    for other in (each.values for each in group):
        common = values.keys() & other.keys() - {'_base_'}
        explains = [bool(v.keys() & _EXPLAINING) for v in (values, other)]
        if all(explains) or any(values[name] != other[name] for name in common):
            return False
    return True


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a configuration as tools/test.py does; returns the files that it writes."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    # Formatting a configuration for the log takes longer than its run.
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(EXPLAINERS, '_entries', dict(EXPLAINERS._entries))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)

    def run(text):
        test_command.main([str(documented.write(tmp_path, text)), '--work-dir', 'work'])
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*.*'))

    yield run
    for name in set(sys.modules) - modules:
        if name.startswith('my_project'):
            del sys.modules[name]


def _write_modules(page, folder):
    """Writes the modules of a page, blocks that begin with the name of their file."""
    for snippet in all_snippets('program'):
        named = re.match(r'# ([\w/]+\.py)\n', snippet.text)
        if snippet.page == page and named:
            (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[1]).write_text(snippet.text)


@pytest.mark.parametrize('snippets', parameters('configuration', _fits))
def test_configurations_run(snippets, run, tmp_path):
    for snippet in snippets:
        _write_modules(snippet.page, tmp_path)
    files = run('\n'.join(snippet.text for snippet in snippets))
    values = {name: value for snippet in snippets for name, value in snippet.values.items()}
    text = values.get('custom_hooks', '') + values.get('model', '')
    folders = re.findall(r"dir='([^']+)'", text) or ['work']
    for folder in folders:
        assert any(re.match(rf'{folder}/.*\.npz', file) for file in files), (folder, files)
    pictures = re.search(r'pictures=(\[[^]]+\])', text)
    for kind in ast.literal_eval(pictures[1]) if pictures else ():
        assert any(re.search(rf'pictures/.*_{kind}(_\d+)?\.png', file) for file in files), kind
    for folder in re.findall(r"dir='([^']+)'", values.get('test_evaluator', '')):
        assert any(file.startswith(f'{folder}/') for file in files), folder


@pytest.mark.parametrize('snippets', parameters('arguments', lambda group, snippet: False))
def test_arguments_of_hooks_run(snippets, run):
    """Each explainer that a page lists, with the page's targets."""
    (snippet,) = snippets
    statements = ast.parse(snippet.text).body
    texts = [(each.targets[0].id, ast.unparse(each.value)) for each in statements]
    explainers = [text for name, text in texts if name == 'explainer'] or ["'RandomMap'"]
    others = ''.join(f', {name}={text}' for name, text in texts if name != 'explainer')
    for number, explainer in enumerate(explainers):
        outputs = f", outputs=dict(dir='out{number}')"
        hook = f"dict(type='explain3d.ExplainerHook', explainer={explainer}{others}{outputs})"
        assert f'out{number}/000000.npz' in run(f'custom_hooks = [{hook}]\n')
