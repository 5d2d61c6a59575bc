"""OpenPCDet's own test script with an explainer attached: results, files, mistakes."""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from pcdet_runs import EXPLAINER, ROOT, assert_same, results, run, write

from explain3d.adapters.pcdet import launcher
from explain3d.adapters.pcdet.host import HostError, checked_script, find_script
from explain3d.core.errors import CheckpointMismatchError, InputError, UnknownNameError
from explain3d.core.results import ResultStore
from explain3d.metrics.saliency_table import load_records


@pytest.fixture(scope='module')
def reference(checkout, folder):
    """What the run with the explainer leaves."""
    return run(checkout, folder, 'odam.yaml', '--batch_size', '2')


def test_results_and_metrics_are_those_without_an_explainer(checkout, folder, reference):
    _, annotations, metrics = reference
    plain = run(checkout, folder, 'plain.yaml', '--batch_size', '2', explain=False)
    assert_same(annotations, plain[1])
    assert metrics == plain[2]
    assert any(re.search(r'recall.rcnn', line) for line in metrics)
    assert sum(len(frame['name']) for frame in annotations)


def test_every_frame_has_its_file(reference):
    place, annotations, _ = reference
    store = ResultStore(place / 'explanations')
    names = sorted(p.stem for p in (place / 'explanations').glob('*.npz'))
    assert names == sorted(frame['frame_id'] for frame in annotations)
    found = store.load(names[0])
    assert found.frame_id == names[0]
    assert found.saliency.any()
    assert found.detections.class_names == ('Pedestrian', 'Cyclist', 'Car')
    assert found.ground_truth is not None


def test_the_folder_of_results_is_called_after_the_configuration(checkout, folder, reference):
    expected = checkout / 'output' / folder.name / 'odam' / 'odam' / 'eval'
    assert expected in reference[0].parents


def test_another_folder_and_options_of_the_script(checkout, folder, tmp_path):
    write(tmp_path / 'moved.yaml', 'nowhere', EXPLAINER)
    data = yaml.safe_load((folder / 'odam.yaml').read_text())['DATA_CONFIG']['DATA_PATH']
    shutil.copy(folder / 'second.pth', tmp_path)
    place, _, _ = run(
        checkout, tmp_path, 'moved.yaml', '--eval_tag', 'mine', '--save_to_file', '--set',
        'DATA_CONFIG.DATA_PATH', data, 'EXPLAINER.TARGETS', "['score', 'yaw']",
        'EXPLAINER.select.CLASSES', '[car]', 'EXPLAINER.OUTPUTS.PICTURES', '[bev]',
        out_dir=str(tmp_path / 'out'),
    )  # fmt: skip
    assert place.name == 'mine'
    assert sorted(p.suffix for p in (place / 'final_result/data').glob('*')) == ['.txt', '.txt']
    (one, _) = sorted((tmp_path / 'out').glob('*.npz'))
    found = ResultStore(tmp_path / 'out').load(one.stem)
    assert found.targets == ('score', 'yaw')
    # Entries that are not in the file.
    assert list(dict.fromkeys(found.detections.names())) == ['Car']
    assert list((tmp_path / 'out').glob('**/*.png'))


def test_what_was_changed_is_put_back(checkout, folder, reference):
    before = sys.argv[:], sys.path[:], logging.Logger.manager.disable
    modules = {name for name in sys.modules if name.split('.')[0] in ('pcdet', 'eval_utils')}
    with pytest.raises(InputError, match='nowhere'):
        run(checkout, folder, 'odam.yaml', '--set', 'DATA_CONFIG.DATA_PATH', 'nowhere')
    assert before == (sys.argv, sys.path, logging.Logger.manager.disable)
    after = {name for name in sys.modules if name.split('.')[0] in ('pcdet', 'eval_utils')}
    assert after == modules


def test_the_command_of_the_tool(checkout, folder, reference, monkeypatch):
    monkeypatch.setenv('PCDET_ROOT', str(checkout))
    calls = []
    monkeypatch.setattr(launcher, 'run', lambda *args, **kwargs: calls.append((args, kwargs)))
    launcher.run_tool(
        [
            'c.yaml',
            'w.pth',
            '--device',
            'cpu',
            '--launcher',
            'pytorch',
            '--out-dir',
            'o',
            '--workers',
            '2',
            '--set',
            'A',
            '--device',
        ]
    )
    launcher.run_tool(['c.yaml', '--eval_all', '--no-explainer', '--pcdet', str(checkout)])
    launcher.main([str(checkout / 'tools/test.py'), '--cfg_file', 'c.yaml', '--out-dir=o'])
    script = checkout / 'tools/test.py'
    first = '--cfg_file c.yaml --ckpt w.pth --launcher pytorch --workers 2 --set A --device'
    assert calls == [
        ((script, first.split()), dict(device='cpu', out_dir='o', explain=True)),
        ((script, ['--cfg_file', 'c.yaml', '--eval_all']),
         dict(device='cuda', out_dir=None, explain=False)),
        ((script, ['--cfg_file', 'c.yaml']), dict(device='cuda', out_dir='o', explain=True)),
    ]  # fmt: skip


