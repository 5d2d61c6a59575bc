"""OccAM on a detector whose true answer is known, and its parts."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from explain3d.core.boxes import points_in_boxes
from explain3d.core.errors import InputError, NotApplicableError, ResultFileError
from explain3d.core.results_archive import write_archive
from explain3d.core.results_check import seal
from explain3d.core.structures import Detections
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS
from explain3d.methods.occam_sampling import VoxelSampling, fit_density
from explain3d.methods.occam_similarity import FACTORS, similarities
from tests.helpers.toy_black_box import ToyBlackBox
from tests.helpers.toy_detector import ToyDetector

P = 0.5


@pytest.fixture
def trace():
    """Two objects, each the sum of its points' weights, all points in voxels of their own."""
    boxes = torch.tensor([[5.0, 0, 0, 8, 8, 8, 0], [50, 0, 0, 8, 8, 8, 0]])
    generator = torch.Generator().manual_seed(0)
    near = torch.rand(12, 3, generator=generator) * 7 - 3.5
    points = torch.cat([near + boxes[0, :3], near + boxes[1, :3], near * 9 + 100])
    inside = points_in_boxes(points, boxes)
    weights = inside * torch.rand(inside.shape, generator=generator).double()
    toy = ToyDetector()
    empty = toy.trace(points, toy.anchors(2))
    labels = torch.zeros(2, dtype=torch.long)
    detections = Detections(boxes, torch.ones(2), labels, ('toy',))
    return replace(empty, detections=detections, black_box=ToyBlackBox(points, boxes, weights))


def build(**options):
    options = {'density': [P], 'voxel_size': 0.01, 'tolerance': None, 'score_thr': 0.0, **options}
    return EXPLAINERS.build(dict(type='OccAM', **options))


def explain(trace, targets='score', **options):
    return build(**options).explain(trace, parse_targets(targets))


def truth(trace):
    """E[score | i kept] = sum_j w_j P[j kept | i kept] = P + (1 - P) w_i, for weights of sum 1."""
    weights = trace.black_box.weights
    return P + (1 - P) * weights / weights.sum(dim=1, keepdim=True)


def test_the_true_answer_is_found(trace):
    samples = 4000
    found = explain(trace, samples=samples).saliency['score'].double()
    weights = trace.black_box.weights / trace.black_box.weights.sum(dim=1, keepdim=True)
    deviation = (weights.square().sum(dim=1, keepdim=True) * P * (1 - P)).sqrt()
    # Five standard errors of a mean over the samples with the point.
    assert ((found - truth(trace)).abs() < 5 * deviation / (samples * P) ** 0.5).all()
    outside = weights == 0
    assert found[~outside].mean() > found[outside].mean() + 0.02


def test_early_stopping_ends_each_detection_by_itself(trace):
    whole = explain(trace, samples=4000, tolerance=0.1, check_every=50)
    count = whole.info['samples_per_detection']
    assert max(count) == whole.info['samples'] < 4000
    for k in range(2):
        alone = replace(trace, detections=trace.detections[k : k + 1])
        some = explain(alone, samples=4000, tolerance=0.1, check_every=50)
        assert some.info['samples_per_detection'] == [count[k]]
        torch.testing.assert_close(some.saliency['score'][0], whole.saliency['score'][k])
    strict = explain(trace, samples=4000, tolerance=0.05, check_every=50)
    assert min(strict.info['samples_per_detection']) > max(count)


def test_sub_clouds_are_shared_by_all_detections(trace):
    explain(trace, samples=40)
    assert trace.black_box.passes == 40


def test_around_the_detections_those_that_are_done_are_not_looked_for(trace):
    options = dict(samples=400, tolerance=0.1, check_every=50)
    whole = explain(trace, **options)
    found = explain(trace, radius=30.0, **options)
    torch.testing.assert_close(found.saliency['score'], whole.saliency['score'])
    assert found.info == whole.info
    asked = [regions for _, regions in trace.black_box.asked]
    assert asked[0] == 2
    trace.black_box.asked.clear()
    near = explain(trace, radius=0.5, samples=40).saliency['score']
    # The toy's boxes move as points are taken away.
    assert (near < explain(trace, samples=40).saliency['score']).all()


class Interrupted(Exception):
    pass


