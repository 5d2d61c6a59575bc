"""Whole test runs: tools/test.py, MMDetection3D's own, downstream configurations, processes."""

import filecmp
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import mmdet3d
import numpy as np
import pytest
import tiny_detectors as tiny
import tiny_run
import torch
from mmengine.runner import Runner

from explain3d.adapters.common.weights import weights_digest
from explain3d.adapters.mmdet3d import test_command as ours
from explain3d.core.errors import CheckpointMismatchError, InputError
from explain3d.core.results import ResultStore, load_metadata

ROOT = Path(__file__).parents[3]
STOCK = Path(mmdet3d.__file__).parent / '.mim/tools/test.py'
HOOK = dict(
    explainer=dict(type='FFAM', rank=4),
    targets=['all', 'score'],
    select=dict(score_thr=0.0, top_n=3),
)


def tool(path):
    spec = importlib.util.spec_from_file_location('tool_under_test', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Point clouds, a plain checkpoint, and configurations with and without the hook."""
    folder = tmp_path_factory.mktemp('run')
    data = tiny_run.write_dataset(folder / 'data')
    torch.save(dict(state_dict=tiny.half(tiny.build(tiny.second()))), folder / 'second.pth')
    (folder / 'plain.py').write_text(tiny_run.config_text(data))
    (folder / 'hook.py').write_text(tiny_run.config_text(data, hook=HOOK))
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """MMEngine asks compilers for their versions, and formats the configuration, at each start."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    monkeypatch.setenv('LOCAL_RANK', '0')


@pytest.fixture(scope='module')
def reference(folder):
    """Metrics of a run with the hook, and its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        patch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
        metrics = run(folder, 'hook.py')
    return metrics, folder / 'hook' / 'explanations'


def run(folder, config, *options, checkpoint='second.pth'):
    arguments = [str(folder / config), *([str(folder / checkpoint)] if checkpoint else [])]
    work_dir = ['--work-dir', str(folder / Path(config).stem)]
    return tool(ROOT / 'tools/test.py').main([*arguments, *work_dir, *options])


def assert_same_files(folder, reference):
    names = sorted(p.name for p in reference.glob('*.npz'))
    assert names == [f'{i:06d}.npz' for i in range(4)]
    assert sorted(p.name for p in Path(folder).glob('*.npz')) == names
    same, _, _ = filecmp.cmpfiles(folder, reference, names, shallow=False)
    assert same == names


def test_metrics_see_predictions_as_they_are_and_explanations(folder, reference):
    plain, explained = run(folder, 'plain.py'), reference[0]
    assert plain['score'] == explained['score']
    assert plain['explained'] == 0
    assert explained['explained'] == 4 * 3
    saliency = sum(float(e.saliency.sum()) for e in ResultStore(reference[1]))
    assert explained['saliency'] == pytest.approx(saliency, rel=1e-6)


def test_ground_truth_comes_along_in_the_lidar_frame(reference):
    """The data set's annotation is in the camera's frame, with the box's lower face as centre."""
    for explanation in ResultStore(reference[1]):
        truth = explanation.ground_truth
        assert truth.names() == ['Car']
        expected = [6.0, -0.5, -1.0 + 1.5 / 2, 3.9, 1.6, 1.5, -0.3 - np.pi / 2]
        assert truth.boxes[0].tolist() == pytest.approx(expected, abs=1e-5)
        assert truth.scores.tolist() == [1]


def test_a_second_run_takes_the_same_figures_from_the_files(folder, reference):
    before = {p: p.stat().st_mtime_ns for p in reference[1].glob('*.npz')}
    assert run(folder, 'hook.py') == reference[0]
    assert {p: p.stat().st_mtime_ns for p in reference[1].glob('*.npz')} == before


def test_the_stock_tool_gives_the_same(folder, reference, monkeypatch):
    arguments = [folder / 'hook.py', folder / 'second.pth', '--work-dir', folder / 'stock']
    monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, arguments)])
    monkeypatch.chdir(folder)
    runpy.run_path(str(STOCK), run_name='__main__')
    assert_same_files(folder / 'stock/explanations', reference[1])


def test_out_dir_and_a_checkpoint_from_the_configuration(folder, reference):
    child = folder / 'child.py'
    child.write_text(f"_base_ = './hook.py'\nload_from = {str(folder / 'second.pth')!r}\n")
    found = run(folder, 'child.py', '--out-dir', str(folder / 'elsewhere'), checkpoint=None)
    assert found == reference[0]
    assert_same_files(folder / 'elsewhere', reference[1])


