"""The shipped detectors' layers: curves of shared, partial passes are those of whole ones."""

from pathlib import Path

import pytest

pytest.importorskip('mmdet3d')

import tiny_detectors as tiny
import torch
from mmengine.config import Config

from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox
from explain3d.core.black_box import Region
from explain3d.metrics.curves import perturbation_curves
from explain3d.metrics.protocol import Protocol
from explain3d.metrics.removal import Schedule, local_regions, region_radii, removal_ranks
from explain3d.metrics.step_score import step_score

CONFIGS = Path(__file__).parents[3] / 'configs' / '_base_' / 'models'
PROTOCOL = Protocol(steps=3, score_thr=0.0)
REGION = Region(10.0, -5.0, 2.0, 0)
BOXES = torch.tensor(
    [
        [10.0, -5.0, -0.6, 0.8, 0.6, 1.7, 0.0],
        [10.9, -4.4, -0.6, 1.0, 0.6, 1.7, 0.4],  # Shares points with the first.
        [33.0, 15.0, -0.9, 1.8, 0.6, 1.7, 1.0],
    ]
)
LABELS = [0, 0, 1]


def cloud():
    """(N, 4) a ground plane, and things at the objects' places."""
    generator = torch.Generator().manual_seed(3)
    draw = torch.rand(700, 4, generator=generator)
    ground = draw[:400] * torch.tensor([40.0, 40.0, 0.1, 1.0]) + torch.tensor([1, -20, -1.8, 0])
    things = draw[400:] * torch.tensor([3.0, 3.0, 1.6, 1.0]) - torch.tensor([1.5, 1.5, 0.8, 0])
    centers = torch.zeros(300, 4)
    centers[:, :3] = BOXES[[0, 0, 2], :3].repeat(100, 1)
    return torch.cat([ground, things + centers])


def model_of(name):
    return tiny.build(Config.fromfile(CONFIGS / f'{name}_small.py').model)


@pytest.fixture(scope='module')
def model():
    return model_of('second')


def one_at_a_time(model, points, saliency):
    """A whole pass for each object and step, with the host's own voxels."""
    box = MMDet3DBlackBox(model, batch_size=1, windows=False, fast_voxels=False)
    inside = local_regions(points, BOXES, PROTOCOL.region_factor)
    ranks = removal_ranks(saliency, inside, PROTOCOL.seed)
    radii = region_radii(BOXES, PROTOCOL.region_factor).tolist()
    scores = torch.zeros(2, len(BOXES), PROTOCOL.steps, dtype=torch.float64)
    for k, item in enumerate(BOXES):
        plan = Schedule.of(ranks[k], inside[k], PROTOCOL.steps)
        region = Region(*item[:2].tolist(), radii[k], LABELS[k])

        def score(keep, region=region, item=item):
            (found,) = box.candidates_in([points[keep]], [region], PROTOCOL.score_thr)[0]
            return step_score(found, item)

        # All of the region and none of it are steps of both curves.
        scores[:, k] = torch.tensor([score(plan.deleted(s)) for s in range(PROTOCOL.steps)])
        scores[1, k] = scores[1, k].flip(0)
        for s in range(1, PROTOCOL.steps - 1):
            scores[1, k, s] = score(plan.inserted(s))
    return scores


@pytest.mark.parametrize('name', ['second', 'centerpoint'])
def test_curves_are_those_of_a_pass_for_each_object_and_step(name):
    model, points = model_of(name), cloud()
    saliency = torch.rand(len(BOXES), len(points), generator=torch.Generator().manual_seed(1))
    expected = one_at_a_time(model, points, saliency)
    box = MMDet3DBlackBox(model)
    curves = perturbation_curves(box, points, {'m': saliency}, BOXES, LABELS, PROTOCOL)['m']
    torch.testing.assert_close(curves.deletion, expected[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(curves.insertion, expected[1], atol=1e-6, rtol=1e-5)
    moves = (expected.amax(dim=2) - expected.amin(dim=2)).amax(dim=0)
    assert (moves > 1e-4).all()
    assert box._passes.remembers
    assert box.work < box.passes / 3


def perturbed(points):
    distance = (points[:, :2] - torch.tensor([REGION.x, REGION.y])).norm(dim=1)
    inside = distance < REGION.radius
    draw = torch.rand(len(points), generator=torch.Generator().manual_seed(0))
    return [points[~inside | (draw < part)] for part in (0.0, 0.6)], points[inside]


def assert_same(model, box, clouds, base):
    found = box.candidates_in(clouds, [REGION], 0.0, base)
    whole = MMDet3DBlackBox(model, batch_size=1, windows=False)
    for (answer,), (other,) in zip(
        found, whole.candidates_in(clouds, [REGION], 0.0), strict=True
    ):  # fmt: skip
        assert len(other) > 0
        torch.testing.assert_close(answer.boxes, other.boxes, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(answer.scores, other.scores, atol=1e-5, rtol=1e-4)


def test_points_that_the_frame_does_not_have(model):
    points = cloud()
    clouds, moved = perturbed(points)
    clouds[0] = torch.cat([clouds[0], moved + torch.tensor([0.05, -0.1, 0.2, 0.0])])
    assert_same(model, MMDet3DBlackBox(model), clouds, points)


def test_another_frame_is_remembered_in_its_turn(model):
    points = cloud()
    other = points * torch.tensor([1.0, -1.0, 1.0, 1.0])
    other[:, 1] -= 10.0
    box = MMDet3DBlackBox(model)
    for base in (points, other, points):
        assert_same(model, box, perturbed(base)[0][1:], base)


def test_points_that_are_nowhere(model):
    points = cloud()
    clouds, _ = perturbed(points)
    lost = torch.full((2, 4), float('nan'))
    lost[1] = 1e6
    assert_same(model, MMDet3DBlackBox(model), [torch.cat([lost, clouds[1]])], points)


def test_a_region_outside_of_the_grid_has_no_candidates(model):
    points = cloud()
    box = MMDet3DBlackBox(model)
    (answer,) = box.candidates_in([points], [Region(-30.0, 0.0, 2.0, 0)], 0.0, points)
    assert len(answer[0]) == 0


def test_residual_encoders_and_pillars_remember_nothing():
    points = torch.from_numpy(tiny.cloud(3))
    for config in (tiny.centerpoint_voxel, tiny.pointpillars):
        box = MMDet3DBlackBox(tiny.build(config()))
        box.candidates_in([points], [Region(2.0, -5.0, 0.9, 0)], 0.0, points)
        assert not box._passes.remembers
