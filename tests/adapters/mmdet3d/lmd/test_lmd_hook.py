"""The hook, the wrapper and the API of LMD: results, resuming, bad input, an unaware host."""

import copy
from types import SimpleNamespace

import pytest
import tiny_fusion as tiny
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

import explain3d
from explain3d.adapters.mmdet3d.lmd import DecomposedModel, LMDHook
from explain3d.adapters.mmdet3d.lmd.decomposer import FrameDecomposer
from explain3d.core.errors import (
    CheckpointMismatchError,
    InputError,
    NotApplicableError,
    ResultFileError,
    UnknownNameError,
)
from explain3d.core.results import ResultStore, SettingsMismatchError
from explain3d.lmd import Decomposition, Seed


@pytest.fixture
def model():
    return tiny.build()


def run(model, work_dir, batches, **settings):
    """A test run: the hook's stages around the host's own."""
    hook, host = LMDHook(**settings), runner(model, work_dir, batches)
    hook.before_test_epoch(host)
    samples = []
    for index, batch in enumerate(batches):
        with torch.no_grad():
            samples += model.test_step(copy.deepcopy(batch))
        hook.after_test_iter(host, index, data_batch=batch, outputs=samples)
    hook.after_test_epoch(host, {})
    return samples


def runner(model, work_dir, batches):
    """What the hook sees of a runner."""
    return SimpleNamespace(
        model=model,
        work_dir=str(work_dir),
        logger=MMLogger.get_current_instance(),
        test_dataloader=batches,
        _load_from=None,
        _resume=False,
    )


def store(work_dir):
    return ResultStore(work_dir / 'decompositions')


@pytest.fixture
def calls(monkeypatch):
    """The frames that were decomposed."""
    seen, plain = [], FrameDecomposer.decompose

    def counting(self, host, data, frames):
        seen.extend(frame.frame_id for frame in frames)
        return plain(self, host, data, frames)

    monkeypatch.setattr(FrameDecomposer, 'decompose', counting)
    return seen


EVERYTHING = dict(
    mode='check',
    capture=tiny.LAYERS,
    keep='full',
    gradcam=dict(layers=['fuse'], region='annotated'),
)


def test_files_and_samples_carry_the_decomposition(model, tmp_path):
    samples = run(model, tmp_path, [tiny.batch(0, 1), tiny.batch(2)], **EVERYTHING)
    frames = list(store(tmp_path))
    assert [f.frame_id for f in frames] == ['t0', 't1', 't2']
    for i, (sample, stored) in enumerate(zip(samples, frames, strict=True)):
        found = sample.decomposition
        assert found.names == stored.names == ('camera', 'radar', 'bias')
        assert torch.equal(found.output.value, sample.pred_bev_seg.logits)
        assert torch.equal(found.output.parts, stored.output.parts)
        assert stored.output.conservation_error() < 1e-6
        assert stored.output.residual < 1e-6
        assert list(stored.shares) == ['fuse', 'block', 'head']
        assert stored.captured['block']['radar'].shape == (8, tiny.CELLS, tiny.CELLS)
        assert stored.energies['fuse'].shape == (3, tiny.CELLS, tiny.CELLS)
        assert list(stored.gradcams) == ['camera @ fuse', 'radar @ fuse', 'all @ fuse']
        assert stored.area.x == (-6, 6)
        truth = tiny.item(i)['data_samples'].gt_bev_seg.data[0]
        assert torch.equal(stored.ground_truth, truth)
        torch.testing.assert_close(stored.points['radar'], tiny.item(i)['inputs']['radar'][:, :3])
        assert stored.info['token'] == f't{i}'
        assert {'torch', 'mmdet3d'} <= set(stored.versions)
        assert stored.settings['rules']['instance_norm'] == 'ratio'


def test_predictions_are_the_same_bit_by_bit(model, tmp_path):
    batches = [tiny.batch(0, 1), tiny.batch(2)]
    with torch.no_grad():
        plain = [s for b in batches for s in model.test_step(copy.deepcopy(b))]
    for a, b in zip(plain, run(model, tmp_path, batches, **EVERYTHING), strict=True):
        assert torch.equal(a.pred_bev_seg.logits, b.pred_bev_seg.logits)
        assert not b.pred_bev_seg.logits.requires_grad
        assert set(b.keys()) - set(a.keys()) == {'decomposition'}


