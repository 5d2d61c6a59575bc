"""Selections on one small frame: which indices, in which order."""

import pytest
import torch

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.selection import Selection
from explain3d.core.structures import Detections

CLASSES = ('Pedestrian', 'Cyclist', 'Car')


@pytest.fixture
def detections():
    """Six boxes 10 m apart; 1 and 3 have equal scores."""
    boxes = torch.tensor([[10.0 * i, 0, 0, 4, 2, 1.5, 0] for i in range(6)])
    scores = torch.tensor([0.2, 0.7, 0.9, 0.7, 0.3, 0.5])
    return Detections(boxes, scores, torch.tensor([2, 2, 0, 2, 1, 0]), CLASSES)


@pytest.fixture
def ground_truth(detections):
    """Objects at the boxes 0, 1, 4 exactly, and one 1 m off box 3 (IoU 0.6)."""
    boxes = detections.boxes[[0, 1, 4, 3]].clone()
    boxes[3, 0] += 1
    return Detections(boxes, torch.ones(4), torch.tensor([2, 2, 1, 2]), CLASSES)


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({}, [2, 1, 3, 5, 4]),
        ({'score_thr': 0.0}, [2, 1, 3, 5, 4, 0]),
        ({'score_thr': 0.7}, [2, 1, 3]),
        ({'score_thr': 0.95}, []),
        ({'top_n': 2}, [2, 1]),
        ({'top_n': 100}, [2, 1, 3, 5, 4]),
        ({'classes': ['Car']}, [1, 3]),
        ({'classes': ('car', 'CYCLIST')}, [1, 3, 4]),
        ({'classes': []}, []),
        ({'classes': ['Car'], 'top_n': 1, 'score_thr': 0}, [1]),
    ],
)
def test_without_ground_truth(detections, settings, expected):
    indices = Selection(**settings).select(detections)
    assert indices.dtype == torch.int64
    assert indices.tolist() == expected


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({'matched': 'tp'}, [1, 4]),
        ({'matched': 'fp'}, [2, 3, 5]),
        ({'matched': 'tp', 'score_thr': 0}, [1, 4, 0]),
        ({'matched': 0.5}, [1, 3, 4]),
        ({'matched': {'car': 0.5, 'pedestrian': 0.5, 'cyclist': 0.5}}, [1, 3, 4]),
        ({'matched': 'fp', 'iou_thr': 0.5}, [2, 5]),
        ({'matched': 'tp', 'iou_thr': 0.5, 'iou': 'bev'}, [1, 3, 4]),
        # The best two that match, not those of the best two that match.
        ({'matched': 'tp', 'top_n': 2}, [1, 4]),
        ({'matched': 'fp', 'classes': ['car']}, [3]),
    ],
)
def test_with_ground_truth(detections, ground_truth, settings, expected):
    assert Selection(**settings).select(detections, ground_truth).tolist() == expected


def test_height_is_ignored_in_the_birds_eye_view(detections, ground_truth):
    ground_truth.boxes[:, 2] += 1
    assert Selection(matched='tp').select(detections, ground_truth).tolist() == []
    assert Selection(matched='tp', iou='bev').select(detections, ground_truth).tolist() == [1, 4]


def test_no_detections(detections, ground_truth):
    for matched in (None, 'tp', 'fp'):
        nothing = Selection(matched=matched).select(detections[:0], ground_truth)
        assert nothing.tolist() == []


def test_no_objects_makes_every_detection_a_false_positive(detections, ground_truth):
    assert Selection(matched='tp').select(detections, ground_truth[:0]).tolist() == []
    assert Selection(matched='fp').select(detections, ground_truth[:0]).tolist() == [2, 1, 3, 5, 4]


class TestRandomSample:
    def test_is_repeatable_and_ordered_by_score(self, detections):
        drawn = [Selection(top_n=3, seed=seed).select(detections).tolist() for seed in range(30)]
        again = [Selection(top_n=3, seed=seed).select(detections).tolist() for seed in range(30)]
        assert drawn == again
        order = [2, 1, 3, 5, 4]
        for indices in drawn:
            assert len(set(indices)) == 3
            assert indices == sorted(indices, key=order.index)
        assert {i for indices in drawn for i in indices} == set(order)

    def test_leaves_the_global_generator_alone(self, detections):
        state = torch.get_rng_state()
        Selection(top_n=3, seed=0).select(detections)
        assert torch.equal(torch.get_rng_state(), state)


class TestErrors:
    def test_unknown_class(self, detections):
        with pytest.raises(UnknownNameError, match=r"\['Tram'\].*'Pedestrian', 'Cyclist', 'Car'"):
            Selection(classes=['Car', 'Tram']).select(detections)

    def test_matched_without_ground_truth(self, detections):
        with pytest.raises(InputError, match="matched='tp'.*or matched=None"):
            Selection(matched='tp').select(detections)

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            ({'top_n': 0}, 'at least 1, received 0'),
            ({'classes': 'Car'}, r"write \['Car'\]"),
            ({'matched': 'true'}, "'tp', 'fp' or thresholds"),
            ({'matched': 70}, 'at least 0 and below 1, received 70'),
            ({'matched': {'car': 1.5}}, 'at least 0 and below 1'),
            ({'iou_thr': 0.5}, 'beside iou_thr, received matched=None'),
            ({'iou_thr': 0.5, 'matched': 0.5}, 'or leave iou_thr out'),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(InputError, match=message):
            Selection(**settings)

    def test_unknown_overlap(self):
        with pytest.raises(UnknownNameError, match="'2d'.*'3d', 'bev'"):
            Selection(iou='2d')
