"""The hook: results, resuming, bad input, and a host that does not notice."""

import copy
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_detectors as tiny
import torch
from mmengine.logging import MMLogger
from test_tracer import state_of
from torch import nn

from explain3d.adapters.mmdet3d.checkpoints import parts_as_built
from explain3d.adapters.mmdet3d.hook import ExplainerHook
from explain3d.core.errors import CheckpointMismatchError, InputError, UnknownNameError
from explain3d.core.results import ResultStore, SettingsMismatchError
from explain3d.methods import EXPLAINERS, RandomMap

SELECT = dict(score_thr=0.0, top_n=3)
SETTINGS = dict(explainer=dict(type='FFAM', rank=4), targets=['all', 'score'], select=SELECT)


@EXPLAINERS.register('Counting')
class Counting(RandomMap):
    """Counts its calls, and fails when told to."""

    calls, fail_at = 0, None

    def explain(self, trace, targets):
        type(self).calls += 1
        if type(self).calls == type(self).fail_at:
            raise FloatingPointError('no more')
        return super().explain(trace, targets)


@pytest.fixture(autouse=True)
def _fresh():
    Counting.calls, Counting.fail_at = 0, None


class Loader(list):
    """Batches, and a data set that knows its classes."""

    def __init__(self, batches, model):
        super().__init__(batches)
        self.dataset = SimpleNamespace(metainfo=model.dataset_meta)


def runner(model, work_dir, checkpoint=None, batches=()):
    """What the hook sees of a runner."""
    return SimpleNamespace(
        model=model,
        work_dir=str(work_dir),
        logger=MMLogger.get_current_instance(),
        test_dataloader=Loader(batches, model),
        _load_from=checkpoint,
        _resume=False,
    )


def run(model, work_dir, batches, checkpoint=None, **settings):
    """A test run: the hook's stages around the host's own."""
    hook = ExplainerHook(**{**SETTINGS, **settings})
    host = runner(model, work_dir, checkpoint, batches)
    hook.before_test_epoch(host)
    samples = []
    for index, batch in enumerate(batches):
        with torch.no_grad():
            samples += model.test_step(copy.deepcopy(batch))
        hook.after_test_iter(host, index, data_batch=batch, outputs=samples)
    hook.after_test_epoch(host, {})
    return samples


def batches(*sizes):
    start, out = 0, []
    for size in sizes:
        indices = range(start, start + size)
        out.append(
            tiny.batch(*(tiny.cloud(i) for i in indices), names=[f'{i:06d}' for i in indices])
        )
        start += size
    return out


@pytest.fixture(scope='module')
def second():
    return tiny.build(tiny.second())


def bits(sample):
    found = sample.pred_instances_3d
    return [found.bboxes_3d.tensor, found.scores_3d, found.labels_3d]


@pytest.mark.parametrize('name', tiny.MODELS)
def test_files_and_samples_carry_the_same_explanation(name, tmp_path):
    model = tiny.build(tiny.MODELS[name]())
    layer = 'stride4' if name in ('second', 'centerpoint_voxel') else 'bev'
    explainer = dict(type='FFAM', rank=4, layer=layer)
    samples = run(model, tmp_path, batches(2, 1), explainer=explainer)
    store = ResultStore(tmp_path / 'explanations')
    assert [e.frame_id for e in store] == ['000000', '000001', '000002']
    for i, (sample, stored) in enumerate(zip(samples, store, strict=True)):
        explanation = sample.to_dict()['explanation']
        assert explanation.targets == stored.targets == ('all', 'score')
        assert explanation.saliency.shape == (3, len(tiny.cloud(i)))
        assert explanation.saliency.max() > 0
        torch.testing.assert_close(stored.saliency, explanation.saliency, rtol=0, atol=0)
        torch.testing.assert_close(stored.points, torch.as_tensor(tiny.cloud(i)))
        boxes, scores, labels = bits(sample)
        index = stored.detection_indices
        assert scores[index].tolist() == scores.sort(descending=True).values[:3].tolist()
        torch.testing.assert_close(stored.detections.scores, scores[index], rtol=0, atol=0)
        assert stored.detections.labels.tolist() == labels[index].tolist()
        assert stored.detections.class_names == tuple(tiny.CLASSES)
        expected = boxes[index, :7].clone()
        expected[:, 2] += expected[:, 5] / 2
        torch.testing.assert_close(stored.detections.boxes, expected)
        assert stored.settings['layer'] == explanation.settings['layer']
        assert {'torch', 'mmdet3d', 'spconv'} <= set(stored.versions)


