"""Settings are refused when they are set: what was expected, what came, what to write."""

import math

import numpy as np
import pytest

from explain3d.core import checks
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.selection import Selection
from explain3d.core.targets import parse_targets
from explain3d.lmd import Rules, Seed
from explain3d.lmd.seeds import declared_seeds
from explain3d.lmd.tags import read_tags
from explain3d.methods import EXPLAINERS, FFAM, Explainer
from explain3d.metrics.average_protocol import AverageProtocol
from explain3d.metrics.protocol import Protocol
from explain3d.metrics.saliency import SaliencyEvaluator

NAN = math.nan


def build(name):
    return lambda **settings: EXPLAINERS.build(dict(type=name, **settings))


def targets(spec):
    return parse_targets(spec)


def seed(**settings):
    return Seed(**{'module': 'fuser', **settings})


SPLIT = dict(camera=4, radar=2)
#: What sets, what is set, and what the message says of what was expected and what came.
TABLE = [
    (Selection, dict(score_thr=NAN), 'Expected score_thr, a finite number, received nan'),
    (Selection, dict(score_thr='0.3'), "received '0.3' .str.: write the number without quotes"),
    (Selection, dict(score_thr=True), 'received True'),
    (Selection, dict(top_n=-1), 'top_n of at least 1, received -1: leave it out'),
    (Selection, dict(top_n=2.5), 'a whole number or None, received 2.5'),
    (Selection, dict(top_n=True), 'a whole number or None, received True'),
    (Selection, dict(classes=[3]), r"a list of names, received \[3\] \(list\): write \['Car'\]"),
    (Selection, dict(classes=3), "a list of names, received 3 .int.: write .'Car'."),
    (Selection, dict(matched=False), 'at least 0 and below 1, received False'),
    (Selection, dict(matched='tp', iou_thr='0.5'), 'below 1, received 0.5: 0.7 means'),
    (Selection, dict(matched='tp', iou_thr={0: 0.5}), 'at least 0 and below 1'),
    (Selection, dict(matched='tp', iou_thr=NAN), 'received nan'),
    (Selection, dict(seed=-1), 'Expected seed >= 0, a whole number or None, received -1'),
    (targets, dict(spec=None), 'Expected a target as a name.* received None'),
    (targets, dict(spec=[dict(attributes=3)]), 'a list of names, received 3'),
    (targets, dict(spec=[dict(attributes=['x'], name=3)]), 'to be None or text, received 3'),
    (targets, dict(spec=[[3]]), r'a list of names, received \[3\]'),
    (build('FFAM'), dict(rank=2.5), 'Expected rank >= 1, a whole number, received 2.5 .float.'),
    (build('FFAM'), dict(rank=0), 'received 0 .int.: write 1, for example'),
    (build('FFAM'), dict(rank='16'), "received '16' .str."),
    (build('FFAM'), dict(radius=100), 'Expected 0 <= radius <= 10, .* received 100'),
    (build('FFAM'), dict(k=0), 'Expected k >= 1'),
    (build('FFAM'), dict(layer=4), 'Expected layer to be text, received 4'),
    (build('FFAM'), dict(loss='l1'), "Unknown loss 'l1': expected one of"),
    (build('FFAM'), dict(solver='hals', loss='kl'), "Unknown solver for kl 'hals'"),
    (build('FFAM'), dict(init='nndvsd'), "Did you mean 'nndsvd'"),
    (build('FFAM'), dict(max_iter=0), 'Expected max_iter >= 1'),
    (build('FFAM'), dict(tol=NAN), 'Expected tol >= 0, a finite number, received nan'),
    (build('FFAM'), dict(tol=-1e-4), 'Expected tol >= 0'),
    (build('FFAM'), dict(negative='no'), "Unknown negative 'no'"),
    (build('FFAM'), dict(unit_concepts='yes'), "True or False, received 'yes'"),
    (build('FFAM'), dict(max_weight=0), 'Expected max_weight > 0'),
    (build('FFAM'), dict(max_weight=True), 'max_weight > 0, a finite number, received True'),
    (build('FFAM'), dict(renormalize=1), 'True or False, received 1'),
    (build('FFAM'), dict(warm_start=None), 'True or False, received None'),
    (build('FFAM'), dict(reference='yes'), "True or False, received 'yes'"),
    (build('FFAM'), dict(seed=0.5), 'Expected seed >= 0, a whole number, received 0.5'),
    (build('FFAM'), dict(rnak=8), "Explainer 'FFAM': .*'rnak'.*Did you mean 'rank'"),
    (build('ODAM'), dict(upsampling='cube'), "Unknown upsampling 'cube'"),
    (build('PyramidFFAM'), dict(rank=2.5), 'Expected rank'),
    (build('PyramidFFAM'), dict(coarse_layer=None), 'Expected coarse_layer to be text'),
    (build('PyramidFFAM'), dict(contrast=math.inf), 'a contrast > 0, .* received inf'),
    (build('PyramidFFAM'), dict(radius=11), 'radius <= 10'),
    (build('Contribution'), dict(contrast='2'), "a contrast > 0, .* received '2'"),
    (build('IntegratedGradients'), dict(steps=0), 'Expected steps >= 1'),
    (build('IntegratedGradients'), dict(steps=2.5), 'received 2.5'),
    (build('OccAM'), dict(samples=10.5), 'Expected samples >= 1, .* received 10.5'),
    (build('OccAM'), dict(voxel_size=NAN), 'Expected voxel_size > 0'),
    (build('OccAM'), dict(density=0.4), 'Expected density of one or more numbers'),
    (build('OccAM'), dict(density=[]), r'received \[\]'),
    (build('OccAM'), dict(bounds=[0.1, 0.2, 0.3]), 'Expected bounds of two numbers'),
    (build('OccAM'), dict(score_thr=NAN), 'Expected score_thr'),
    (build('OccAM'), dict(radius=-1), 'Expected radius > 0, a finite number or None'),
    (build('OccAM'), dict(tolerance=NAN), 'Expected tolerance > 0'),
    (build('OccAM'), dict(check_every=0), 'Expected check_every >= 1'),
    (build('OccAM'), dict(checkpoint=3), 'Expected checkpoint to be None or text'),
    (Protocol, dict(steps=2.5), 'Expected steps, a whole number, received 2.5'),
    (Protocol, dict(region_factor=NAN), 'received nan'),
    (Protocol, dict(score_thr='0.1'), "received '0.1'"),
    (Protocol, dict(vea_thresholds='0.1'), "of one or more numbers, .* received '0.1'"),
    (Protocol, dict(iou_thr='0.5'), 'below 1, received 0.5: 0.7 means'),
    (Protocol, dict(jitter=-1), 'Expected jitter >= 0'),
    (Protocol, dict(seed=1.5), 'Expected seed >= 0'),
    (Protocol.from_dict, dict(values={'step': 3}), "Unknown part.*Did you mean 'steps'"),
    (Protocol.from_dict, dict(values='steps'), "protocol to be a dict, received 'steps'"),
    (SaliencyEvaluator, dict(metrics='pg'), r"names, received 'pg' .str.: write \['pg'\]"),
    (SaliencyEvaluator, dict(metrics=['deletio']), "Did you mean 'deletion'"),
    (AverageProtocol, dict(cells=(8.5, 8, 8)), 'Expected cells as three numbers'),
    (AverageProtocol, dict(cells='car'), 'Expected cells as three numbers'),
    (AverageProtocol, dict(margin=NAN), 'Expected margin, a finite number, received nan'),
    (AverageProtocol, dict(draws=2.5), 'Expected draws, a whole number, received 2.5'),
    (AverageProtocol.from_dict, dict(values={'marign': 1}), "Did you mean 'margin'"),
    (seed, dict(split=dict(camera=0, radar=2)), r"split\['camera'\] of the seed at 'fuser' >= 1"),
    (seed, dict(split=dict(camera=-1, radar=2)), 'received -1'),
    (seed, dict(split=dict(camera=1.5)), 'a whole number, received 1.5'),
    (seed, dict(split=[4, 2]), r'split to be a dict, received \[4, 2\]'),
    (seed, dict(split=SPLIT, at='inside'), "Expected at='input' or 'output', received 'inside'"),
    (seed, dict(split=SPLIT, dim=1.0), 'Expected dim, a whole number, received 1.0'),
    (seed, dict(split=SPLIT, path=0), 'Expected path .* to be text, received 0'),
    (seed, dict(modality=3), 'modality to be None or text, received 3'),
    (seed, dict(channel=-1, intervals=dict(a=(None, 1))), 'Expected channel >= 0'),
    (seed, dict(channel=4, intervals=dict(a=(1, 0))), r'low < high, received \(1, 0\)'),
    (seed, dict(channel=4, intervals=dict(a=(NAN, 1))), 'a finite number or None, received nan'),
    (seed, dict(channel=4, intervals=dict(a=1)), 'to be .low, high., .* received 1'),
    (declared_seeds, dict(seeds=[dict(modul='fuser')]), "'modul' of a seed.*Did you mean 'module'"),
    (declared_seeds, dict(seeds=3), 'a list of seeds, received 3'),
    (Rules.from_config, dict(rules=dict(actvation='none')), "Did you mean 'activation'"),
]  # fmt: skip


