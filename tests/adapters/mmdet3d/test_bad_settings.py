"""Bad settings of hooks, models, metrics and loops are refused before there is a model."""

import math
from types import SimpleNamespace

import pytest
import tiny_detectors as tiny

from explain3d.adapters.common.benchmark_plan import BenchmarkPlan
from explain3d.adapters.common.recorder import Recorder
from explain3d.adapters.mmdet3d.average_map_metric import AverageMapMetric
from explain3d.adapters.mmdet3d.bev.metric import BEVSegMetric
from explain3d.adapters.mmdet3d.explained_model import ExplainedModel
from explain3d.adapters.mmdet3d.frame_explainer import FrameExplainer
from explain3d.adapters.mmdet3d.hook import ExplainerHook
from explain3d.adapters.mmdet3d.kitti_counts import CountProtocol
from explain3d.adapters.mmdet3d.lmd import (
    DecomposedModel,
    LMDHook,
    SensorShareHook,
    SensorShareMetric,
)
from explain3d.adapters.mmdet3d.lmd.separation_loop import SeparationTestLoop
from explain3d.adapters.mmdet3d.overlap_metric import OverlapAP
from explain3d.adapters.mmdet3d.saliency_metric import SaliencyMetric
from explain3d.adapters.pcdet.benchmark import benchmark_settings
from explain3d.adapters.pcdet.settings import settings_of
from explain3d.core.errors import InputError, UnknownNameError

NAN = math.nan


def explained_model(**settings):
    return ExplainedModel(detector=dict(type='nothing that is built'), **settings)


def decomposed_model(**settings):
    return DecomposedModel(detector=dict(type='nothing that is built'), **settings)


def loop(**settings):
    return SeparationTestLoop(SimpleNamespace(), {}, {}, **{'rules': {'a': {}}, **settings})


def plan(**settings):
    return BenchmarkPlan.of({'methods': {'A': dict(type='FFAM')}, **settings}, config='config.py')


def section(**settings):
    return settings_of({'EXPLAINER': settings})