@pytest.mark.parametrize('rank', ['--local-rank=3', '--local_rank=3', '--local_rank 3'])
def test_the_number_of_a_process_that_torch_puts_in_front(checkout, monkeypatch, rank):
    """``torch.distributed.launch`` of OpenPCDet's dist_test.sh; its script knows one spelling."""
    calls = []
    monkeypatch.setattr(launcher, 'run', lambda *args, **kwargs: calls.append(args[1]))
    script = str(checkout / 'tools/test.py')
    options = ['--launcher', 'pytorch', '--set', 'A', '--local-rank']
    launcher.main([*rank.split(), script, '--cfg_file', 'c.yaml', *options])
    launcher.run_tool([*rank.split(), 'c.yaml', 'w.pth', '--pcdet', str(checkout), *options])
    rest = [*options]
    assert calls == [
        ['--local_rank', '3', '--cfg_file', 'c.yaml', *rest],
        ['--cfg_file', 'c.yaml', '--ckpt', 'w.pth', '--local_rank', '3', *rest],
    ]


def test_errors_end_the_command_with_their_message(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match='HostError: .*is not the test script of an OpenPCDet'):
        launcher.main([str(tmp_path / 'test.py'), '--cfg_file', 'c.yaml'])


@pytest.mark.parametrize(
    ('config', 'options', 'ckpt', 'error', 'message'),
    [
        ('plain.yaml', [], 'second.pth', InputError, 'no section EXPLAINER'),
        ('gone.yaml', [], 'second.pth', InputError, 'No configuration .*gone.yaml'),
        ('odam.yaml', [], 'gone.pth', InputError, 'Expected a checkpoint, received .*gone.pth'),
        ('odam.yaml', [], 'centerpoint.pth', CheckpointMismatchError, 'does not fit SECONDNet'),
        ('odam.yaml', ['EXPLAINER.ARGS.LAYER', 'stride3'], 'second.pth', UnknownNameError,
         "Unknown layer 'stride3'.*'stride4'"),
        ('odam.yaml', ['EXPLAINER.METHOD', 'FAM'], 'second.pth', UnknownNameError, 'FFAM'),
        ('odam.yaml', ['DATA_CONFIG.DATA_PATH', '../data/waymo'], 'second.pth', InputError,
         r"'../data/waymo' \(DATA_CONFIG.DATA_PATH\) is not there"),
        ('odam.yaml', ['EXPLAINER.SELCT.TOP_N', '1'], 'second.pth', UnknownNameError,
         'Unknown key SELCT in the section EXPLAINER: .*Did you mean SELECT'),
        ('odam.yaml', ['EXPLAINER.SELECT.TOP', '1'], 'second.pth', UnknownNameError,
         "Unknown argument 'top' of the selection"),
        ('odam.yaml', ['EXPLAINER.INTERVAL.X', '1'], 'second.pth', InputError,
         'expected INTERVAL to be a section'),
        ('odam.yaml', ['EXPLAINER.TARGETS'], 'second.pth', InputError,
         "'EXPLAINER.TARGETS' has no value"),
        ('odam.yaml', ['DATA_CONFIG.DATA_PATH', str(ROOT / 'tests')], 'second.pth', InputError,
         r"no frames of the split 'val': .*infos_val.pkl'\] are not there"),
        ('odam.yaml', [], ROOT / 'checkpoints/second_small_miniworld.pth', InputError,
         'no "model_state".*convert_checkpoint.py'),
    ],
)  # fmt: skip
def test_mistakes_are_told(checkout, folder, config, options, ckpt, error, message):
    options = ['--set', *options] if options else []
    with pytest.raises(error, match=message):
        run(checkout, folder, config, *options, ckpt=ckpt)


def test_the_check_of_the_checkpoint_can_be_left_out(checkout, folder, tmp_path, pcdet_kitti):
    write(folder / 'unchecked.yaml', pcdet_kitti, {**EXPLAINER, 'CHECK_CHECKPOINT': False})
    weights = torch.load(folder / 'second.pth')
    del weights['model_state']['dense_head.conv_dir_cls.bias']
    torch.save(weights, folder / 'partial.pth')
    with pytest.raises(CheckpointMismatchError, match=r'1 missing \(dense_head.conv_dir_cls.bias'):
        run(checkout, folder, 'odam.yaml', ckpt='partial.pth')
    place, _, _ = run(checkout, folder, 'unchecked.yaml', ckpt='partial.pth')
    assert len(list((place / 'explanations').glob('*.npz'))) == 2


