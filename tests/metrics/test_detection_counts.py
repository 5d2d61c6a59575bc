"""Hits, misses and false alarms of frames that can be counted by hand."""

import math

import torch

from explain3d.core.structures import Detections
from explain3d.metrics.detection_counts import DetectionCounts, add_counts, count_detections

CLASSES = ('Pedestrian', 'Car')


def frame(xs, labels, scores=None):
    boxes = torch.tensor([[x, 0, 0, 4, 2, 1.5, 0] for x in xs], dtype=torch.float64).reshape(-1, 7)
    scores = torch.ones(len(xs)) if scores is None else torch.tensor(scores)
    return Detections(boxes, scores, torch.tensor(labels, dtype=torch.long), CLASSES)


def test_one_of_each_kind():
    objects = frame([0, 10, 20, 30], [1, 1, 1, 0])
    #         hit  double  low score  nothing there  wrong class
    detections = frame([0, 0.1, 10, 50, 20], [1, 1, 1, 1, 0], [0.9, 0.8, 0.29, 0.5, 0.6])
    assert count_detections(detections, objects) == {
        'Pedestrian': DetectionCounts(tp=0, fp=1, fn=1),
        'Car': DetectionCounts(tp=1, fp=2, fn=2),
    }
    lower = count_detections(detections, objects, score_thr=0.29)
    assert lower['Car'] == DetectionCounts(tp=2, fp=2, fn=1)


def test_thresholds_and_overlap():
    objects = frame([0], [1])
    detections = frame([1], [1])  # IoU 3 / 5.
    assert count_detections(detections, objects)['Car'] == DetectionCounts(0, 1, 1)
    assert count_detections(detections, objects, thresholds=0.5)['Car'] == DetectionCounts(1, 0, 0)
    detections.boxes[:, 2] += 5
    assert count_detections(detections, objects, thresholds=0.5)['Car'] == DetectionCounts(0, 1, 1)
    in_plane = count_detections(detections, objects, thresholds=0.5, iou='bev')
    assert in_plane['Car'] == DetectionCounts(1, 0, 0)


def test_ignored_objects_are_neither_misses_nor_hits():
    objects = frame([0, 10, 20], [1, 1, 1])
    ignored = torch.tensor([False, True, True])
    # On the object; on an ignored one; a second one on the same ignored one.
    detections = frame([0, 10, 10.1], [1, 1, 1], [0.9, 0.8, 0.7])
    counts = count_detections(detections, objects, ignored=ignored)
    assert counts['Car'] == DetectionCounts(tp=1, fp=1, fn=0)


def test_an_object_that_counts_goes_before_an_ignored_one():
    objects = frame([0, 0.2], [1, 1])
    ignored = torch.tensor([False, True])
    counts = count_detections(frame([0.2], [1]), objects, ignored=ignored)
    assert counts['Car'] == DetectionCounts(tp=1, fp=0, fn=0)


def test_empty_frames():
    nothing, one = frame([], []), frame([0], [1])
    assert count_detections(nothing, nothing)['Car'] == DetectionCounts()
    assert count_detections(one, nothing)['Car'] == DetectionCounts(fp=1)
    assert count_detections(nothing, one)['Car'] == DetectionCounts(fn=1)


def test_frames_add_up():
    total = add_counts(
        [
            {'Car': DetectionCounts(1, 2, 3), 'Pedestrian': DetectionCounts()},
            {'Car': DetectionCounts(10, 20, 30)},
        ]
    )
    assert total == {'Car': DetectionCounts(11, 22, 33), 'Pedestrian': DetectionCounts()}
    assert add_counts([]) == {}


def test_recall_and_precision():
    counts = DetectionCounts(tp=6, fp=2, fn=4)
    assert counts.recall == 0.6
    assert counts.precision == 0.75


def test_undefined_where_nothing_is_counted():
    assert math.isnan(DetectionCounts(fp=3).recall)
    assert math.isnan(DetectionCounts(fn=3).precision)
    assert DetectionCounts(fp=3).precision == 0
    assert DetectionCounts(fn=3).recall == 0
