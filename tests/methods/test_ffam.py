"""FFAM on frames that can be solved by hand, and against its parts put together slowly."""

import math
from dataclasses import replace

import pytest
import torch

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.nmf import factorize
from explain3d.core.normalize import min_max
from explain3d.core.structures import Detections, LayerFeatures, Trace, VoxelGeometry
from explain3d.core.targets import parse_targets
from explain3d.methods import FFAM, ODAM, ChannelSum, GradCAM
from tests.core.test_upsampling import brute_force, released
from tests.helpers.toy_detector import ToyDetector

UNIT = VoxelGeometry((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


def frame(features, reads, points_x, score=None):
    """A row of voxels along x, and detections that read them linearly.

    Args:
        features: (M, C) features of the voxels at x = 0, 1, ...
        reads: (K, M, C) gradient of x of each detection.
        points_x: x of each point, in voxels.
        score: As ``reads``, for the score; by default the same.
    """
    values, reads = torch.tensor(features), torch.tensor(reads)
    score = reads if score is None else torch.tensor(score)
    M, K = len(values), len(reads)
    coords = torch.zeros(M, 3, dtype=torch.long)
    coords[:, 2] = torch.arange(M)
    layer = LayerFeatures(values, coords, (2, 2, M), UNIT, 'row')
    leaf = values.clone().requires_grad_()
    attributes = {
        'x': 100 + torch.einsum('kmc,mc->k', reads, leaf),
        'score': 1 + torch.einsum('kmc,mc->k', score, leaf),
    }
    points = torch.zeros(len(points_x), 4) + 0.5
    points[:, 0] = torch.tensor(points_x)
    detections = Detections(torch.zeros(K, 7), torch.ones(K), torch.zeros(K, dtype=torch.long))
    return Trace(points, layer, detections, attributes, leaf, lambda t: t, 'row')


#: Two concepts with a channel of their own: (3, 4) / 5 in channels 0 and 1, and channel 2.
FEATURES = [[6.0, 8.0, 0.0], [0.0, 0.0, 5.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]
#: Gradients: omega = 1, 4, 2, 0 and 0, 0, 0, 2.
READS = [
    [[1.0, 0.0, 0.0], [-2.0, 1.0, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]],
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -1.0]],
]


def test_by_hand():
    """H = 10, 5, 5, 0 (unit concepts), so Phi(V) = 1, .5, .5, 0; Phi(omega) = .25, 1, .5, 0."""
    trace = frame(FEATURES, READS, [0.2, 1.5, 2.9, 3.5])
    explainer = FFAM(rank=2, radius=0, k=1, max_iter=500, tol=1e-7)
    maps = explainer.explain(trace, parse_targets(['x']))
    expected = torch.tensor([[0.25, 0.5, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(maps.saliency['x'], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        maps.global_map, torch.tensor([1.0, 0.5, 0.5, 0.0]), atol=1e-5, rtol=0
    )
    concepts = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 0.5, 0.0, 0.0]])
    order = maps.concepts[:, 0].argsort(descending=True)
    torch.testing.assert_close(maps.concepts[order], concepts, atol=1e-5, rtol=0)
    assert maps.info['nmf_rank'] == 2
    assert maps.info['nmf_residual'] < 1e-5


def test_by_hand_with_neighbours():
    """M = .25, .5, .25, 0 at x = 0 ... 3, as above."""
    trace = frame(FEATURES, READS, [0.2, 3.5, -0.5, -2.5])
    maps = FFAM(rank=2, max_iter=500, tol=1e-7).explain(trace, parse_targets(['x']))
    e1, e4 = math.exp(-0.5), math.exp(-2.0)
    expected = torch.tensor(
        [
            (0.25 + 0.5 * e1 + 0.25 * e4) / (1 + e1 + e4),
            (0 + 0.25 * e1 + 0.5 * e4) / (1 + e1 + e4),
            (0.25 * e1 + 0.5 * e4) / (e1 + e4),  # Outside the grid, with two voxels in reach.
            0.0,
        ]
    )
    torch.testing.assert_close(maps.saliency['x'][0], expected, atol=1e-5, rtol=0)


def test_targets_by_hand():
    """The score reads voxel 2 as x does but for the sign, so it vanishes there from the sum."""
    score = [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 0.0]]]
    trace = frame(FEATURES, READS[:1], [0.5, 1.5, 2.5, 3.5], score)
    trace = replace(trace, attributes={**trace.attributes, 'score': trace.attributes['score'] + 50})
    targets = parse_targets(
        [
            {'name': 'sum', 'attributes': ['x', 'score']},
            {'name': 'abs', 'attributes': ['x', 'score'], 'combine': 'abs'},
        ]
    )
    maps = FFAM(rank=2, radius=0, max_iter=500, tol=1e-7).explain(trace, targets)
    # omega = 1, 4, 0, 0 and 1, 4, 4, 0; times Phi(V) = 1, .5, .5, 0.
    for name, expected in {'sum': [0.25, 0.5, 0, 0], 'abs': [0.25, 0.5, 0.5, 0]}.items():
        torch.testing.assert_close(
            maps.saliency[name][0], torch.tensor(expected), atol=1e-5, rtol=0
        )