@pytest.mark.parametrize('name', tiny.MODELS)
def test_predictions_are_the_same_bit_by_bit(name, tmp_path):
    model = tiny.build(tiny.MODELS[name]())
    layer = 'stride4' if name in ('second', 'centerpoint_voxel') else 'pillars'
    with torch.no_grad():
        plain = [s for b in batches(2, 1) for s in model.test_step(copy.deepcopy(b))]
    explained = run(model, tmp_path, batches(2, 1), explainer=dict(type='GradCAM', layer=layer))
    for a, b in zip(plain, explained, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(bits(a), bits(b), strict=True))
        assert not any(x.requires_grad for x in bits(b)[:2])
        assert set(b.keys()) - set(a.keys()) == {'explanation'}


@pytest.mark.parametrize('name', ['second', 'pointpillars'])
def test_a_trunk_under_autocast(name, tmp_path):
    """mmcv's suppression of boxes takes no half precision on a CPU: the head is in single."""
    model = tiny.build(tiny.MODELS[name]())
    trunk = model.extract_feat

    def in_half(*args, **kwargs):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return [feature.float() for feature in trunk(*args, **kwargs)]

    layer = 'stride4' if name == 'second' else 'bev'
    explainer = dict(type='GradCAM', layer=layer)
    exact = run(model, tmp_path / 'a', batches(1), explainer=explainer, targets=['score'])
    model.extract_feat = in_half
    with torch.no_grad():
        plain = model.test_step(batches(1)[0])
    found = run(model, tmp_path / 'b', batches(1), explainer=explainer, targets=['score'])
    assert all(torch.equal(x, y) for x, y in zip(bits(plain[0]), bits(found[0]), strict=True))
    assert not torch.equal(bits(exact[0])[0], bits(found[0])[0])
    saliency = found[0].explanation.saliency
    assert saliency.dtype == torch.float32
    assert saliency.isfinite().all()
    assert (saliency.amax(1) > 0).any()


def test_batches_do_not_change_an_explanation(second, tmp_path):
    one = run(second, tmp_path / 'a', batches(1, 1, 1))
    three = run(second, tmp_path / 'b', batches(3))
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(
            a.explanation.saliency, b.explanation.saliency, atol=1e-4, rtol=1e-3
        )


def test_inference_mode_gives_the_same(second, tmp_path):
    expected = run(second, tmp_path / 'a', batches(2))
    with torch.inference_mode():
        found = run(second, tmp_path / 'b', batches(2))
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.explanation.saliency, b.explanation.saliency)


@pytest.mark.parametrize('method', ['FFAM', 'GradCAM', 'ODAM', 'ChannelSum', 'RandomMap'])
def test_every_method_works_on_a_real_detector(second, tmp_path, method):
    settings = dict(explainer=dict(type=method, **({'rank': 4} if method == 'FFAM' else {})))
    settings['targets'] = ['all', 'all_abs', 'yaw', ['l', 'w']]
    first = run(second, tmp_path / 'a', batches(2), **settings)
    again = run(second, tmp_path / 'b', batches(2), **settings)
    for i, (a, b) in enumerate(zip(first, again, strict=True)):
        assert a.explanation.targets == ('all', 'all_abs', 'yaw', 'l+w')
        for name, saliency in a.explanation.maps.saliency.items():
            assert saliency.shape == (3, len(tiny.cloud(i)))
            assert torch.isfinite(saliency).all()
            assert (saliency >= 0).all()
            assert torch.equal(saliency, b.explanation.maps.saliency[name])


def test_two_frames_of_one_name_are_refused(second, tmp_path):
    pair = tiny.batch(tiny.cloud(0), tiny.cloud(1), names=['a/000', 'b/000'])
    with pytest.raises(InputError, match="called '000': data/a/000.bin and data/b/000.bin"):
        run(second, tmp_path / 'a', [pair], explainer='Counting')
    for i, sample in enumerate(pair['data_samples']):
        sample.set_metainfo(dict(sample_idx=i + 4))
    run(second, tmp_path / 'b', [pair], explainer='Counting', frame_id='sample_idx')
    names = [e.frame_id for e in ResultStore(tmp_path / 'b/explanations')]
    assert names == ['000004', '000005']
    with pytest.raises(UnknownNameError, match="no 'token' to be named by"):
        run(second, tmp_path / 'c', [pair], explainer='Counting', frame_id='token')
    assert 'predict' not in vars(second)