def test_an_interrupted_frame_goes_on_where_it_was(trace, tmp_path):
    whole = explain(trace, samples=60)
    options = dict(samples=60, check_every=20, checkpoint=str(tmp_path))
    box, real = trace.black_box, trace.black_box.candidates

    def fail_later(clouds, score_thr):
        if box.passes >= 60 + 44:
            raise Interrupted
        return real(clouds, score_thr)

    box.candidates = fail_later
    with pytest.raises(Interrupted):
        explain(trace, **options)
    assert len(list(tmp_path.iterdir())) == 1
    box.candidates, before = real, box.passes
    found = explain(trace, **options)
    assert box.passes - before == 20  # Two thirds were on the disk.
    torch.testing.assert_close(found.saliency['score'], whole.saliency['score'])
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_begun_again(trace, tmp_path):
    explainer = build(samples=10, checkpoint=str(tmp_path))
    targets = parse_targets('score')
    path = explainer._path(trace, [('score',)])
    path.write_bytes(b'PK no archive')
    found = explainer.explain(trace, targets)
    torch.testing.assert_close(
        found.saliency['score'], explain(trace, samples=10).saliency['score']
    )
    path.mkdir()
    with pytest.raises(ResultFileError, match='is a folder: expected a state of OccAM'):
        explainer.explain(trace, targets)


STATES = {
    'not finite': ('moments', lambda m: np.where(m > 0, np.nan, m)),
    'goes down to -1': ('moments', lambda m: -np.ones_like(m)),
    'counts are not those of its samples': ('moments', lambda m: m + [[[[30]]], [[[0]]], [[[0]]]]),
    'counts are not those of its .*samples': ('moments', lambda m: m + 0.25),
    r"'moments' has the shape \(3, 2, 1, 35\)": ('moments', lambda m: m[..., :-1]),
    "'samples' goes up to 999": ('samples', lambda s: s + 999 - s.max()),
    "'samples' has the type float64": ('samples', lambda s: s.astype(float)),
    "'active' has the type int64": ('active', lambda a: a.astype(int)),
    "'active' has the shape": ('active', lambda a: a[:1]),
    "metadata have no 'drawn'": ('drawn', None),
    'after -3 sub-clouds': ('drawn', -3),
    "it is of 'another'": ('frame', 'another'),
}


@pytest.fixture
def state(trace, tmp_path):
    """What is on the disk after 20 of 30 sub-clouds, and how many passes that took."""
    box, real = trace.black_box, trace.black_box.candidates

    def fail_later(clouds, score_thr):
        if box.passes >= 24:
            raise Interrupted
        return real(clouds, score_thr)

    box.candidates = fail_later
    with pytest.raises(Interrupted):
        explain(trace, samples=30, check_every=20, checkpoint=str(tmp_path))
    box.candidates = real
    (path,) = tmp_path.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    return path, json.loads(arrays.pop('metadata').tobytes()), arrays


@pytest.mark.parametrize('text', STATES)
def test_a_state_that_does_not_fit_is_begun_again(trace, tmp_path, state, caplog, text):
    path, meta, arrays = state
    name, change = STATES[text]
    if name in arrays:
        arrays[name] = change(arrays[name])
    elif change is None:
        del meta[name]
    else:
        meta[name] = change
    with open(path, 'wb') as file:
        write_archive(file, seal(meta, arrays))
    found = explain(trace, samples=30, check_every=20, checkpoint=str(tmp_path))
    assert re.search(text, caplog.text)
    assert 'begun again' in caplog.text
    assert 'resumed' not in found.info
    assert torch.equal(found.saliency['score'], explain(trace, samples=30).saliency['score'])