@pytest.mark.parametrize('fails', [False, True])
def test_the_model_is_left_as_found(model, tmp_path, fails):
    names = {n: set(vars(m)) for n, m in model.named_modules()}
    if fails:
        with pytest.raises(InputError):
            run(model, tmp_path, [tiny.batch(0, bad=[0])], **EVERYTHING)
    else:
        run(model, tmp_path, [tiny.batch(0)], **EVERYTHING)
    assert {n: set(vars(m)) for n, m in model.named_modules()} == names
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_evaluation_gets_the_model_as_it_was_found(model, tmp_path):
    """It comes after the last batch, and no hook is told if it fails."""
    before = dict(vars(model))
    batches = [tiny.batch(0), tiny.batch(1)]
    hook, host = LMDHook(), runner(model, tmp_path, batches)
    hook.before_test_epoch(host)
    for index, batch in enumerate(batches):
        assert vars(model).keys() != before.keys()
        with torch.no_grad():
            model.test_step(batch)
        hook.after_test_iter(host, index)
    assert vars(model).keys() == before.keys()


def test_a_run_that_was_interrupted_can_be_started_again(model, tmp_path):
    batches = [tiny.batch(0), tiny.batch(1)]
    hook, host = LMDHook(), runner(model, tmp_path, batches)
    for _ in range(2):
        hook.before_test_epoch(host)  # The second time without the end of the first.
        with torch.no_grad():
            model.test_step(tiny.batch(0))
    assert len(store(tmp_path)) == 1


def test_a_host_under_autocast(model, tmp_path):
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        plain = model.test_step(tiny.batch(0))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        settings = dict(mode='check', capture=['fuse'], gradcam=dict(layers=['fuse']))
        found = run(model, tmp_path, [tiny.batch(0)], **settings)
    assert torch.equal(plain[0].pred_bev_seg.logits, found[0].pred_bev_seg.logits)
    frame = found[0].decomposition
    assert 1e-6 < frame.output.residual < 2e-2
    assert all(each.isfinite().all() for each in frame.gradcams.values())
    stored = store(tmp_path).load('t0')
    assert torch.equal(stored.output.value.float(), frame.output.value.float())
    # Near the decomposition in single precision.
    exact = run(model, tmp_path / 'b', [tiny.batch(0)])[0].decomposition.output.parts
    assert (frame.output.parts.float() - exact).abs().max() < 5e-2 * exact.abs().max()


def test_a_run_goes_on_where_it_stopped(model, tmp_path, calls):
    first = run(model, tmp_path, [tiny.batch(0), tiny.batch(1)])
    written = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in store(tmp_path).paths().values()}
    again = run(model, tmp_path, [tiny.batch(0), tiny.batch(1), tiny.batch(2)])
    assert calls == ['t0', 't1', 't2']
    for path, (time, content) in written.items():
        assert (path.stat().st_mtime_ns, path.read_bytes()) == (time, content)
    for a, b in zip(first, again, strict=False):
        assert torch.equal(a.decomposition.output.parts, b.decomposition.output.parts)
        assert torch.equal(a.pred_bev_seg.logits, b.pred_bev_seg.logits)


@pytest.mark.parametrize('what', ['damage', 'inputs', 'resume'])
def test_what_does_not_fit_is_computed_again(model, tmp_path, calls, what):
    run(model, tmp_path, [tiny.batch(0), tiny.batch(1)])
    batches, settings = [tiny.batch(0), tiny.batch(1)], {}
    expected = ['t0', 't1']
    if what == 'damage':
        path = store(tmp_path).path_of('t1')
        path.write_bytes(path.read_bytes()[:-30])
        expected = ['t1']
    elif what == 'inputs':
        sample = batches[0]['data_samples'][0]
        sample.set_metainfo(dict(cam2ref=sample.metainfo['cam2ref'] + 0.1))
        expected = ['t0']
    else:
        settings = dict(resume=False)
    calls.clear()
    run(model, tmp_path, batches, **settings)
    assert calls == expected
    assert len(store(tmp_path)) == 2


def test_a_folder_belongs_to_one_run(model, tmp_path, calls):
    run(model, tmp_path, [tiny.batch(0)])
    with pytest.raises(SettingsMismatchError, match="rules.bias_split: 'identity' -> 'sum'"):
        run(model, tmp_path, [tiny.batch(0)], rules=dict(bias_split='sum'))
    with torch.no_grad():
        model.head.bias += 1
    with pytest.raises(SettingsMismatchError, match='belongs to another run.*model: '):
        run(model, tmp_path, [tiny.batch(0)])
    assert calls == ['t0']