def test_an_error_of_the_host_does_not_lose_results(tmp_path):
    model = tiny.build(tiny.second())
    calls = []

    def explode(_module, _inputs):
        calls.append(1)
        if len(calls) > 4:  # The probe, the batch and its two frames come first.
            raise MemoryError

    model.neck.register_forward_pre_hook(explode)
    with pytest.raises(MemoryError):
        run(model, tmp_path, batches(2, 1), explainer='Counting')
    assert len(ResultStore(tmp_path / 'explanations')) == 2
    assert 'predict' not in vars(model)


@pytest.mark.parametrize('fails', [False, True])
def test_the_model_is_left_as_found(fails, tmp_path):
    model = tiny.build(tiny.second())
    model.neck.requires_grad_(False)
    before = state_of(model)
    if fails:
        Counting.fail_at = 2
        with pytest.raises(FloatingPointError):
            run(model, tmp_path, batches(2, 1), explainer='Counting')
    else:
        run(model, tmp_path, batches(2, 1), explainer='Counting')
    assert state_of(model) == before


def test_the_evaluation_gets_the_model_as_it_was_found(tmp_path):
    """It comes after the last batch, and no hook is told if it fails."""
    model = tiny.build(tiny.second())
    before = state_of(model)
    hook = ExplainerHook(explainer='Counting', select=SELECT)
    host = runner(model, tmp_path, batches=batches(1, 1))
    hook.before_test_epoch(host)
    for index, batch in enumerate(host.test_dataloader):
        assert state_of(model) != before
        model.test_step(copy.deepcopy(batch))
        hook.after_test_iter(host, index, data_batch=batch, outputs=[])
    assert state_of(model) == before
    assert len(list((tmp_path / 'explanations').glob('*.npz'))) == 2


def test_a_run_that_was_interrupted_can_be_started_again(tmp_path):
    model = tiny.build(tiny.second())
    before = state_of(model)
    hook = ExplainerHook(explainer='Counting', select=SELECT)
    hook.before_test_epoch(runner(model, tmp_path))  # Then the data loader fails.
    hook.before_test_epoch(runner(model, tmp_path))
    hook.after_test_epoch(runner(model, tmp_path))
    assert state_of(model) == before


def test_random_numbers_of_the_host_are_untouched(second, tmp_path):
    torch.manual_seed(5)
    run(second, tmp_path, batches(1), explainer='Counting')
    found = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(found, torch.rand(1))


def test_frames_that_are_done_are_taken_from_their_files(second, tmp_path):
    first = run(second, tmp_path, batches(2), explainer='Counting')
    assert Counting.calls == 2
    again = run(second, tmp_path, batches(2, 1), explainer='Counting')
    assert Counting.calls == 3
    for a, b in zip(first, again, strict=False):
        assert torch.equal(a.explanation.saliency, b.explanation.saliency)
    run(second, tmp_path, batches(2, 1), explainer='Counting', resume=False)
    assert Counting.calls == 6


def test_what_differs_is_computed_again(second, tmp_path):
    run(second, tmp_path, batches(2), explainer='Counting')
    assert Counting.calls == 2
    clouds = [tiny.batch(tiny.cloud(7), tiny.cloud(1))]
    run(second, tmp_path, clouds, explainer='Counting')
    assert Counting.calls == 3  # Another cloud of the same name.
    file = tmp_path / 'explanations/000001.npz'
    file.write_bytes(file.read_bytes()[:1000])
    run(second, tmp_path, clouds, explainer='Counting')
    assert Counting.calls == 4  # A damaged file.
    run(second, tmp_path, clouds, explainer='Counting')
    assert Counting.calls == 4