def test_out_dir_needs_an_explainer(folder):
    with pytest.raises(SystemExit, match='--out-dir needs an explainer'):
        run(folder, 'plain.py', '--out-dir', str(folder / 'nowhere'))


def test_options_are_those_of_the_stock_tool(folder):
    args = ours.parse_args(
        f'{folder}/plain.py c.pth --work-dir w --show --show-dir s --score-thr 0.2 --tta --ceph '
        '--task lidar_det --wait-time 3 --launcher pytorch --local-rank 1 '
        '--cfg-options test_dataloader.batch_size=3'.split()
    )
    args.ceph = args.tta = False
    config = ours.build_config(args)
    assert config.work_dir == 'w'
    assert config.load_from == 'c.pth'
    assert config.launcher == 'pytorch'
    assert config.test_dataloader.batch_size == 3
    hook = config.default_hooks.visualization
    assert (hook.draw, hook.show, hook.vis_task, hook.score_thr) == (True, True, 'lidar_det', 0.2)
    assert (hook.wait_time, hook.test_out_dir) == (3, 's')
    text = STOCK.read_text()
    for option in vars(args):
        if option not in ('config', 'checkpoint', 'out_dir'):
            assert option in text or option.replace('_', '-') in text


@pytest.mark.parametrize(
    ('options', 'message'),
    [(['--show'], '--show and --show-dir need --task'), (['--tta'], '--tta needs tta_model')],
)
def test_options_that_miss_something_say_so(folder, options, message):
    with pytest.raises(SystemExit, match=message):
        run(folder, 'plain.py', *options)


def test_a_downstream_configuration_explains_its_base_model(folder, reference):
    """``ExplainedModel`` around the model of a base that knows nothing of it."""
    child = folder / 'model.py'
    child.write_text(
        "_base_ = './plain.py'\n"
        "custom_imports = dict(imports=['explain3d.adapters.mmdet3d', 'tiny_run'],\n"
        '                      allow_failed_imports=False)\n'
        'model = dict(\n'
        '    _delete_=True,\n'
        "    type='explain3d.ExplainedModel',\n"
        '    detector={{_base_.model}},\n'
        f'    class_names={tiny.CLASSES!r},\n'
        f'    outputs=dict(dir={str(folder / "by_model")!r}),\n'
        f'    **{HOOK!r})\n'
    )
    assert run(folder, 'model.py') == reference[0]
    assert_same_files(folder / 'by_model', reference[1])


def test_explained_model_is_the_plain_detector(folder):
    from mmdet3d.registry import MODELS

    config = dict(type='explain3d.ExplainedModel', detector=tiny.second(), train_cfg=None)
    plain, explained = tiny.build(tiny.second()), tiny.build(config)
    assert type(explained) is type(plain)
    assert list(explained.state_dict()) == list(plain.state_dict())
    explained.load_state_dict(plain.state_dict(), strict=True)
    assert MODELS.get('explain3d.ExplainedModel') is not None
    with pytest.raises(KeyError, match="Unknown target 'colour'"):
        tiny.build(dict(config, targets='colour'))


def test_an_explained_model_goes_on_after_a_bad_frame():
    config = dict(type='explain3d.ExplainedModel', detector=tiny.second(), explainer='RandomMap')
    model = tiny.build(config)
    cloud = tiny.cloud(0)
    cloud[0] = np.nan
    for _ in range(2):
        with torch.no_grad(), pytest.raises(InputError, match='not finite'):
            model.test_step(tiny.batch(cloud))
    with torch.no_grad():
        (sample,) = model.test_step(tiny.batch(tiny.cloud(0)))
    assert len(sample.explanation.detections) > 0


def test_an_explained_model_tells_weights_apart_while_it_is_trained(tmp_path):
    config = dict(type='explain3d.ExplainedModel', detector=tiny.second(), explainer='RandomMap')
    model = tiny.build(dict(config, outputs=dict(dir=str(tmp_path))))
    batch = tiny.batch(tiny.cloud(0))
    with torch.no_grad():
        for change in (0.0, 0.0, 1e-3):  # Adding nothing counts as a write, but changes no weight.
            next(model.parameters()).add_(change)
            model.test_step(batch)
    first, second = sorted(tmp_path.rglob('*.npz'), key=lambda path: len(path.parts))
    assert second.parent.parent == first.parent == tmp_path
    digests = [load_metadata(path)['settings']['model'] for path in (first, second)]
    assert digests[1] == weights_digest(model) != digests[0]
    assert second.parent.name == f'weights_{digests[1][:8]}'