def without_objects(*indices):
    """A batch whose annotation is empty."""
    batch = tiny.batch(*indices)
    for sample in batch['data_samples']:
        sample.gt_bev_seg.data = torch.zeros_like(sample.gt_bev_seg.data)
    return batch


def test_a_stored_frame_has_todays_annotation(model, tmp_path, calls):
    drawn = dict(results=dict(pictures=['sigmoid']))
    picture = tmp_path / 'decompositions/pictures/t0_sigmoid.png'
    run(model, tmp_path, [without_objects(0, 1)], **drawn)
    assert not store(tmp_path).load('t0').ground_truth.any()
    before = picture.read_bytes()
    batch = tiny.batch(0, 1)
    batch['data_samples'][1].gt_bev_seg = without_objects(1)['data_samples'][0].gt_bev_seg
    for _ in range(2):
        samples = run(model, tmp_path, [copy.deepcopy(batch)], **drawn)
        truth = tiny.item(0)['data_samples'].gt_bev_seg.data[0]
        for found in (samples[0].decomposition, store(tmp_path).load('t0')):
            assert torch.equal(found.ground_truth, truth)
            assert found.output.conservation_error() < 1e-6
        assert picture.read_bytes() != before
    assert calls == ['t0', 't1']
    annotated = dict(gradcam=dict(layers=['fuse'], region='annotated'))
    region = tmp_path / 'region'
    run(model, region, [without_objects(0), tiny.batch(1)], **annotated)
    calls.clear()
    run(model, region, [tiny.batch(0), tiny.batch(1)], **annotated)
    assert calls == ['t0']  # What is explained is the annotated region: it has to be made anew.
    fresh = run(model, tmp_path / 'fresh', [tiny.batch(0)], **annotated)[0].decomposition
    stored = store(region).load('t0')
    assert torch.equal(stored.ground_truth, fresh.ground_truth)
    for name, gradcam in ResultStore(tmp_path / 'fresh/decompositions').load('t0').gradcams.items():
        assert torch.equal(stored.gradcams[name], gradcam)


def test_frames_without_a_name_have_files_of_their_own(model, tmp_path, calls):
    batches = [tiny.batch(0), tiny.batch(1, 2)]
    for batch in batches:
        for sample in batch['data_samples']:
            sample.set_metainfo(dict(token=None))
    for _ in range(2):
        run(model, tmp_path, batches)
        assert list(store(tmp_path).paths()) == [f'frame_{i:06d}' for i in range(3)]
    assert len(calls) == 3
    for i, sample in enumerate(batches[1]['data_samples']):
        sample.set_metainfo(dict(token=f't{i}', sample_idx=7))
    with pytest.raises(InputError, match="Two frames are called '000007': t0 and t1.*frame_id"):
        run(model, tmp_path / 'index', batches[1:], frame_id='sample_idx')
    assert not list(tmp_path.glob('index/decompositions/*.npz'))


def test_the_annotated_region_needs_an_annotated_split(model, tmp_path):
    host = runner(model, tmp_path, [])

    class Empty:
        metainfo = {}

        def __len__(self):
            return 2

        def get_data_info(self, index):
            return dict(vehicles=dict(size=[]))

    host.test_dataloader = SimpleNamespace(dataset=Empty())
    hook = LMDHook(gradcam=dict(layers=['fuse'], region='annotated'))
    with pytest.raises(InputError, match="region='annotated'.*without an annotated object"):
        hook.before_test_epoch(host)


def test_two_processes_fill_one_folder_with_the_same_files(model, tmp_path):
    run(model, tmp_path / 'a', [tiny.batch(i) for i in range(4)], capture=tiny.LAYERS)
    for rank in (1, 0):
        run(model, tmp_path / 'b', [tiny.batch(i) for i in (rank, rank + 2)], capture=tiny.LAYERS)
    alone, shared = store(tmp_path / 'a').paths(), store(tmp_path / 'b').paths()
    assert list(alone) == list(shared) == ['t0', 't1', 't2', 't3']
    for name in alone:
        assert alone[name].read_bytes() == shared[name].read_bytes()


def test_batches_do_not_change_a_decomposition(model, tmp_path):
    one = run(model, tmp_path / 'a', [tiny.batch(i) for i in range(3)])
    three = run(model, tmp_path / 'b', [tiny.batch(0, 1, 2)])
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a.decomposition.output.parts, b.decomposition.output.parts)