def fake_checkout(root, init='', **files):
    for name, text in {
        'tools/test.py': '', 'tools/eval_utils/eval_utils.py': '', 'pcdet/__init__.py': init,
        'pcdet/models/__init__.py': '', 'pcdet/ops/__init__.py': '', **files,
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / 'c.yaml').write_text('EXPLAINER: {}\n')
    torch.save({}, root / 'w.pth')
    return [
        str(root / 'tools/test.py'),
        ['--cfg_file', f'{root}/c.yaml', '--ckpt', f'{root}/w.pth'],
    ]


def test_an_old_checkout_is_told(tmp_path):
    files = {'pcdet/models/detectors/__init__.py': "__all__ = ['PVRCNN']\n"}
    with pytest.raises(HostError, match='is too old: expected OpenPCDet 0.5.2 or later'):
        launcher.run(*fake_checkout(tmp_path, **files), device='cpu')


def test_a_checkout_without_its_operators_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for name in [n for n in sys.modules if n.split('.')[0] == 'pcdet']:
        monkeypatch.delitem(sys.modules, name)
    try:
        with pytest.raises(HostError, match='is not built: pcdet.version does not import'):
            launcher.run(*fake_checkout(tmp_path), device='cuda')
    finally:
        for name in [n for n in sys.modules if n.split('.')[0] == 'pcdet']:
            del sys.modules[name]


def test_no_cuda_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(HostError, match='no CUDA device: expected one, or --device cpu'):
        launcher.run(*fake_checkout(tmp_path), device='cuda')


def test_no_checkout_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv('PCDET_ROOT', raising=False)
    monkeypatch.setattr('explain3d.adapters.pcdet.host._installed', lambda: None)
    with pytest.raises(
        HostError, match='not installed, and nothing says where it is: .*PCDET_ROOT'
    ):
        find_script()
    with pytest.raises(HostError, match='is not the test script of an OpenPCDet checkout'):
        find_script(tmp_path)
    with pytest.raises(HostError, match=r'Clone https://github.com/open-mmlab/OpenPCDet'):
        checked_script(ROOT / 'tools' / 'test.py')


def run_processes(checkout, folder, count):
    """Runs dist_test.sh with a frame a process; returns what ``results`` does, and the log."""
    environment = {
        **os.environ,
        'PYTHON': sys.executable,
        'PORT': '29556',
        'OMP_NUM_THREADS': '1',
        'PCDET_ROOT': str(checkout),
        'PYTHONPATH': os.pathsep.join([str(ROOT / 'plugins'), os.environ.get('PYTHONPATH', '')]),
    }
    command = [ROOT / 'tools/dist_test.sh', folder / 'measured.yaml', folder / 'second.pth', count]
    options = ['--device', 'cpu', '--workers', 0, '--extra_tag', count, '--batch_size', count]
    done = subprocess.run(
        [*map(str, command), *map(str, options)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return *results(checkout, str(count)), done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_give_the_same(checkout, folder):
    """Through dist_test.sh, with gloo; the stock script divides by the number of devices."""
    if torch.cuda.is_available():
        pytest.skip('meant for machines without CUDA')
    # One process of its own as well: what ran in this one before decides how torch rounds.
    first, annotations, metrics, _ = run_processes(checkout, folder, 1)
    place, *found, log = run_processes(checkout, folder, 2)
    assert_same(found[0], annotations)
    assert found[1] == metrics
    assert 'Explained: 2 frames, 4 detections' in log
    own, other = (p / 'explanations' for p in (first, place))
    names = sorted(p.name for p in own.glob('*.npz'))
    assert names == sorted(p.name for p in other.glob('*.npz'))
    for name in names:
        a, b = (ResultStore(p).load(Path(name).stem) for p in (own, other))
        torch.testing.assert_close(a.saliency, b.saliency, rtol=1e-4, atol=1e-6)
    a, b = (load_records(p / 'metrics' / 'records.json') for p in (own, other))
    assert [r.name for r in a] == [r.name for r in b]
    assert len({r.frame for r in a}) == 2
    for x, y in zip(a, b, strict=True):
        assert x.figures == pytest.approx(y.figures, rel=1e-3, abs=1e-3)
    assert log.count('How good the maps are') == 1
