"""Greedy matching on scenes small enough to match by hand, and against a plain re-statement."""

import pytest
import torch

from explain3d.core.boxes import iou_3d
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.matching import match, resolve_thresholds
from explain3d.core.structures import Detections

CLASSES = ('Car', 'Pedestrian', 'Cyclist')


def car_at(x, y=0.0, yaw=0.0):
    return [x, y, 0.0, 4.0, 2.0, 1.5, yaw]


def frame(rows, scores=None, labels=None, class_names=CLASSES):
    """Detections or objects; shifted along x by d, two of these boxes have IoU (4-d)/(4+d)."""
    count = len(rows)
    return Detections(
        boxes=torch.tensor(rows, dtype=torch.float64).reshape(-1, 7),
        scores=torch.tensor(scores if scores is not None else [1.0] * count),
        labels=torch.tensor(labels if labels is not None else [0] * count, dtype=torch.long),
        class_names=class_names,
    )


def test_the_higher_score_takes_the_object():
    # The second detection overlaps more, the first one is more confident.
    matches = match(frame([car_at(0.4), car_at(0.1)], [0.9, 0.8]), frame([car_at(0)]))
    assert matches.indices.tolist() == [0, -1]
    assert matches.overlaps[0].item() == pytest.approx(3.6 / 4.4)
    assert matches.overlaps[1].item() == 0
    assert matches.true_positives.tolist() == [True, False]
    assert matches.false_positives.tolist() == [False, True]


def test_the_order_of_the_list_does_not_matter():
    matches = match(frame([car_at(0.1), car_at(0.4)], [0.8, 0.9]), frame([car_at(0)]))
    assert matches.indices.tolist() == [-1, 0]


def test_equal_scores_go_by_position():
    matches = match(frame([car_at(0.4), car_at(0.1)], [0.8, 0.8]), frame([car_at(0)]))
    assert matches.indices.tolist() == [0, -1]


def test_a_detection_takes_the_object_that_it_overlaps_most():
    objects = frame([car_at(0), car_at(0.6)])
    matches = match(frame([car_at(0.5)], [0.9]), objects)
    assert matches.indices.tolist() == [1]
    assert matches.found.tolist() == [False, True]


def test_the_second_detection_takes_what_is_left():
    objects = frame([car_at(0), car_at(0.6)])
    matches = match(frame([car_at(0.5), car_at(0.5)], [0.9, 0.8]), objects)
    assert matches.indices.tolist() == [1, 0]
    assert matches.found.tolist() == [True, True]


def test_the_threshold_must_be_exceeded():
    detections, objects = frame([car_at(0), car_at(20)], [0.9, 0.8]), frame([car_at(0)])
    assert match(detections, objects, thresholds=0.999).indices.tolist() == [0, -1]
    half_as_long = frame([[0, 0, 0, 2, 2, 1.5, 0]])  # Contained: IoU exactly 0.5.
    assert match(detections, half_as_long, thresholds=0.5).indices.tolist() == [-1, -1]
    assert match(detections, half_as_long, thresholds=0.499).indices.tolist() == [0, -1]


def test_zero_threshold_wants_some_overlap():
    detections = frame([car_at(3.9), car_at(4.0)], [0.9, 0.8])
    assert match(detections, frame([car_at(0)]), thresholds=0.0).indices.tolist() == [0, -1]
    assert match(detections[1:], frame([car_at(0)]), thresholds=0.0).indices.tolist() == [-1]


def test_default_thresholds_by_class():
    shift = 1.0  # IoU 3 / 5: enough for a pedestrian and a cyclist, not for a car.
    detections = frame([car_at(shift)] * 3, [0.9] * 3, labels=[0, 1, 2])
    objects = frame([car_at(0)] * 3, labels=[0, 1, 2])
    assert match(detections, objects).indices.tolist() == [-1, 1, 2]


def test_classes_match_by_name_not_by_number():
    detections = frame([car_at(0), car_at(0)], [0.9, 0.8], labels=[0, 1])
    objects = frame([car_at(0), car_at(0)], labels=[1, 0], class_names=('pedestrian', 'car', 'Van'))
    assert match(detections, objects).indices.tolist() == [0, 1]