def test_a_folder_belongs_to_one_run(second, tmp_path):
    run(second, tmp_path, batches(2), explainer='Counting')
    folder = tmp_path / 'explanations'
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    fewer = dict(score_thr=0.0, top_n=2)
    for model, settings, text in (
        (second, dict(select=fewer), 'select.top_n: 3 -> 2'),
        (second, dict(targets=['x']), 'targets: '),
        (second, dict(explainer=dict(type='Counting', seed=5)), 'explainer.seed: 0 -> 5'),
        (tiny.build(tiny.second(), seed=1), {}, 'model: '),
    ):
        with pytest.raises(SettingsMismatchError, match=f'belongs to another run.*{text}.*--out-'):
            run(model, tmp_path, batches(2), **{'explainer': 'Counting', **settings})
        assert 'predict' not in vars(model)
    (folder / 'run.json').unlink()  # As folders of older versions, which are known by a file.
    with pytest.raises(SettingsMismatchError, match='select.top_n: 3 -> 2'):
        run(second, tmp_path, batches(2), explainer='Counting', select=fewer)
    run(second, tmp_path, batches(2), explainer='Counting')
    assert Counting.calls == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_failing_frame_does_not_lose_those_before_it(second, tmp_path):
    Counting.fail_at = 3
    with pytest.raises(FloatingPointError):
        run(second, tmp_path, batches(2, 2), explainer='Counting')
    assert [e.frame_id for e in ResultStore(tmp_path / 'explanations')] == ['000000', '000001']
    assert 'predict' not in vars(second)


def test_a_failing_frame_can_be_skipped(second, tmp_path, caplog):
    Counting.fail_at = 2
    with caplog.at_level(logging.ERROR):
        samples = run(second, tmp_path, batches(3), explainer='Counting', on_error='skip')
    names = [e.frame_id for e in ResultStore(tmp_path / 'explanations')]
    assert names == ['000000', '000002']
    empty = samples[1].explanation
    assert len(empty.detections) == 0
    assert empty.saliency.shape == (0, len(tiny.cloud(1)))
    assert empty.maps.info == {'error': 'no more'}


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_points_that_are_not_finite_name_their_frame(second, tmp_path, value, on_error):
    cloud = tiny.cloud(1)
    cloud[7, 3] = value
    bad = [tiny.batch(tiny.cloud(0), names=['good']), tiny.batch(cloud, names=['bad'])]
    if on_error == 'raise':
        with pytest.raises(InputError, match="Frame 'bad' has 1 points that are not finite"):
            run(second, tmp_path, bad)
    else:
        samples = run(second, tmp_path, bad, on_error='skip')
        assert 'not finite' in samples[1].explanation.maps.info['error']
    assert [e.frame_id for e in ResultStore(tmp_path / 'explanations')] == ['good']


def test_an_empty_cloud_names_its_frame_before_the_host_crashes(second, tmp_path):
    empty = [tiny.batch(tiny.cloud(0)[:0], names=['empty'])]
    with pytest.raises(InputError, match=r"Frame 'empty' has points of shape \(0, 4\)"):
        run(second, tmp_path, empty)


def test_a_frame_that_the_host_cannot_predict_either_is_named(second, tmp_path, monkeypatch):
    cloud = tiny.cloud(1)
    cloud[7, 3] = np.nan
    host = second.extract_feat
    monkeypatch.setattr(
        second, 'extract_feat', lambda x: 1 / 0 if x['points'][0].isnan().any() else host(x)
    )
    clouds = [tiny.batch(tiny.cloud(0), names=['good']), tiny.batch(cloud, names=['bad'])]
    with pytest.raises(InputError, match=r"'bad'.*The detector itself fails on this frame \("):
        run(second, tmp_path, clouds, on_error='skip')
    assert [e.frame_id for e in ResultStore(tmp_path / 'explanations')] == ['good']


@pytest.mark.parametrize('name', ['second', 'centerpoint_pillar'])
def test_one_point(name, tmp_path):
    model = tiny.build(tiny.MODELS[name]())
    explainer = dict(type='GradCAM', layer='stride4' if name == 'second' else 'pillars')
    point = np.array([[6.1, 0.1, -1.0, 0.5]], dtype=np.float32)
    (sample,) = run(model, tmp_path, [tiny.batch(point)], explainer=explainer)
    assert sample.explanation.saliency.shape == (3, 1)


def test_no_detections_give_an_empty_explanation(second, tmp_path):
    run(second, tmp_path, batches(2), explainer='Counting', select=dict(score_thr=0.999))
    assert Counting.calls == 0
    for i, explanation in enumerate(ResultStore(tmp_path / 'explanations')):
        assert len(explanation.detections) == 0
        assert explanation.saliency.shape == (0, len(tiny.cloud(i)))
    run(second, tmp_path, batches(2), explainer='Counting', select=dict(score_thr=0.999))


