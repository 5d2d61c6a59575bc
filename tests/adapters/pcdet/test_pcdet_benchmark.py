"""tools/benchmark.py with a configuration of OpenPCDet."""

import importlib.util
import json
import sys

import pytest
import yaml
from pcdet_runs import DEVICE, EXPLAINER, MEASURED, ROOT, write

from explain3d.adapters.common.benchmark_plan import BenchmarkPlan
from explain3d.adapters.pcdet.benchmark import benchmark_settings, opened, options_of
from explain3d.adapters.pcdet.heads import ConventionCandidates
from explain3d.core.errors import InputError
from explain3d.methods import EXPLAINERS
from explain3d.metrics.saliency_table import load_records

BENCHMARK = {
    'METHODS': {
        'Weighted': {'TYPE': 'ODAM', 'LAYER': 'stride4'},
        'Chance': {'TYPE': 'RandomMap', 'LAYER': 'stride4'},
    },
    'TARGETS': ['score'],
    'METRICS': ['vea', 'pg', 'deletion', 'stability'],
    'SELECT': {'SCORE_THR': 0.3, 'TOP_N': 2},
    'PROTOCOL': {'STEPS': 3, 'IOU_THR': 0.3},
    'REFERENCE': 'Chance',
}


def load_tool(name='benchmark'):
    spec = importlib.util.spec_from_file_location(f'{name}_tool', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()


@pytest.fixture(scope='module')
def config(folder, pcdet_kitti):
    path = write(folder / 'benchmark.yaml', pcdet_kitti)
    content = {**yaml.safe_load(path.read_text()), 'BENCHMARK': BENCHMARK}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def run(checkout, folder, config, tmp_path, monkeypatch):
    monkeypatch.setenv('PCDET_ROOT', str(checkout))  # Put back what --pcdet sets.

    def run(*options, ckpt='second.pth', out=None):
        out = out or tmp_path
        command = [str(config), str(folder / ckpt), '--pcdet', str(checkout), '--device', DEVICE]
        tool.main([*command, '--frames', '1', '--out-dir', str(out), *options])
        return load_records(out / 'records.json')

    return run


def test_methods_and_metrics_and_a_run_that_goes_on(run, tmp_path, capsys):
    before = sys.path[:]
    records = run()
    assert sys.path == before
    assert {record.method for record in records} == {'Weighted', 'Chance'}
    names = {'vea', 'vea_max', 'pg', 'deletion', 'stability', 'seconds', 'passes'}
    for record in records:
        assert record.figures.keys() == names
        assert record.protocol['steps'] == 3
        assert record.iou > 0.3
    stable = {r.method: r.figures['stability'] for r in records}
    assert stable['Weighted'] > 0.5
    text = (tmp_path / 'table.md').read_text()
    assert 'Minus Chance, target score' in text
    assert json.loads((tmp_path / 'plan.json').read_text())['metrics'] == BENCHMARK['METRICS']
    capsys.readouterr()
    more = run('--methods', 'Weighted', 'ChannelSum', '--reference', 'Weighted')
    assert '1 frames, 1 of them to run' in capsys.readouterr().out
    assert [r for r in more if r.method == 'Weighted'] == [
        r for r in records if r.method == 'Weighted'
    ]
    assert {record.method for record in more} == {'Weighted', 'ChannelSum'}


def test_methods_side_by_side(checkout, folder, config, tmp_path, monkeypatch):
    monkeypatch.setenv('PCDET_ROOT', str(checkout))
    compare = load_tool('compare_methods')
    command = [str(config), str(folder / 'second.pth'), '--device', DEVICE, '--target', 'score']
    command += ['--classes', 'Car', '--out', str(tmp_path / 'methods.png')]
    compare.main([*command, '--frames', '1', '0'])
    assert (tmp_path / 'methods.png').stat().st_size > 10_000
    with pytest.raises(SystemExit, match="No frame '77': expected a name as '0"):
        compare.main([*command, '--frames', '77'])


def test_the_density_of_a_data_set(checkout, config, tmp_path, monkeypatch):
    """The section that is written is one that a benchmark takes."""
    monkeypatch.setenv('PCDET_ROOT', str(checkout))
    out = tmp_path / 'fragment.yaml'
    load_tool('fit_occam_density').main(
        [str(config), '--frames', '1', '--at', '15', '--degree', '3', '--out', str(out)]
    )
    base = yaml.safe_load(config.read_text())
    base['BENCHMARK']['METHODS'] = yaml.safe_load(out.read_text())['BENCHMARK']['METHODS']
    (tmp_path / 'occam.yaml').write_text(yaml.safe_dump(base))
    (method,) = benchmark_settings(tmp_path / 'occam.yaml', {'BENCHMARK.REFERENCE': None})[
        'methods'
    ].values()
    assert len(EXPLAINERS.build(method).density) == 4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--cfg-options', 'BENCHMARK.METRICS=[pgg]'], 'Unknown metrics .*pgg'),
        (['--cfg-options', 'BENCHMARK.METRIC=[pg]'], r"Unknown entries \['metric'\]"),
        (['--cfg-options', 'BENCHMARK.METRICS'], 'Expected NAME.NAME=value'),
        (['--cfg-options', 'BENCHMARK.PROTOCOL.STEP=3'], r"Unknown part of a protocol \['step'\]"),
        (['--cfg-options', 'BENCHMARK.SELECT.TOP=3'], "Unknown argument 'top' of the selection"),
        (['--cfg-options', 'MODEL.NAM=X'], "No entry 'MODEL.NAM' .*Did you mean NAME"),
        (['--cfg-options', 'BENCHMARK.HEAD=Head'], "Unknown family of heads 'Head'"),
        (['--cfg-options', 'BENCHMARK.HEAD=any'], 'Of SECONDNet the whole frame decides'),
        (['--cfg-options', 'DATA_CONFIG.DATA_PATH=nowhere'], "The data set 'nowhere'"),
        (['--methods', 'FAM'], "Unknown method 'FAM'"),
    ],
)
def test_mistakes_are_told(run, options, message):
    with pytest.raises(SystemExit, match=message):
        run(*options)