#: Settings that every hook has.
RUN = [
    (dict(resume='no'), "Expected resume to be True or False, received 'no'"),
    (dict(interval=0), 'Expected interval >= 1, a whole number, received 0'),
    (dict(interval=2.5), 'received 2.5'),
    (dict(interval=True), 'received True'),
    (dict(on_error='ignore'), "Unknown on_error 'ignore': expected one of .'raise', 'skip'"),
    (dict(check_checkpoint='no'), "True or False, received 'no'"),
    (dict(frame_id=3), 'Expected frame_id to be None or text, received 3'),
]
#: What is written and drawn, of every hook.
OUTPUTS = [
    ('work', "to be a dict, received 'work' .str.: write"),
    (dict(folder='work'), "Unknown key 'folder'"),
    (dict(dri='work'), "Did you mean 'dir'"),
    (dict(dir=3), 'Expected dir to be None or text, received 3'),
    (dict(save='no'), "Expected save to be True or False, received 'no'"),
    (dict(background='yes'), "Expected background to be True or False, received 'yes'"),
    (dict(pictures=3), 'Expected pictures to be a list of names, received 3'),
    (dict(pictures=['oil']), r"Unknown kinds of pictures \['oil'\]"),
    (dict(pictures=dict(kind=['sheet'])), "'kind' of pictures.*Did you mean 'kinds'"),
]
DRAWING = [
    (dict(style='sepia'), "Unknown style 'sepia'"),
    (dict(suffix='.jpg'), "Unknown suffix '.jpg': expected one of"),
    (dict(suffix='png'), "Unknown suffix 'png'.*Did you mean '.png'"),
    (dict(dpi=0), 'Expected 0 < dpi <= 2400'),
    (dict(dpi='200'), "received '200' .str.: write the number without quotes"),
    (dict(dpi=NAN), 'a finite number or None, received nan'),
]
EXPLAINER = [
    (dict(explainer=None), 'Expected the explainer as a name.*received None'),
    (dict(explainer=dict(type='FFAM', rank=2.5)), 'Expected rank >= 1, .* received 2.5'),
    (dict(explainer=dict(type='FFAM', radius=100)), 'radius <= 10, .* received 100'),
    (dict(explainer=dict(rank=2)), 'has no "type"'),
    (dict(explainer='FFFAM'), "Unknown explainer 'FFFAM'.*Did you mean 'FFAM'"),
    (dict(targets=3), 'Expected a target as a name.*received 3'),
    (dict(targets='scroe'), "Did you mean 'score'"),
    (dict(select='car'), "Expected select to be a dict, received 'car'"),
    (dict(select=dict(classes=[3])), r'a list of names, received \[3\]'),
    (dict(select=dict(score_thr=NAN)), 'Expected score_thr, a finite number, received nan'),
    (dict(select=dict(top_n=True)), 'received True'),
    (dict(select=dict(score_th=0.3)), "Unknown argument 'score_th'.*Did you mean 'score_thr'"),
    (dict(outputs=dict(pictures=dict(target='yaw'))), "Unknown target of pictures 'yaw'"),
    (dict(outputs=dict(pictures=dict(max_objects=2.5))), 'Expected max_objects >= 0'),
]
SEEDS = [
    (dict(seeds=[dict(module='f', split=dict(a=0, b=1))]), r"split\['a'\].* >= 1.* received 0"),
    (dict(seeds=[dict(module='f', split=dict(a=-1, b=1))]), 'received -1'),
    (dict(seeds=3), 'a list of seeds, received 3'),
    (dict(rules=dict(actvation='none')), "Did you mean 'activation'"),
    (dict(mode='fast'), "Unknown mode 'fast'"),
]
LMD = [
    (dict(keep='all'), "Unknown keep 'all'"),
    (dict(capture='fuser'), r"a list of names, received 'fuser' \(str\): write \['fuser'\]"),
    (dict(gradcam=['layer']), r"gradcam to be a dict, received \['layer'\]"),
    (dict(gradcam=dict(layer=['a'])), "'layer' of gradcam.*Did you mean 'layers'"),
    (dict(gradcam=dict(region='predicted')), 'Expected layers to be a list of names, received No'),
    (dict(gradcam=dict(layers=['a'], whole='no')), "True or False, received 'no'"),
    (dict(references=['camera']), 'references to be a dict'),
    (dict(references=dict(camera=dict(conf='a'))), "'conf' of .*Did you mean 'config'"),
    (dict(outputs=3), 'Expected outputs as paths of modules, .* received 3'),
    (dict(outputs=[]), r'Expected outputs as paths of modules, .* received \[\]'),
    (dict(outputs={'map': dict(modul='head')}), "'modul' of an output.*Did you mean 'module'"),
    (dict(results=dict(pictures=dict(max_objects=3))), "Unknown key 'max_objects' of pictures"),
]
SHARES = [
    (dict(score_thr=NAN), 'Expected score_thr'),
    (dict(overlap=1.0), 'Expected 0 <= overlap < 1, .* received 1.0'),
    (dict(blank='camera'), r"write \['camera'\]"),
    (dict(sensors=['camera']), 'sensors to be a dict'),
    (dict(sensors=dict(lidar=dict(inputs='points'))), r"write \['points'\]"),
    (dict(sensors=dict(lidar=dict(input=['points']))), "'input' of .*Did you mean 'inputs'"),
    (dict(scor_thr=0.3), r"Unknown settings \['scor_thr'\].*Did you mean 'score_thr'"),
    (dict(results=dict(pictures=dict(style='dark'))), "Unknown key 'style' of pictures"),
]
LOOP = [
    (dict(rules=['a']), 'rules to be a dict'),
    (dict(rows='a'), 'rows to be a list of names'),
    (dict(rows=['b']), "no rule set is named as 'b'"),
    (dict(modes=['frozn']), "Did you mean 'frozen'"),
    (dict(blanked='no'), 'blanked to be True or False'),
    (dict(stride=0), 'Expected stride >= 1'),
    (dict(shifts=2.5), 'Expected shifts >= 1'),
    (dict(channel=-1), 'Expected channel >= 0'),
    (dict(file=3), 'Expected file to be None or text'),
    (dict(evaluate='no'), 'evaluate to be True or False'),
    (dict(interval=0), 'Expected interval >= 1'),
    (dict(resume='no'), 'resume to be True or False'),
    (dict(memoize='backbone'), r"write \['backbone'\]"),
]
METRIC = [
    (SaliencyMetric, dict(figures='vea'), r"write \['vea'\]"),
    (SaliencyMetric, dict(figures=['vea'], metrics=['vea']), 'leave metrics out'),
    (SaliencyMetric, dict(draws=0), 'Expected draws >= 1'),
    (SaliencyMetric, dict(file=3), 'Expected file to be None or text'),
    (SaliencyMetric, dict(protocol=dict(steps=2.5)), 'Expected steps'),
    (AverageMapMetric, dict(pictures='no'), "True or False, received 'no'"),
    (AverageMapMetric, dict(dir=3), 'Expected dir to be None or text'),
    (AverageMapMetric, dict(protocol=dict(marign=1)), "Did you mean 'margin'"),
    (SensorShareMetric, dict(edges=(20, 0)), 'ascending edges'),
    (SensorShareMetric, dict(edges=(0, NAN)), 'received .0, nan.'),
    (SensorShareMetric, dict(edges='0, 20'), 'Expected edges of one or more numbers'),
    (SensorShareMetric, dict(tags=3), 'Expected tags to be None or text'),
    (OverlapAP, dict(iou_thr=['0.5']), 'Expected iou_thr of one or more numbers'),
    (OverlapAP, dict(iou_thr=[1.5]), 'Expected 0 <= iou_thr < 1'),
    (BEVSegMetric, dict(rings=[(20, 0)]), 'the outer end of a ring > 20'),
    (BEVSegMetric, dict(threshold=1), 'Expected 0 < threshold < 1'),
    (CountProtocol, dict(score_thr=NAN), 'Expected score_thr'),
]
PLAN = [
    (dict(methods={'A': 'FFAM'}), "methods.'A'. to be a dict, received 'FFAM'"),
    (dict(methods={'A': dict(type='FFAM', rank=2.5)}), 'Expected rank'),
    (dict(targets='all'), r"Expected targets as a list, received 'all': write \['all'\]"),
    (dict(metrics='vea'), r"write \['vea'\]"),
    (dict(metrics=['veaa']), "Did you mean 'vea'"),
    (dict(protocol=dict(steps=1)), 'steps >= 2'),
    (dict(select=dict(top_n=0)), 'top_n of at least 1'),
    (dict(frames=2.5), 'Expected frames, a whole number or None, received 2.5'),
    (dict(batch_size=True), 'received True'),
    (dict(frmes=2), "Did you mean 'frames'"),
]
SECTION = [
    (dict(METHOD=3), 'Expected METHOD to be text, received 3'),
    (dict(ARGS={'RANK': '1e1'}), "Expected rank >= 1, a whole number, received '1e1'"),
    (dict(ARGS={'TOL': '1e-4'}), 'YAML reads 1e-4 as text'),
    (dict(TARGETS=['scroe']), "Did you mean 'score'"),
    (dict(SELECT={'TOP_N': 0}), 'top_n of at least 1'),
    (dict(OUTPUTS={'PICTURES': ['oil']}), 'Unknown kinds of pictures'),
    (dict(OUTPUTS={'FOLDER': 'a'}), "Unknown key 'folder' of OUTPUTS"),
    (dict(RESUME='no'), 'resume to be True or False'),
    (dict(INTERVAL=0), 'Expected interval >= 1'),
    (dict(ON_ERROR='ignore'), "Unknown on_error 'ignore'"),
    (dict(HEAD='CentreHead'), "Did you mean 'CenterHead'"),
    (dict(THROUGH_PROPOSALS=1), 'THROUGH_PROPOSALS to be True or False'),
    (dict(METRICS=[3]), 'METRICS to be a list of names'),
    (dict(PROTOCOL={'STEPS': 1}), 'steps >= 2'),
]