def test_rivals_by_hand():
    """F G summed: 6, 5, 8, 0. Mean G: -1/4, 3/4, 1/4, so F times it is 4.5, 1.25, 2.25, 0."""
    trace = frame(FEATURES, READS[:1], [0.5, 1.5, 2.5, 3.5])
    for explainer, expected in [
        (ODAM(radius=0), [6 / 8, 5 / 8, 1.0, 0.0]),
        (GradCAM(radius=0), [1.0, 1.25 / 4.5, 2.25 / 4.5, 0.0]),
        # Channel sums 14, 5, 7, 0 times Phi(omega) = .25, 1, .5, 0.
        (ChannelSum(radius=0), [0.25, 5 / 14, 0.25, 0.0]),
    ]:
        maps = explainer.explain(trace, parse_targets('x'))
        torch.testing.assert_close(maps.saliency['x'][0], torch.tensor(expected))


def test_negative_evidence_is_dropped_by_odam_and_gradcam():
    trace = frame(FEATURES, [[[-c for c in row] for row in READS[0]]], [0.5, 1.5, 2.5, 3.5])
    for explainer in (ODAM(radius=0), GradCAM(radius=0)):
        assert not explainer.explain(trace, parse_targets('x')).saliency['x'].any()


@pytest.fixture
def toy():
    return ToyDetector(channels=8)


def slowly(toy, trace, anchors, factors, limit, upsample):
    """Eq. 4 to 10 from given factors and the toy's written-down gradients, in float64."""
    weights = factors.H.double().clamp(max=limit)
    V = min_max(weights.sum(dim=1))
    gradient = sum(
        trace.attributes[n].detach().sign().double()[:, None, None]
        * toy.gradient(trace, anchors, n).double()
        for n in ('x', 'y', 'z', 'l', 'w', 'h', 'yaw', 'score')
    )
    maps = min_max(gradient.abs().sum(dim=-1)) * V
    points = trace.points[:, :3].double()
    return torch.stack([upsample(points, trace.features, m.tolist(), 2, 16) for m in maps])


def test_a_frame_put_together_slowly(toy):
    anchors = toy.anchors(3)
    trace = toy.trace(toy.points(70), anchors)
    factors = factorize(trace.features.values, 5).normalized()
    expected = slowly(toy, trace, anchors, factors, math.inf, brute_force)
    maps = FFAM(rank=5).explain(trace, parse_targets('all'))
    torch.testing.assert_close(maps.saliency['all'].double(), expected, atol=1e-5, rtol=1e-4)