def test_a_thousand_detections(tmp_path):
    config = tiny.centerpoint_pillar()
    head = config['pts_bbox_head']
    head['bbox_coder']['max_num'] = 256
    config['test_cfg'] = copy.deepcopy(config['test_cfg'])
    config['test_cfg']['pts'].update(nms_thr=1.0, pre_max_size=1000, post_max_size=1000)
    head['tasks'] = [dict(num_class=1, class_names=[name]) for name in 'abcd']
    model = tiny.build(config)
    (sample,) = run(
        model,
        tmp_path,
        batches(1),
        explainer=dict(type='Counting', layer='bev'),
        select=dict(score_thr=0.0, top_n=None),
    )
    assert len(sample.pred_instances_3d) == 1024
    assert sample.explanation.saliency.shape[0] == 1024
    explainer = dict(type='GradCAM', layer='bev')
    (sample,) = run(model, tmp_path / 'b', batches(1), explainer=explainer)
    assert sample.explanation.saliency.shape[0] == 3


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(explainer=dict(type='FFAM', layer='conv9')), "Unknown layer 'conv9'"),
        (dict(explainer='FFFAM'), "Unknown explainer 'FFFAM'"),
        (dict(targets='colour'), "Unknown target 'colour'"),
        (dict(select=dict(topn=3)), "Unknown argument 'topn' of the selection"),
        (dict(outputs=dict(pictures=['oil'])), 'Unknown kinds of pictures'),
    ],
)
def test_unknown_names_are_found_before_the_first_frame(second, tmp_path, settings, message):
    with pytest.raises(UnknownNameError, match=message):
        ExplainerHook(**settings).before_test_epoch(runner(second, tmp_path))
    assert 'predict' not in vars(second)


def test_a_folder_that_cannot_be_written_is_found_before_the_first_frame(second, tmp_path):
    (tmp_path / 'file').write_text('')
    hook = ExplainerHook(outputs=dict(dir=str(tmp_path / 'file/results')))
    with pytest.raises(OSError, match='Cannot write to the output folder .*file/results'):
        hook.before_test_epoch(runner(second, tmp_path))