@pytest.mark.parametrize(
    ('settings', 'error', 'text'),
    [
        (dict(seeds=[dict(module='fuze', split=dict(camera=4, radar=2))]), UnknownNameError,
         r"Unknown module 'fuze'.*such as \['fuse'"),
        (dict(outputs=['haed']), UnknownNameError, "Unknown module 'haed'.*'head'"),
        (dict(capture=['blokc']), UnknownNameError, "Unknown module 'blokc'.*'block'"),
        (dict(rules=dict(activation='identiti')), UnknownNameError, 'identiti'),
        (dict(rules=dict(instance_nrom='ratio')), UnknownNameError, 'instance_norm'),
        (dict(captures=['fuse']), UnknownNameError, "'captures'.*'capture'"),
        (dict(mode='fast'), UnknownNameError, 'production'),
        (dict(keep='everything'), UnknownNameError, "'maps'"),
        (dict(gradcam=dict(layers=['fuse'], region='here')), UnknownNameError, 'predicted'),
        (dict(results=dict(pictures=['sheets'])), UnknownNameError, "'sheet'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_found_before_the_first_frame(model, tmp_path, settings, error, text):
    with pytest.raises(error, match=f'(?s){text}'):
        run(model, tmp_path, [], **settings)
    assert 'test_step' not in vars(model)


def test_a_seed_that_is_not_reached_is_an_error(model, tmp_path):
    seeds = [*model.lmd_seeds(), Seed('spare', modality='lidar')]
    with pytest.raises(NotApplicableError, match="did not reach the seed at module 'spare'"):
        run(model, tmp_path, [tiny.batch(0)], seeds=seeds)
    assert not list(tmp_path.glob('decompositions/*.npz'))


def test_a_folder_that_cannot_be_written_to(model, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ResultFileError, match='Cannot write to the output folder'):
        run(model, tmp_path, [], results=dict(dir=str(tmp_path / 'file' / 'below')))


def test_frames_that_are_not_finite(model, tmp_path, calls):
    bad = [tiny.batch(0), tiny.batch(1, bad=[1]), tiny.batch(2)]
    with pytest.raises(InputError, match="'t1': the output 'head' .*not finite"):
        run(model, tmp_path / 'a', bad)
    assert list(store(tmp_path / 'a').paths()) == ['t0']
    samples = run(model, tmp_path / 'b', bad, on_error='skip')
    assert list(store(tmp_path / 'b').paths()) == ['t0', 't2']
    assert [hasattr(s, 'decomposition') for s in samples] == [True, False, True]
    assert samples[1].pred_bev_seg.logits.isnan().any()


def test_models_that_propose_nothing_need_seeds(model, tmp_path, monkeypatch):
    monkeypatch.delattr(tiny.TinyFusion, 'lmd_seeds')
    with pytest.raises(NotApplicableError, match='seeds='):
        run(model, tmp_path, [])


def test_one_hook_at_a_time(model, tmp_path):
    model.test_step = model.test_step
    with pytest.raises(NotApplicableError, match='attached to already'):
        run(model, tmp_path, [])


def test_the_wrapper_gives_what_the_hook_gives(model, tmp_path):
    by_hook = run(model, tmp_path / 'a', [tiny.batch(0, 1)], capture=['fuse'])
    wrapped = DecomposedModel(
        dict(type='TinyFusion'), capture=['fuse'], results=dict(dir=str(tmp_path / 'b'))
    )
    assert type(wrapped) is tiny.TinyFusion
    wrapped.load_state_dict(model.state_dict())
    with torch.no_grad():
        by_model = wrapped.eval().test_step(tiny.batch(0, 1))
    for a, b in zip(by_hook, by_model, strict=True):
        assert torch.equal(a.decomposition.output.parts, b.decomposition.output.parts)
    assert len(ResultStore(tmp_path / 'b')) == 2
    assert not any(hasattr(s, 'decomposition') for s in wrapped.train().test_step(tiny.batch(0)))


def test_the_wrapper_tells_weights_apart_while_the_model_is_trained(model, tmp_path):
    wrapped = DecomposedModel(dict(type='TinyFusion'), results=dict(dir=str(tmp_path)))
    wrapped.load_state_dict(model.state_dict())
    with torch.no_grad():
        wrapped.eval().test_step(tiny.batch(0))
        next(wrapped.parameters()).add_(1e-3)
        wrapped.test_step(tiny.batch(0))
    assert len(ResultStore(tmp_path)) == 1
    (folder,) = tmp_path.glob('weights_*')
    assert len(ResultStore(folder)) == 1


def test_the_wrapper_refuses_weights_of_another_model(model, tmp_path):
    settings = dict(type='TinyFusion'), dict(dir=str(tmp_path / 'b'))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith('block')}
    wrapped = DecomposedModel(*settings)
    wrapped.load_state_dict(state, strict=False)
    with pytest.raises(CheckpointMismatchError, match='missing .block.0.weight'):
        wrapped.eval().test_step(tiny.batch(0))
    assert not list(tmp_path.glob('b/*.npz'))
    wrapped.load_state_dict(model.state_dict())
    assert 'decomposition' in wrapped.test_step(tiny.batch(0))[0]
    careless = DecomposedModel(settings[0], dict(dir=str(tmp_path / 'c')), check_checkpoint=False)
    careless.load_state_dict(state, strict=False)
    assert 'decomposition' in careless.eval().test_step(tiny.batch(0))[0]


def test_decompose_takes_items_and_batches(model):
    model.train()
    model.block.eval()
    modes = [m.training for m in model.modules()]
    one = explain3d.decompose(model, tiny.item(1), capture=['fuse'], mode='check')
    many = explain3d.decompose(model, tiny.batch(0, 1), model.lmd_seeds(), ['head'])
    assert [f.frame_id for f in many] == ['t0', 't1']
    torch.testing.assert_close(one.output.parts, many[1].output.parts)
    assert one.output.residual < 1e-6
    assert many[0].output.residual is None
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(InputError, match='item of a data set'):
        explain3d.decompose(model, torch.zeros(3))


def test_decompose_takes_any_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    x = torch.randn(2, 4, 5, 5)
    found = explain3d.decompose(net, x, [Seed('0', split=dict(a=1, b=3))], ['2'], capture=['0'])
    assert len(found) == 2
    with torch.no_grad():
        for frame, expected in zip(found, net(x), strict=True):
            torch.testing.assert_close(frame.output.value, expected)
            assert frame.output.conservation_error() < 1e-6
        first = nn.functional.conv2d(x[:, :1], net[0].weight[:, :1])
    torch.testing.assert_close(found[1].captured['0']['a'], first[1])


def test_the_gradient_of_radar_gradcam_is_the_map_of_the_engine(model):
    """<gradient, h_m> is the score of h_m: with identity rules the way to the output is linear."""
    from explain3d.lmd.gradcam import layer_gradients

    model = model.double()
    maps = torch.randn(2, 6, tiny.CELLS, tiny.CELLS, dtype=torch.float64)
    tail = nn.Sequential()
    tail.fuse, tail.block, tail.head = model.fuse, model.block, model.head
    seeds = [Seed('fuse', split=dict(camera=4, radar=2))]
    region = torch.rand(2, tiny.CELLS, tiny.CELLS) < 0.3
    layers = ['fuse.0', 'fuse', 'block.0']
    with torch.no_grad(), Decomposition(tail, seeds, ['head'], capture=layers) as run_:
        tail(maps)
    gradients = layer_gradients(tail, lambda: tail(maps), layers, 'head', region)
    for layer in layers:
        for name in ('camera', 'radar'):
            score = (run_.outputs['head'][name][:, 0] * region).sum()
            inner = (gradients[layer] * run_.captured[layer][name]).sum()
            torch.testing.assert_close(inner, score)


def test_a_test_run_of_mmengine(model, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    torch.save(model.state_dict(), tmp_path / 'w.pth')
    hook = dict(type='explain3d.LMDHook', results=dict(pictures=dict(kinds=['sheet'], dpi=30)))
    metrics = {}
    for name, hooks in (('plain', []), ('lmd', [hook])):
        found = tiny.config(tmp_path / name, tmp_path / 'w.pth', 3, custom_hooks=hooks)
        metrics[name] = Runner.from_cfg(Config(found)).test()
    assert metrics['plain']['logit'] == metrics['lmd']['logit']
    assert metrics['plain']['radar'] == 0 < metrics['lmd']['radar']
    folder = tmp_path / 'lmd/decompositions'
    assert len(ResultStore(folder)) == 3
    assert sorted(p.name for p in (folder / 'pictures').iterdir()) == [
        't0_sheet.png', 't1_sheet.png', 't2_sheet.png'
    ]  # fmt: skip