def test_the_released_codes_choices_put_together_slowly(toy):
    """Some weights are above the limit of 50, and some points outside the grid."""
    anchors = toy.anchors(3)
    trace = toy.trace(toy.points(70), anchors)
    features = trace.features.values * 1e4 + 3
    features[4] = 1e7
    trace = replace(trace, features=replace(trace.features, values=features))
    shifted = features - features.amin(dim=0)
    factors = factorize(shifted, 64, loss='kl', init='random', max_iter=200, tol=0, seed=9)
    assert (factors.iterations, factors.H.max() > 50) == (200, True)
    expected = slowly(toy, trace, anchors, factors, 50.0, released)
    cells = trace.features.geometry.naive().cells(trace.points)
    inside = ((cells >= 0) & (cells < torch.tensor(trace.features.spatial_shape))).all(dim=1)
    assert 0 < inside.sum() < 70
    expected[:, inside] = min_max(expected[:, inside])
    expected[:, ~inside] = 0

    maps = FFAM(reference=True, seed=9).explain(trace, parse_targets('all'))
    torch.testing.assert_close(maps.saliency['all'].double(), expected, atol=1e-5, rtol=1e-4)
    assert (maps.info['nmf_loss'], maps.info['nmf_iterations']) == ('kl', 200)


REFERENCE = {
    'rank': 64,
    'loss': 'kl',
    'init': 'random',
    'tol': 0.0,
    'negative': 'shift',
    'unit_concepts': False,
    'max_weight': 50.0,
    'upsampling': 'reference',
    'renormalize': True,
}


def test_reference_is_a_set_of_defaults():
    settings = FFAM(reference=True).settings()
    assert {name: settings[name] for name in REFERENCE} == REFERENCE


@pytest.mark.parametrize('name', REFERENCE)
def test_each_choice_of_the_reference_can_be_taken_alone_or_left(name):
    plain, reference = FFAM().settings(), FFAM(reference=True).settings()
    assert plain[name] != reference[name]
    taken = FFAM(**{name: reference[name]}).settings()
    left = FFAM(reference=True, **{name: plain[name]}).settings()
    assert taken == {**plain, name: reference[name]}
    assert left == {**reference, name: plain[name]}


def test_v_of_the_released_code_is_close_to_the_channel_sum(toy):
    """The reason for the baseline: concept vectors without a norm carry no information here."""
    trace = toy.trace(toy.points(400), toy.anchors(0))
    V = FFAM(reference=True).explain(trace, parse_targets('all')).global_map
    channel_sum = ChannelSum(upsampling='reference').explain(trace, parse_targets('all')).global_map
    assert torch.corrcoef(torch.stack([V, channel_sum]))[0, 1] > 0.97


def test_renormalised_maps_span_zero_to_one(toy):
    trace = toy.trace(toy.points(70), toy.anchors(3))
    maps = FFAM(rank=5, renormalize=True).explain(trace, parse_targets('all')).saliency['all']
    assert torch.equal(maps.amin(dim=1), torch.zeros(3))
    assert torch.equal(maps.amax(dim=1), torch.ones(3))


def test_points_outside_the_grid_have_no_part_in_the_released_normalisation():
    """Else their zeros would be the minimum."""
    trace = frame(FEATURES, READS[:1], [0.5, 1.5, 2.5, -1.5])
    options = {'rank': 2, 'upsampling': 'reference', 'max_iter': 500, 'tol': 1e-7}
    targets = parse_targets('x')
    raw = FFAM(**options).explain(trace, targets).saliency['x'][0]
    assert raw[:3].min() > 0
    assert raw[3] == 0
    scaled = FFAM(**options, renormalize=True).explain(trace, targets).saliency['x'][0]
    torch.testing.assert_close(scaled[:3], min_max(raw[:3]))
    assert scaled[3] == 0


def negative(toy):
    trace = toy.trace(toy.points(70), toy.anchors(3))
    values = trace.features.values - 0.3
    return replace(trace, features=replace(trace.features, values=values))


def test_negative_features_are_refused_with_a_remedy(toy):
    with pytest.raises(InputError, match=r"Frame '000007': .* negative='shift'.*negative='clip'"):
        FFAM(rank=5).explain(negative(toy), parse_targets('all'))