def test_no_checkpoint_and_another_models_are_told(run):
    with pytest.raises(SystemExit, match='Expected a checkpoint .*gone.pth'):
        run(ckpt='gone.pth')
    with pytest.raises(SystemExit, match='does not fit SECONDNet'):
        run(ckpt='centerpoint.pth')


def test_the_section_explainer_is_a_benchmark_of_one_method(folder, pcdet_kitti):
    path = write(folder / 'one.yaml', pcdet_kitti, {**EXPLAINER, **MEASURED})
    settings = benchmark_settings(path, {'EXPLAINER.ARGS.LAYER': 'stride8'})
    assert settings['methods'] == {'ODAM': {'type': 'ODAM', 'layer': 'stride8'}}
    assert settings['metrics'] == MEASURED['METRICS']
    assert settings['protocol'] == {'steps': 3, 'iou_thr': 0.3}
    assert tool.plan_of(tool.parse_args([str(path)])).targets == ['score']


def test_head_and_proposals_are_those_of_the_configuration(
    folder, config, checkout, tmp_path, monkeypatch
):
    monkeypatch.setenv('PCDET_ROOT', str(checkout))
    plain = {'BENCHMARK.METRICS': ['vea'], 'BENCHMARK.FRAMES': 1}
    options = {**plain, 'BENCHMARK.HEAD': 'any'}
    settings = benchmark_settings(config, options)
    assert settings['tracing'] == {'head': 'any'}
    other = {'EXPLAINER.HEAD': 'CenterHead', 'EXPLAINER.THROUGH_PROPOSALS': True}
    both = benchmark_settings(config, {**options, **other})
    assert both['tracing'] == {'head': 'any', 'through_proposals': True}
    given = dict(config=str(config), checkpoint=str(folder / 'second.pth'), device=DEVICE)
    plan = BenchmarkPlan.of(settings, **given, options=options)
    with opened(plan, tmp_path) as benchmark:
        explainer = benchmark.explainers['Weighted']
        assert explainer.tracer.candidates is ConventionCandidates
        assert explainer.settings['head'] == 'any'
        # The whole frame decides, for all that is known of such a head; no metric asks.
        assert benchmark.box is None
        assert benchmark.run(0)
    settings = benchmark_settings(config, plain)
    with opened(BenchmarkPlan.of(settings, **given, options=plain), tmp_path) as benchmark:
        assert benchmark.box is not None
        # What was measured with another family is measured anew.
        assert benchmark.pending() == [0]


def test_options_are_yaml():
    found = options_of(['A.B=[1, x]', 'C=true', 'D=a=b'])
    assert found == {'A.B': [1, 'x'], 'C': True, 'D': 'a=b'}
    with pytest.raises(InputError, match='received'):
        options_of(['A'])
