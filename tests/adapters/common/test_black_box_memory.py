"""What a black box keeps from cloud to cloud is used for what it was made of, and no more."""

import pytest
import torch
from torch import nn

from explain3d.adapters.common.black_box import DetectorBlackBox
from explain3d.adapters.common.candidates import Candidates, identify
from explain3d.adapters.common.unchanged import Unchanged, weights_of
from explain3d.core.black_box import Region
from explain3d.core.errors import InputError
from explain3d.core.structures import Detections

REGIONS = [Region(0.0, 0.0, 2.0, 0), Region(5.0, 0.0, 2.0, 1)]


class PointCandidates(Candidates):
    """One candidate for each point and class, as voxels are of a fully sparse head."""

    def __init__(self, cloud, scale):
        self.cloud, self.scale = cloud, scale

    def of_label(self, label):
        return torch.arange(len(self.cloud))

    def places(self, index):
        return self.cloud[index, :2]

    def boxes(self, index):
        return torch.cat([self.cloud[index, :3], torch.ones(len(index), 4)], 1)

    def logits(self, index, label):
        return self.scale * self.cloud[index, 3] + label


class PointBox(DetectorBlackBox):
    """A detector whose candidates are the points themselves; its one weight scales the scores."""

    num_classes = 2

    def __init__(self):
        model = nn.Module()
        model.scale = nn.Parameter(torch.tensor(1.0))
        super().__init__(model, nn.Identity(), (0, 0), (1, 1), ('a', 'b'), batch_size=1)

    def raw(self, clouds):
        self.encoder(None)
        (points,) = clouds
        return [points[None]]

    def candidates_of(self, raw):
        return PointCandidates(raw[0][0], self.model.scale.detach())


def cloud(seed, n=40):
    points = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    points[n // 2 :, 0] += 5
    return points


def assert_is_a_fresh_pass(found, points, box):
    """Against all candidates of a box that has seen nothing: written out, one region at a time."""
    (every,) = fresh(box).candidates([points], 0.0)
    for region, part in zip(REGIONS, found, strict=True):
        home = every.boxes[:, :2] - torch.tensor([region.x, region.y])
        keep = (home.norm(dim=1) < region.radius) & (every.labels == region.label)
        assert keep.any()
        assert torch.equal(part.boxes, every.boxes[keep])
        torch.testing.assert_close(part.scores, every.scores[keep])


def fresh(box):
    other = PointBox()
    other.model.load_state_dict(box.model.state_dict())
    return other


@pytest.mark.parametrize('with_base', [False, True])
def test_candidates_that_differ_from_cloud_to_cloud_are_looked_up_in_each(with_base):
    box = PointBox()
    base = cloud(0)
    clouds = [base, base[5:], base[::2], cloud(1)]
    found = box.candidates_in(clouds, REGIONS, 0.0, base if with_base else None)
    for answer, points in zip(found, clouds, strict=True):
        assert_is_a_fresh_pass(answer, points, box)


def test_another_base_is_another_frame():
    box = PointBox()
    for seed in (0, 1, 0):
        base = cloud(seed)
        (found,) = box.candidates_in([base], REGIONS, 0.0, base)
        assert_is_a_fresh_pass(found, base, box)
    assert box.passes == 3


def test_a_base_that_was_written_to_is_another_frame():
    box, base = PointBox(), cloud(0)
    box.candidates_in([base], REGIONS, 0.0, base)
    base[:, 3] += 1
    (found,) = box.candidates_in([base], REGIONS, 0.0, base)
    assert_is_a_fresh_pass(found, base, box)
    assert box.passes == 2


@pytest.mark.parametrize('with_base', [False, True])
def test_other_weights_are_another_detector(with_base):
    box, base = PointBox(), cloud(0)
    box.candidates_in([base], REGIONS, 0.0, base)
    with torch.no_grad():
        box.model.scale.fill_(-2.0)
    (found,) = box.candidates_in([base], REGIONS, 0.0, base if with_base else None)
    assert_is_a_fresh_pass(found, base, box)


def test_the_same_frame_and_weights_are_one_pass():
    box, base = PointBox(), cloud(0)
    for _ in range(3):
        box.candidates_in([base], REGIONS, 0.0, base)
    assert box.passes == 1


def test_unchanged_is_the_same_tensor_with_the_same_content():
    a, b = torch.zeros(3), torch.zeros(3)
    known = Unchanged([a, b])
    assert known.holds_for([a, b])
    assert not known.holds_for([b, a])
    assert not known.holds_for([a])
    assert not known.holds_for([a, b.clone()])
    b.add_(0)
    assert not known.holds_for([a, b])
    layer = nn.BatchNorm1d(2)
    seen = Unchanged(weights_of(layer))
    assert seen.holds_for(weights_of(layer))
    layer.weight.data = torch.ones(2)
    assert not seen.holds_for(weights_of(layer))
    seen = Unchanged(weights_of(layer))
    layer(torch.randn(4, 2))  # In training mode: the running statistics are weights, too.
    assert not seen.holds_for(weights_of(layer))
    with torch.inference_mode():
        uncounted = torch.zeros(3)
    assert not Unchanged([uncounted]).holds_for([uncounted])


def test_a_candidate_that_is_not_finite_is_no_detection():
    points = cloud(0)
    points[3, 0], points[4, 3] = float('nan'), float('inf')
    candidates = PointCandidates(points, torch.tensor(1.0))
    wanted = torch.tensor([7, 30])
    labels = torch.tensor([0, 1])
    boxes, scores = candidates.boxes(wanted), candidates.scores(wanted, labels)
    found = Detections(boxes, scores, labels, ('a', 'b'))
    assert identify(candidates, found, 'f').tolist() == [7, 30]
    lost = Detections(boxes + 3, scores, labels, ('a', 'b'))
    with pytest.raises(InputError, match='none of the candidates'):
        identify(PointCandidates(points * float('nan'), torch.tensor(1.0)), lost, 'f')
