"""The separation test: what is replaced, what is compared, and the same on any process count."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_fusion as tiny
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmengine.structures import PixelData

from explain3d.adapters.mmdet3d.lmd import separation_loop
from explain3d.adapters.mmdet3d.lmd.memo import Memo
from explain3d.adapters.mmdet3d.lmd.perturb import SENSORS, only, sensors_of
from explain3d.adapters.mmdet3d.lmd.separation import BLANKED, SeparationTest
from explain3d.adapters.mmdet3d.lmd.separation_table import text_of
from explain3d.core.errors import InputError, ResultFileError, UnknownNameError
from explain3d.lmd import Decomposition

SEPARATE = dict(activation='separate', instance_norm='separate')
RULES = {'identity': dict(), 'ratio': dict(bias_split='ratio'), 'none': SEPARATE}


@pytest.fixture
def model():
    return tiny.build()


def same(a, b):
    arrays = zip(a['inputs'].values(), b['inputs'].values(), strict=True)
    meta = a['data_samples'].metainfo, b['data_samples'].metainfo
    return all(torch.equal(x, y) for x, y in arrays) and np.array_equal(
        meta[0]['cam2ref'], meta[1]['cam2ref']
    )


def test_a_camera_brings_its_calibration_and_nothing_else():
    item, donor = tiny.item(0), tiny.item(1)
    mixed = SENSORS['camera'].replace(item, donor)
    assert torch.equal(mixed['inputs']['img'], donor['inputs']['img'])
    assert torch.equal(mixed['inputs']['radar'], item['inputs']['radar'])
    meta = mixed['data_samples'].metainfo
    np.testing.assert_array_equal(meta['cam2ref'], donor['data_samples'].metainfo['cam2ref'])
    assert meta['token'] == 't0'
    other = SENSORS['radar'].replace(item, donor)
    assert torch.equal(other['inputs']['radar'], donor['inputs']['radar'])
    assert torch.equal(other['inputs']['img'], item['inputs']['img'])
    np.testing.assert_array_equal(
        other['data_samples'].metainfo['cam2ref'], item['data_samples'].metainfo['cam2ref']
    )
    assert same(item, tiny.item(0))
    assert same(donor, tiny.item(1))


def test_one_camera_of_several():
    item, donor = tiny.item(0), tiny.item(1)
    sensors = sensors_of(('CAM_BACK', 'radar'), None, item)
    mixed = sensors['CAM_BACK'].replace(item, donor)
    meta = [i['data_samples'].metainfo['cam2ref'] for i in (mixed, item, donor)]
    for camera, source in ((0, 1), (1, 2)):
        expected = (mixed, item, donor)[source]
        assert torch.equal(mixed['inputs']['img'][camera], expected['inputs']['img'][camera])
        np.testing.assert_array_equal(meta[0][camera], meta[source][camera])
    blank = sensors['CAM_BACK'].blank(item)['inputs']['img']
    assert blank[1].eq(0).all()
    assert torch.equal(blank[0], item['inputs']['img'][0])
    assert same(item, tiny.item(0))
    with pytest.raises(UnknownNameError, match=r"modality 'sonar' is not known.*CAM_BACK"):
        sensors_of(('sonar',), None, item)
    given = sensors_of(('sonar',), {'sonar': dict(inputs=['sonar'])}, item)
    with pytest.raises(InputError, match="Expected 'sonar' in a sample"):
        given['sonar'].replace(item, donor)


def test_only_one_modality_is_left():
    item = tiny.item(0)
    alone = only(sensors_of(('camera', 'radar'), None, item), 'camera', item)
    assert len(alone['inputs']['radar']) == 0
    assert torch.equal(alone['inputs']['img'], item['inputs']['img'])


def decomposed(model, item, rules, **options):
    seeds = model.lmd_seeds()
    with torch.no_grad(), Decomposition(model, seeds, ['head'], rules, **options) as run:
        model.test_step(pseudo_collate([item]))
    found = run.outputs['head']
    return {n: found[n].double().numpy().ravel() for n in found.names}, run.record


def test_figures_by_brute_force(model):
    test = SeparationTest(model, RULES, blanked=False)
    partners = [3, 4]
    found = test.measure(tiny.item(0), [tiny.item(j) for j in partners])
    table = dict(zip(test.columns, found.T, strict=True))
    assert [r for r in test.rows if r[0] == 'none'] == [('none', 'relinearized')]
    for name, rules in RULES.items():
        for mode in ('relinearized', 'frozen')[: 1 if name == 'none' else 2]:
            clean, record = decomposed(model, tiny.item(0), rules, record=mode == 'frozen')
            for sensor in ('camera', 'radar'):
                for place, j in enumerate(partners):
                    mixed = SENSORS[sensor].replace(tiny.item(0), tiny.item(j))
                    options = dict(frozen=record) if mode == 'frozen' else {}
                    after, _ = decomposed(model, mixed, None if options else rules, **options)
                    for y in ('camera', 'radar', 'bias'):
                        key = f'{name} | {mode} | {sensor}_p/{y}'
                        mse = np.mean((clean[y] - after[y]) ** 2)
                        assert table[f'{key} mse'][place] == pytest.approx(mse, abs=1e-15)
                        if clean[y].std() > 0:
                            pcc = np.corrcoef(clean[y], after[y])[0, 1]
                            assert table[f'{key} pcc'][place] == pytest.approx(pcc, abs=1e-6)


def test_what_frozen_and_separate_imply(model):
    test = SeparationTest(model, RULES)
    found = test.measure(tiny.item(0), [tiny.item(1)])
    table = dict(zip(test.columns, found[0], strict=True))
    for cross in ('camera_p/radar', 'radar_p/camera'):
        for row in ('identity | frozen', 'ratio | frozen', 'none | relinearized', f'{BLANKED} | -'):
            assert table[f'{row} | {cross} pcc'] == pytest.approx(1, abs=1e-6)
            assert table[f'{row} | {cross} mse'] < 1e-12
        # Its own slopes for each input let the other sensor in.
        assert table[f'identity | relinearized | {cross} pcc'] < 0.9999
    for own in ('camera_p/camera', 'radar_p/radar'):
        assert table[f'identity | frozen | {own} pcc'] < 0.9
        assert table[f'identity | frozen | {own} mse'] > 1e-6


def test_blanked_input_is_the_network_on_one_sensor(model):
    test = SeparationTest(model, {'identity': {}})
    item, partner = tiny.item(0), tiny.item(1)
    found = test.measure(item, [partner])
    table = dict(zip(test.columns, found[0], strict=True))
    maps = []
    for source in (item, partner):
        black = {**source['inputs'], 'img': torch.zeros_like(source['inputs']['img'])}
        alone = dict(inputs=black, data_samples=item['data_samples'].clone())
        with torch.no_grad():
            maps.append(model.test_step(pseudo_collate([alone]))[0].pred_bev_seg.logits.numpy())
    expected = np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]
    assert table[f'{BLANKED} | - | radar_p/radar pcc'] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(table[f'{BLANKED} | - | radar_p/bias pcc'])


def test_the_test_leaves_the_model_as_found(model):
    before = {n: set(vars(m)) for n, m in model.named_modules()}
    model.train()
    SeparationTest(model, RULES, memoize=['encoder']).measure(tiny.item(0), [tiny.item(1)])
    assert {n: set(vars(m)) for n, m in model.named_modules()} == before
    assert model.training
    assert model.block[1].num_batches_tracked == 0


def test_encoders_run_once_for_each_input(model, monkeypatch):
    plain = SeparationTest(model, RULES).measure(tiny.item(0), [tiny.item(1), tiny.item(2)])
    calls, forward = [], model.encoder.forward
    monkeypatch.setattr(model.encoder, 'forward', lambda x: calls.append(1) or forward(x))
    test = SeparationTest(model, RULES, memoize=['encoder'])
    again = test.measure(tiny.item(0), [tiny.item(1), tiny.item(2)])
    np.testing.assert_array_equal(plain, again)
    assert len(calls) == 4  # Three pictures, and black.


class TwoHeads(tiny.TinyFusion):
    def __init__(self):
        super().__init__()
        self.other = torch.nn.Conv2d(8, 1, 1)

    def lmd_once(self, seeds):
        assert seeds[0].module == 'fuse'
        return 'data_preprocessor', 'forward_maps', 'head', 'fuse', 'other'

    def predict(self, inputs, samples, **kwargs):
        features = self.block(self.fuse(self.forward_maps(inputs, samples)))
        both = self.head(features), self.other(features)
        for sample, logits, offset in zip(samples, *both, strict=True):
            sample.pred_bev_seg = PixelData(logits=logits, offset=offset)
        return samples


def test_what_rules_do_not_change_runs_once_for_each_input(monkeypatch):
    torch.manual_seed(0)
    model = TwoHeads().eval()
    arguments = tiny.item(0), [tiny.item(1), tiny.item(2)]
    plain = SeparationTest(model, RULES, once=())
    expected = plain.measure(*arguments)
    calls = []
    for name in ('forward_maps', 'other'):
        owner, key = (model, name) if name == 'forward_maps' else (model.other, 'forward')
        original = getattr(owner, key)
        monkeypatch.setattr(
            owner, key, lambda *a, o=original, n=name, **k: calls.append(n) or o(*a, **k)
        )
    test = SeparationTest(model, RULES)
    assert test.once == ('data_preprocessor', 'forward_maps', 'other')  # Neither seed nor end.
    np.testing.assert_array_equal(test.measure(*arguments), expected)
    # The sample and its four variants; each sensor alone, and alone with each partner's.
    assert calls.count('forward_maps') == calls.count('other') == 5 + 2 + 4
    found, kept = (t.predictions[0].pred_bev_seg for t in (plain, test))
    assert torch.equal(found.logits, kept.logits)
    assert torch.equal(found.offset, kept.offset)
    assert torch.equal(test.predict(arguments[0])[0].pred_bev_seg.logits, kept.logits)
    # Nothing is remembered from one sample, or from one set of weights, to the next.
    with torch.no_grad():
        model.other.bias += 1
    test.measure(*arguments)
    assert (test.predictions[0].pred_bev_seg.offset - kept.offset - 1).abs().max() < 1e-6
    with pytest.raises(UnknownNameError, match="'forward_map'"):
        SeparationTest(model, RULES, once=['forward_map'])


def test_remembered_results_are_copies(model):
    x = torch.ones(1, 3, 4, 4)
    with Memo(model, ['encoder'], [], 1).attached(), torch.no_grad():
        first = model.encoder(x)
        expected = first.clone()
        first.zero_()
        assert torch.equal(model.encoder(x), expected)
        assert not torch.equal(model.encoder(x + 1), expected)
        assert torch.equal(model.encoder(x), expected)
    assert 'forward' not in vars(model.encoder)


def test_wrong_settings_are_refused(model):
    with pytest.raises(UnknownNameError, match="'frozen'"):
        SeparationTest(model, RULES, modes=['linear'])
    with pytest.raises(UnknownNameError, match='bias_split'):
        SeparationTest(model, {'x': dict(bias_split='some')})
    with pytest.raises(InputError, match="'head' .*not finite"):
        SeparationTest(model, RULES).measure(tiny.item(0, bad=True), [tiny.item(1)])


@pytest.fixture
def settings(model, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    torch.save(model.state_dict(), tmp_path / 'w.pth')
    loop = dict(
        type='explain3d.SeparationTestLoop',
        rules={'identity': {}, 'none': SEPARATE},
        shifts=2,
        memoize=['encoder'],
    )
    return lambda name, **more: Config(
        tiny.config(tmp_path / name, tmp_path / 'w.pth') | dict(test_cfg={**loop, **more})
    )


def test_a_test_loop_writes_table_and_protocol(model, tmp_path, settings):
    metrics = Runner.from_cfg(settings('a')).test()
    content = json.loads((tmp_path / 'a/separation.json').read_text())
    protocol, table = content['protocol'], content['table']
    assert (protocol['count'], protocol['stride'], protocol['shifts']) == (5, 1, 2)
    assert protocol['rules']['none']['activation'] == 'separate'
    assert 'by construction' in protocol['frozen']
    assert [(r['rules'], r['mode']) for r in table] == [
        ('identity', 'relinearized'), ('identity', 'frozen'),
        ('none', 'relinearized'), (BLANKED, '-'),
    ]  # fmt: skip
    test = SeparationTest(model, {'identity': {}}, modes=['relinearized'], blanked=False)
    values = [
        test.measure(tiny.item(k), [tiny.item((k + m) % 5) for m in (1, 2)]) for k in range(5)
    ]
    values = np.concatenate(values)
    for i, figure in enumerate(test.figures):
        found = table[0]['figures'][figure.name]
        assert found['count'] == 10
        assert found['mean'] == pytest.approx(values[:, i].mean())
        assert found['std'] == pytest.approx(values[:, i].std())
    name = 'separation/identity/relinearized/radar_p/camera_pcc'
    assert metrics[name] == table[0]['figures']['radar_p/camera pcc']['mean']
    # The evaluator saw the clean predictions.
    with torch.no_grad():
        logits = [model.test_step(tiny.batch(k))[0].pred_bev_seg.logits.mean() for k in range(5)]
    assert metrics['logit'] == pytest.approx(float(torch.stack(logits).mean()))
    assert table[3]['figures']['radar_p/bias pcc'] == dict(
        mean=None, std=None, count=0, undefined=10
    )
    text = text_of(table, test.figures, ('camera', 'radar'))
    assert 'radar_p/camera pcc ↑' in text.splitlines()[0]
    assert '1.00 ± 0.00' in text


@pytest.mark.parametrize('world', [2, 3])
def test_several_processes_give_the_same_table(model, settings, monkeypatch, world):
    runner = Runner.from_cfg(settings('a'))
    loop = runner.build_test_loop(runner.cfg.test_cfg)
    loop.evaluate = False
    test = SeparationTest(model, {'identity': {}}, blanked=False)
    found = {}
    for ranks in (1, world):
        parts = []
        for rank in range(ranks):
            process = SimpleNamespace(
                get_rank=lambda r=rank: r,
                get_world_size=lambda n=ranks: n,
                all_gather_object=lambda value: [*parts, value],  # noqa: B023
            )
            monkeypatch.setattr(separation_loop, 'dist', process)
            monkeypatch.setattr(loop, '_resumed', lambda *_: frozenset())
            parts.append(loop._collect(test))
        found[ranks] = parts[-1].result()
        assert len(parts[-1]) == 5
    for field in ('count', 'means', 'deviations'):
        np.testing.assert_array_equal(getattr(found[1], field), getattr(found[world], field))


def test_sets_that_are_too_small_or_too_short(settings):
    runner = Runner.from_cfg(settings('b', samples=9))
    with pytest.raises(InputError, match='1 <= samples <= 5'):
        runner.test()


def test_rows_choose_among_the_rule_sets(settings):
    rules = {'identity, a': {}, 'none (b)': SEPARATE, 'ratio, a': dict(bias_split='ratio')}
    runner = Runner.from_cfg(settings('a'))
    loop = runner.cfg.test_cfg

    def chosen(rows):
        loop.rules, loop.rows = rules, rows
        return list(runner.build_test_loop(loop).settings['rules'])

    assert chosen(['ratio, a', 'identity*']) == ['identity, a', 'ratio, a']
    assert chosen(['*(*)']) == ['none (b)']
    assert chosen(None) == list(rules)
    with pytest.raises(UnknownNameError, match=r"rows: .*'c\*'.*identity, a"):
        chosen(['identity*', 'c*'])


class Killed(Exception):
    pass


@pytest.fixture
def measured(monkeypatch):
    """The samples that were measured, in order; ``stop`` kills the run before the n-th."""
    calls, measure = SimpleNamespace(tokens=[], stop=None), SeparationTest.measure

    def counting(self, item, partners):
        if len(calls.tokens) == calls.stop:
            raise Killed
        calls.tokens.append(item['data_samples'].metainfo['token'])
        return measure(self, item, partners)

    monkeypatch.setattr(SeparationTest, 'measure', counting)
    return calls


def killed_after(count, settings, name, measured, **more):
    measured.stop = count
    with pytest.raises(Killed):
        Runner.from_cfg(settings(name, **more)).test()
    measured.stop = None
    measured.tokens.clear()


def test_a_killed_run_goes_on_to_the_same_figures(tmp_path, settings, measured):
    whole = Runner.from_cfg(settings('a')).test()
    assert measured.tokens == ['t0', 't1', 't2', 't3', 't4']
    measured.tokens.clear()
    killed_after(2, settings, 'b', measured)
    assert not (tmp_path / 'b/separation.json').exists()
    assert len(list((tmp_path / 'b/separation_samples').glob('*.npz'))) == 2
    resumed = Runner.from_cfg(settings('b')).test()
    assert measured.tokens == ['t2', 't3', 't4']
    assert {k: v for k, v in resumed.items() if k != 'logit'} == {
        k: v for k, v in whole.items() if k != 'logit'
    }
    # The evaluator saw all samples, though in another order.
    assert resumed['logit'] == pytest.approx(whole['logit'])
    tables = [json.loads((tmp_path / n / 'separation.json').read_text())['table'] for n in 'ab']
    assert tables[0] == tables[1]
    measured.tokens.clear()
    Runner.from_cfg(settings('b')).test()
    assert measured.tokens == []
    Runner.from_cfg(settings('b', resume=False, evaluate=False)).test()
    assert len(measured.tokens) == 5


@pytest.mark.parametrize('what', ['cut', 'byte', 'rules', 'weights', 'shifts', 'samples'])
def test_what_is_not_this_runs_is_computed_again(model, tmp_path, settings, measured, what):
    killed_after(2, settings, 'a', measured, evaluate=False)
    path, more, expected = tmp_path / 'a/separation_samples/000001.npz', {}, ['t0', 't1']
    if what == 'cut':
        path.write_bytes(path.read_bytes()[:200])
        expected = ['t1']
    elif what == 'byte':
        with np.load(path) as file:
            arrays = dict(file)
        arrays['mean'][0] += 1e-9
        np.savez(path, **arrays)
        expected = ['t1']
    elif what == 'rules':
        more = dict(rules={'identity': {}, 'none': dict(SEPARATE, batch_norm='uniform')})
    elif what == 'weights':
        with torch.no_grad():
            model.head.bias += 1
        torch.save(model.state_dict(), tmp_path / 'w.pth')
    elif what == 'shifts':
        more = dict(shifts=3)
    else:  # A smaller share of the samples has figures in common.
        more, expected = dict(samples=2), []
    Runner.from_cfg(settings('a', evaluate=False, **more)).test()
    rest = ['t2', 't3', 't4'] if what != 'samples' else ['t2']
    assert measured.tokens == expected + rest


def test_a_full_disk_loses_nothing(tmp_path, settings, measured, monkeypatch):
    import errno
    import os

    killed_after(2, settings, 'a', measured)
    replace = os.replace

    def full(source, target):
        if str(target).endswith('000003.npz'):
            raise OSError(errno.ENOSPC, 'No space left on device')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(ResultFileError, match='figures of sample 3.*No space left'):
        Runner.from_cfg(settings('a')).test()
    monkeypatch.setattr(os, 'replace', replace)
    measured.tokens.clear()
    Runner.from_cfg(settings('a')).test()
    assert measured.tokens == ['t3', 't4']
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/separation_samples').write_text('')
    with pytest.raises(ResultFileError, match='Cannot write to the output folder'):
        Runner.from_cfg(settings('b')).test()