@pytest.mark.parametrize('damage', ['missing', 'shape'])
def test_an_explained_model_refuses_the_checkpoint_of_another(damage, tmp_path):
    from mmengine.runner import load_checkpoint, save_checkpoint

    config = dict(type='explain3d.ExplainedModel', detector=tiny.second(), explainer='RandomMap')
    state = tiny.build(tiny.second()).state_dict()
    name = next(name for name in state if name.endswith('conv_cls.weight'))
    state[name] = state[name][:1]
    if damage == 'missing':
        del state[name]
    save_checkpoint(dict(state_dict=state), str(tmp_path / 'other.pth'))
    model = tiny.build(config)
    load_checkpoint(model, str(tmp_path / 'other.pth'), map_location='cpu')
    with torch.no_grad(), pytest.raises(CheckpointMismatchError, match=rf'1 .*{name}'):
        model.test_step(tiny.batch(tiny.cloud(0)))
    model.load_state_dict(tiny.build(tiny.second()).state_dict())
    with torch.no_grad():
        (sample,) = model.test_step(tiny.batch(tiny.cloud(0)))
    assert len(sample.explanation.detections) > 0


def test_pictures(folder):
    (folder / 'pictures.py').write_text("_base_ = './hook.py'\n")
    options = ['custom_hooks.0.outputs.pictures=True', 'test_dataloader.dataset.indices=1']
    run(folder, 'pictures.py', '--cfg-options', *options)
    pictures = list((folder / 'pictures/explanations/pictures').glob('000000_*.png'))
    assert pictures


@pytest.mark.slow
def test_two_processes_give_the_same_files_and_figures(folder):
    """Through dist_test.sh, with gloo; a frame a batch, as batches of two round differently."""
    if torch.cuda.is_available():
        pytest.skip('meant for machines without CUDA')
    averages = "test_evaluator = [test_evaluator, dict(type='explain3d.AverageMapMetric')]\n"
    (folder / 'single.py').write_text((folder / 'hook.py').read_text() + averages)
    single = ['--cfg-options', 'test_dataloader.batch_size=1', 'test_evaluator.1.pictures=False']
    values = run(folder, 'single.py', *single, f'test_evaluator.1.dir={folder / "averages"}')
    work_dir = folder / 'two'
    environment = {
        **os.environ,
        'PYTHON': sys.executable,
        'PORT': '29555',
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join([str(ROOT / 'plugins'), str(Path(__file__).parent)]),
    }
    command = [ROOT / 'tools/dist_test.sh', folder / 'single.py', folder / 'second.pth', '2']
    options = ['--work-dir', work_dir, *single, f'test_evaluator.1.dir={folder / "averages_two"}']
    done = subprocess.run(
        [*map(str, command), *map(str, options)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Explained: 4 frames, 12 detections' in done.stdout + done.stderr
    assert_same_files(work_dir / 'explanations', folder / 'single' / 'explanations')
    assert f'score: {values["score"]:.4f}' in done.stdout + done.stderr
    assert f'saliency: {values["saliency"]:.4f}' in done.stdout + done.stderr
    one, two = (
        json.loads((folder / name / 'table.json').read_text())
        for name in ('averages', 'averages_two')
    )
    assert one == two
    assert len(one['frames']) == 4
    counts = {(f['class'], f['set']): f['count'] for f in one['figures'] if f['name'] == 'count'}
    assert counts['all', 'all'] == 12


def test_dist_test_explains_itself():
    done = subprocess.run([ROOT / 'tools/dist_test.sh'], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'CONFIG CHECKPOINT PROCESSES' in done.stderr


def test_a_runner_built_in_python(folder, reference):
    """Without any tool: the hook finds checkpoint and classes by itself."""
    from mmengine.config import Config

    config = Config.fromfile(folder / 'hook.py')
    config.update(work_dir=str(folder / 'runner'), load_from=str(folder / 'second.pth'))
    assert Runner.from_cfg(config).test() == reference[0]
    assert_same_files(folder / 'runner/explanations', reference[1])