def test_other_classes_are_not_matched():
    detections = frame([car_at(0)], [0.9], labels=[0])
    assert match(detections, frame([car_at(0)], labels=[1])).indices.tolist() == [-1]
    assert match(detections, frame([car_at(0)], labels=[-1])).indices.tolist() == [-1]


def test_height_counts_in_3d_alone():
    higher = [0.0, 0.0, 1.0, 4.0, 2.0, 1.5, 0.0]
    detections, objects = frame([higher], [0.9]), frame([car_at(0)])
    assert match(detections, objects).indices.tolist() == [-1]
    assert match(detections, objects, iou='bev').indices.tolist() == [0]
    assert match(detections, objects, iou='bev').overlaps.tolist() == [1]


@pytest.mark.parametrize(('detected', 'annotated'), [(0, 0), (0, 2), (2, 0)])
def test_empty_frames(detected, annotated):
    matches = match(frame([car_at(0)] * detected), frame([car_at(0)] * annotated))
    assert matches.indices.tolist() == [-1] * detected
    assert matches.overlaps.tolist() == [0] * detected
    assert matches.found.tolist() == [False] * annotated


def test_against_a_plain_restatement():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        detected, annotated = (torch.rand(n, 7, generator=generator) for n in (30, 20))
        scale = torch.tensor([12.0, 6.0, 0.5, 0, 0, 0, 0.5])
        base = torch.tensor([0, 0, 0, 4.0, 2.0, 1.5, 0])
        scores = (torch.rand(30, generator=generator) * 10).round() / 10  # With ties.
        labels = torch.randint(0, 3, (30,), generator=generator)
        classes = torch.randint(0, 3, (20,), generator=generator)
        detections = Detections(detected * scale + base, scores, labels, CLASSES)
        objects = Detections(annotated * scale + base, torch.ones(20), classes, CLASSES)
        matches = match(detections, objects, thresholds=0.2)

        overlaps = iou_3d(detections.boxes, objects.boxes).tolist()
        expected, taken = [-1] * 30, set()
        for i in sorted(range(30), key=lambda i: (-scores[i].item(), i)):
            candidates = [
                (-overlaps[i][j], j)
                for j in range(20)
                if j not in taken and labels[i] == classes[j] and overlaps[i][j] > 0.2
            ]
            if candidates:
                expected[i] = min(candidates)[1]
                taken.add(expected[i])
        assert matches.indices.tolist() == expected
        assert {j for j, found in enumerate(matches.found.tolist()) if found} == taken
        assert taken


class TestErrors:
    detections = frame([car_at(0)], [0.9], class_names=('truck',))

    def test_class_without_threshold(self):
        with pytest.raises(UnknownNameError, match=r"none for \['truck'\]: give one number"):
            match(self.detections, self.detections)

    def test_the_message_names_the_key_and_the_class(self):
        with pytest.raises(UnknownNameError, match=r"iou_thr=\{'truck': 0.5, ...\}.*IOU_THR"):
            resolve_thresholds(['car', 'truck'])
        assert resolve_thresholds(['Vehicle', 'Car', 'Cyclist']) == [0.7, 0.7, 0.5]

    def test_names_of_thresholds_ignore_case(self):
        assert match(self.detections, self.detections, {'Truck': 0.5}).indices.tolist() == [0]

    def test_class_that_is_annotated_but_never_detected_needs_no_threshold(self):
        objects = frame([car_at(0)], class_names=('tram',))
        assert match(frame([car_at(0)], [0.9]), objects).indices.tolist() == [-1]

    @pytest.mark.parametrize('threshold', [1.0, -0.1, 70])
    def test_threshold_out_of_range(self, threshold):
        with pytest.raises(InputError, match='at least 0 and below 1'):
            match(self.detections, self.detections, threshold)

    def test_unknown_overlap(self):
        with pytest.raises(UnknownNameError, match="'2d'.*'3d', 'bev'"):
            match(self.detections, self.detections, 0.5, iou='2d')