def test_what_killed_runs_leave_is_removed(trace, tmp_path):
    left = tmp_path / '.explain3d-elsewhere-77-0123abcd.tmp'
    left.write_bytes(b'x')
    os.utime(left, (0, 0))
    explain(trace, samples=10, checkpoint=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_points_may_come_in_any_order(trace):
    order = torch.randperm(len(trace.points), generator=torch.Generator().manual_seed(1))
    found = explain(trace, samples=30).saliency['score']
    shuffled = explain(replace(trace, points=trace.points[order]), samples=30).saliency['score']
    torch.testing.assert_close(shuffled, found[:, order])


def test_without_a_black_box_or_with_nan_it_says_so(trace):
    with pytest.raises(NotApplicableError, match=r"Frame '000007': .*\"black_box\""):
        explain(replace(trace, black_box=None))
    trace.points[0, 0] = float('nan')
    with pytest.raises(InputError, match=r"Frame '000007': .*finite point coordinate"):
        explain(trace)


def one(box, score=0.5, label=0):
    return Detections(torch.tensor([box]), torch.tensor([score]), torch.tensor([label]), ('a', 'b'))


def test_factors_of_the_similarity_by_hand():
    subject = one([0.0, 0, 0, 4, 2, 2, 0], 0.9)
    single = [(name,) for name in FACTORS]
    found = one([0.3, 0, -0.4, 4, 2, 1, 0.25], 0.6)
    values = similarities(subject, [found], [*single, FACTORS])[0, 0]
    expected = [0.6, 0.5, 0.5, 0.75, 0.6 * 0.5 * 0.5 * 0.75]
    torch.testing.assert_close(values, torch.tensor(expected).double())
    nothing = [one([0.0, 9, 0, 4, 2, 2, 0]), one([0.0, 0, 0, 4, 2, 2, 0], label=1), found[:0]]
    assert not similarities(subject, nothing, [FACTORS]).any()


def test_the_most_similar_box_counts_and_angles_wrap():
    subject = one([0.0, 0, 0, 4, 2, 2, 3.1])
    two = Detections(
        torch.tensor([[0.0, 0, 0, 4, 2, 2, -3.1], [0.5, 0, 0, 4, 2, 2, 3.1]]),
        torch.tensor([0.4, 0.9]),
        torch.tensor([0, 0]),
    )
    found = similarities(subject, [two[:0], two], [('rotation', 'score'), ('translation',)])
    turn = 2 * np.pi - 6.2
    assert found.shape == (2, 1, 2)
    assert not found[0].any()
    assert found[1, 0, 0].item() == pytest.approx(max(0.4 * (1 - turn), 0.9), abs=1e-6)
    assert found[1, 0, 1].item() == 1


def test_whole_voxels_are_kept_with_the_probability_of_their_distance():
    sampling = VoxelSampling(voxel_size=0.5, density=(0.2, 0.01), bounds=(0.05, 0.6))
    points = torch.tensor([[1.0, 0, 0], [30, 40, 0], [6, 8, 0]]).repeat_interleave(2, dim=0)
    torch.testing.assert_close(
        sampling.probability(points[::2]), torch.tensor([0.21, 0.6, 0.3]).double()
    )
    points[1::2] += 1e-4  # In the same voxel but for one sample in thousands.
    masks = sampling.masks(points, range(3000))
    assert (masks[:, ::2] == masks[:, 1::2]).double().mean() > 0.99
    share = masks[:, ::2].double().mean(dim=0)
    for kept, p in zip(share.tolist(), (0.21, 0.6, 0.3), strict=True):
        assert abs(kept - p) < 5 * (p * (1 - p) / 3000) ** 0.5
    # Samples and voxels are independent of each other.
    table = np.corrcoef(masks[:, ::2].double().T.numpy())
    assert np.abs(table - np.eye(3)).max() < 5 / 3000**0.5
    assert torch.equal(sampling.masks(points, [7, 3])[1], masks[3])
    assert not torch.equal(VoxelSampling(seed=1).masks(points, range(9)), masks[:9])


def test_the_fitted_density_keeps_the_target():
    distance = np.repeat(np.arange(1.0, 60, 2), 50)
    counts = np.full(len(distance), 8.0)
    density = fit_density(distance, counts, target=2.0, degree=2, bounds=(0.05, 0.95))
    sampling = VoxelSampling(density=density)
    points = torch.tensor([[3.0, 0, 0], [55, 0, 0]])
    torch.testing.assert_close(sampling.probability(points), torch.full((2,), 0.25).double())
    with pytest.raises(InputError, match='more than 4 distances'):
        fit_density(distance[:60], counts[:60], 2.0, 4, (0.05, 0.95))


def test_options_out_of_range():
    with pytest.raises(InputError, match='samples >= 1'):
        build(samples=0)
    with pytest.raises(InputError, match='0 < low <= high'):
        build(bounds=[0.0, 0.5])