@pytest.mark.parametrize('policy', ['shift', 'clip'])
def test_negative_features_are_made_non_negative_on_request(toy, policy):
    trace = negative(toy)
    values = trace.features.values
    mended = values - values.amin(dim=0) if policy == 'shift' else values.clamp(min=0)
    same = replace(trace, features=replace(trace.features, values=mended))
    out = FFAM(rank=5, negative=policy).explain(trace, parse_targets('all'))
    assert torch.equal(
        out.saliency['all'], FFAM(rank=5).explain(same, parse_targets('all')).saliency['all']
    )


def test_more_concepts_than_channels_take_a_random_start(toy):
    trace = toy.trace(toy.points(70), toy.anchors(3))
    with pytest.raises(InputError, match=r"'stride4' has channels \(8\), received rank=9"):
        FFAM(rank=9).explain(trace, parse_targets('all'))
    maps = FFAM(rank=9, init='random').explain(trace, parse_targets('all'))
    assert maps.concepts.shape == (9, 70)


def test_a_frame_of_few_voxels_says_how_many_concepts_it_has(toy):
    trace = toy.trace(toy.points(5), toy.anchors(3))
    voxels = len(trace.features.coords)
    assert voxels < 8
    maps = FFAM(rank=8).explain(trace, parse_targets('all'))
    assert maps.info['nmf_rank'] == voxels
    assert maps.concepts.shape == (voxels, 5)


def test_concepts_are_left_out_on_request(toy):
    trace = toy.trace(toy.points(70), toy.anchors(3))
    assert FFAM(rank=5, concepts=False).explain(trace, parse_targets('all')).concepts is None


def test_concepts_share_one_scale(toy):
    trace = toy.trace(toy.points(70), toy.anchors(3))
    explainer = FFAM(rank=5, radius=0)
    concepts = explainer.explain(trace, parse_targets('all')).concepts
    factors = explainer.factorize(trace.features.values)
    peaks = factors.H.amax(dim=0) / factors.H.amax()
    torch.testing.assert_close(concepts.amax(dim=1), peaks)


def test_a_sequence_keeps_the_dictionary_of_its_first_frame(toy):
    frames = [toy.trace(toy.points(70, seed), toy.anchors(2)) for seed in range(3)]
    explainer = FFAM(rank=5, warm_start=True)
    first = explainer.explain(frames[0], parse_targets('all'))
    W = explainer.dictionary
    second = explainer.explain(frames[1], parse_targets('all'))
    assert torch.equal(explainer.dictionary, W)
    cold = FFAM(rank=5)
    assert torch.equal(
        first.saliency['all'], cold.explain(frames[0], parse_targets('all')).saliency['all']
    )
    own = cold.explain(frames[1], parse_targets('all'))
    assert cold.dictionary is None
    assert second.info['nmf_residual'] > own.info['nmf_residual']

    handed = FFAM(rank=5)
    handed.dictionary = W
    assert torch.equal(
        handed.explain(frames[1], parse_targets('all')).saliency['all'], second.saliency['all']
    )
    explainer.dictionary = None
    again = explainer.explain(frames[1], parse_targets('all'))
    assert torch.equal(again.saliency['all'], own.saliency['all'])


def test_a_first_frame_with_too_few_voxels_is_no_dictionary(toy):
    explainer = FFAM(rank=8, warm_start=True)
    for n in (0, 4):
        explainer.explain(toy.trace(toy.points(n), toy.anchors(2)), parse_targets('all'))
        assert explainer.dictionary is None
    explainer.explain(toy.trace(toy.points(70), toy.anchors(2)), parse_targets('all'))
    assert explainer.dictionary.shape == (8, 8)


@pytest.mark.parametrize('option', [{'loss': 'l1'}, {'negative': 'no'}, {'upsampling': 'cube'}])
def test_unknown_options_are_named(toy, option):
    trace = toy.trace(toy.points(70), toy.anchors(2))
    with pytest.raises(UnknownNameError, match='expected one of'):
        FFAM(rank=5, **option).explain(trace, parse_targets('all'))