@pytest.mark.parametrize(('sets', 'settings', 'message'), TABLE)
def test_a_bad_setting_is_refused_when_it_is_set(sets, settings, message):
    with pytest.raises((InputError, UnknownNameError), match=f'(?s){message}'):
        sets(**settings)


@pytest.mark.parametrize('explainer', [None, 3, [], Selection(), Selection])
def test_what_is_no_explainer_is_refused(explainer):
    with pytest.raises(InputError, match=r'Expected the explainer as a name.*received.*FFAM'):
        EXPLAINERS.build(explainer)


def test_an_explainer_may_be_a_name_a_class_or_an_instance():
    one = FFAM(rank=3)
    assert EXPLAINERS.build(one) is one
    for kind in (FFAM, 'FFAM', 'explain3d.FFAM', 'explain3d.methods.ffam.FFAM'):
        assert EXPLAINERS.build(dict(type=kind, rank=3)).settings() == one.settings()
    assert type(EXPLAINERS.build(FFAM)) is FFAM


def test_numbers_of_numpy_are_numbers():
    found = FFAM(rank=np.int64(3), tol=np.float32(0.5))
    assert type(found.rank) is int
    assert found.tol == 0.5
    assert type(found.tol) is float


@pytest.mark.parametrize('name', sorted(EXPLAINERS))
def test_every_explainer_builds_by_its_defaults_and_from_its_own_settings(name):
    one = EXPLAINERS.build(name)
    assert isinstance(one, Explainer)
    assert EXPLAINERS.build(one.settings()).settings() == one.settings()


def test_classes_are_compared_with_the_detector_s():
    names = ('Vehicle', 'Pedestrian')
    Selection(classes=['vehicle']).check_classes(names)
    Selection(matched='tp', classes=['Pedestrian']).check_classes(names)
    with pytest.raises(UnknownNameError, match=r"\['Vehicl'\].*Did you mean 'Vehicle'"):
        Selection(classes=['Vehicl']).check_classes(names)
    with pytest.raises(UnknownNameError, match="threshold for each class.*none for .'Van'"):
        Selection(matched='fp').check_classes((*names, 'Van'))


def test_tags_without_frames_are_refused(tmp_path):
    for frames in ('', ', "frames": [1]'):
        (tmp_path / 'tags.json').write_text(f'{{"format": "explain3d.tags"{frames}}}')
        with pytest.raises(InputError, match="Expected 'frames' in .*tags.json"):
            read_tags(tmp_path / 'tags.json')


def test_a_message_names_the_closest_word():
    assert checks.suggestion('scroe', ['score', 'yaw']) == " Did you mean 'score'?"
    assert checks.suggestion('zzz', ['score', 'yaw']) == ''