def with_results(settings):
    return {('results' if name == 'outputs' else name): each for name, each in settings.items()}


DRAWN = [(dict(outputs=dict(pictures=pictures)), message) for pictures, message in DRAWING]
WRITTEN = [(dict(outputs=outputs), message) for outputs, message in OUTPUTS]
TABLE = [
    *((ExplainerHook, *row) for row in [*RUN, *WRITTEN, *DRAWN, *EXPLAINER]),
    *((explained_model, *row) for row in [*RUN, *WRITTEN, *EXPLAINER] if 'interval' not in row[0]),
    *((LMDHook, with_results(r[0]), r[1]) for r in [*RUN, *WRITTEN, *DRAWN, *SEEDS]),
    *((LMDHook, *row) for row in LMD),
    *(
        (decomposed_model, with_results(row[0]), row[1])
        for row in [*RUN, *WRITTEN, *SEEDS]
        if 'interval' not in row[0]
    ),
    *((decomposed_model, *row) for row in LMD),
    *((SensorShareHook, with_results(r[0]), r[1]) for r in [*RUN, *WRITTEN, *SEEDS, *SHARES]),
    *((loop, *row) for row in LOOP),
    *METRIC,
    *((plan, *row) for row in PLAN),
    *((section, *row) for row in SECTION),
]


@pytest.mark.parametrize(('sets', 'settings', 'message'), TABLE)
def test_a_bad_setting_is_refused_when_it_is_set(sets, settings, message):
    with pytest.raises((InputError, UnknownNameError), match=f'(?s){message}'):
        sets(**settings)


def test_a_recorder_checks_what_it_is_given(tmp_path):
    for settings in (dict(interval=0), dict(resume='no'), dict(save=1), dict(pictures=3)):
        with pytest.raises(InputError):
            Recorder({}, dir=tmp_path, **settings)
    assert Recorder({}, dir=tmp_path, pictures='sheet').pictures == {'kinds': ['sheet']}
    assert Recorder({}, dir=tmp_path, pictures=[]).pictures is None


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(select=dict(classes=['Cra'])), r"Unknown class \['Cra'\].*Did you mean 'Car'"),
        (dict(explainer=dict(type='FFAM', layer='stride44')), "Did you mean 'stride4'"),
        (dict(explainer=dict(type='PyramidFFAM', coarse_layer='conv9')), "Unknown layer 'conv9'"),
    ],
)
def test_what_a_detector_does_not_have_is_refused_before_the_first_frame(settings, message):
    with pytest.raises(UnknownNameError, match=message):
        FrameExplainer(tiny.build(tiny.second()), **settings)


def test_the_benchmark_of_a_yaml_is_checked(tmp_path):
    (tmp_path / 'a.yaml').write_text('BENCHMARK: [1]\n')
    with pytest.raises(InputError, match='BENCHMARK is .* expected a mapping'):
        benchmark_settings(tmp_path / 'a.yaml', {})