class TestCheckpoints:
    @pytest.fixture
    def path(self, second, tmp_path):
        path = tmp_path / 'checkpoint.pth'
        torch.save(dict(state_dict=tiny.half(second)), path)
        return str(path)

    def test_half_precision_of_the_same_model_fits(self, second, tmp_path, path):
        run(second, tmp_path, batches(1), checkpoint=path, explainer='Counting')

    def test_what_fits_is_what_mmdet3d_can_load(self, second, path):
        """Without its version information the checkpoint's sparse weights would be permuted."""
        from mmengine.runner import load_checkpoint

        fresh = tiny.build(tiny.second(), seed=1)
        load_checkpoint(fresh, path)
        for name, value in fresh.state_dict().items():
            torch.testing.assert_close(value, second.state_dict()[name], atol=1e-2, rtol=1e-2)

    def test_sparse_weights_without_a_version_are_refused(self, second, tmp_path):
        path = tmp_path / 'plain.pth'
        torch.save(dict(state_dict=dict(second.state_dict())), path)
        with pytest.raises(CheckpointMismatchError, match='_metadata of model.state_dict'):
            ExplainerHook().before_test_epoch(runner(second, tmp_path, str(path)))

    def test_the_layout_of_spconv_1_fits(self, second, tmp_path):
        state = dict(second.state_dict())
        for name, value in state.items():
            if value.dim() == 5:
                state[name] = value.permute(1, 2, 3, 4, 0)
        torch.save(dict(state_dict=state), tmp_path / 'old.pth')
        hook = ExplainerHook(explainer='Counting')
        host = runner(second, tmp_path, str(tmp_path / 'old.pth'))
        hook.before_test_epoch(host)
        hook.after_test_epoch(host)

    def test_another_model_is_refused(self, tmp_path, path):
        hook, other = ExplainerHook(), tiny.build(tiny.centerpoint_voxel())
        with pytest.raises(CheckpointMismatchError, match='does not fit CenterPoint.* missing'):
            hook.before_test_epoch(runner(other, tmp_path, path))
        hook = ExplainerHook(explainer='Counting', check_checkpoint=False)
        hook.before_test_epoch(runner(other, tmp_path, path))

    def test_other_shapes_are_refused(self, tmp_path, path):
        config = tiny.second()
        config['bbox_head'].update(feat_channels=32, in_channels=32)
        config['neck'] = dict(tiny.NECK, out_channels=[8, 24])
        other = tiny.build(config)
        with pytest.raises(CheckpointMismatchError, match='of another shape .*neck.deblocks'):
            ExplainerHook().before_test_epoch(runner(other, tmp_path, path))

    def test_none_at_all_is_warned_about(self, second, tmp_path, caplog):
        log = logging.getLogger('tiny')
        host = runner(second, tmp_path)
        host.logger = log
        hook = ExplainerHook(explainer='Counting')
        with caplog.at_level(logging.WARNING, 'tiny'):
            hook.before_test_epoch(host)
        hook.after_test_epoch(host)
        assert 'No checkpoint is loaded' in caplog.text

    def test_weights_loaded_by_hand_are_not_warned_about(self, tmp_path, caplog):
        trained = tiny.build(tiny.second())
        with torch.no_grad():
            for name, value in trained.state_dict().items():
                value += 0.5 if name.endswith('running_mean') else 0
        model = tiny.build(tiny.second())
        assert parts_as_built(model) == ['backbone', 'neck', 'middle_encoder']
        model.load_state_dict(trained.state_dict())
        host = runner(model, tmp_path)
        host.logger = logging.getLogger('tiny')
        hook = ExplainerHook(explainer='Counting')
        with caplog.at_level(logging.WARNING, 'tiny'):
            hook.before_test_epoch(host)
        hook.after_test_epoch(host)
        assert 'No checkpoint' not in caplog.text
        for norm in (m for m in model.neck.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.reset_parameters()
        assert parts_as_built(model) == ['neck']
        assert parts_as_built(nn.Sequential(nn.Linear(2, 2))) == ['Sequential']


class Wrapper(nn.Module):
    """What DataParallel and DistributedDataParallel look like from outside."""

    def __init__(self, module):
        super().__init__()
        self.module, self.dataset_meta = module, module.dataset_meta

    def test_step(self, data):
        return self.module.test_step(data)


def test_nested_wrappers_are_looked_through(second, tmp_path):
    (sample,) = run(Wrapper(Wrapper(second)), tmp_path, batches(1), explainer='Counting')
    assert sample.explanation.saliency.shape[0] == 3


def test_test_time_augmentation_is_refused(second, tmp_path):
    from mmdet3d.models import Seg3DTTAModel

    tta = Seg3DTTAModel(module=second)
    tta.dataset_meta = second.dataset_meta
    with pytest.raises(TypeError, match='test-time augmentation'):
        ExplainerHook().before_test_epoch(runner(tta, tmp_path))
    hook = ExplainerHook(explainer='Counting')
    hook.before_test_epoch(runner(second, tmp_path))
    data = batches(1)[0]
    with pytest.raises(TypeError, match='test-time augmentation'):
        second(data['inputs'], [data['data_samples']], mode='predict')
    hook.after_test_epoch(runner(second, tmp_path))


def test_two_explainers_at_once_are_refused(second, tmp_path):
    first = ExplainerHook(explainer='Counting')
    first.before_test_epoch(runner(second, tmp_path))
    with pytest.raises(TypeError, match='attached to already'):
        ExplainerHook(explainer='Counting').before_test_epoch(runner(second, tmp_path))
    first.after_test_epoch(runner(second, tmp_path))


def test_nothing_happens_in_training_mode(tmp_path):
    model = tiny.build(tiny.second())
    hook = ExplainerHook(explainer='Counting')
    hook.before_test_epoch(runner(model, tmp_path))
    model.train()
    with torch.no_grad():
        model.test_step(batches(2)[0])
    assert Counting.calls == 0
    hook.after_test_epoch(runner(model, tmp_path))


def test_progress_is_logged(second, tmp_path, monkeypatch):
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'info', lines.append)
    run(second, tmp_path, batches(2, 2), explainer='Counting', interval=2)
    progress = [line for line in lines if line.startswith('Explained')]
    assert [line.split(' (')[0] for line in progress] == [
        'Explained so far: 2 frames, 6 detections',
        'Explained so far: 4 frames, 12 detections',
        'Explained: 4 frames, 12 detections',
    ]
