"""Average precision by 3D overlap, against cases that can be counted by hand."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d')

from mmdet3d.structures import LiDARInstance3DBoxes

from explain3d.core.errors import InputError
from explain3d.registry import METRICS

CLASSES = ('Car', 'Pedestrian')


def boxes(*places, columns=7):
    tensor = torch.zeros(len(places), columns)
    tensor[:, :3] = torch.tensor(places, dtype=torch.float).reshape(-1, 3)
    tensor[:, 3:6] = torch.tensor([4.0, 2.0, 1.5])
    tensor[:, 7:] = 3.0  # a velocity, where there is one
    return LiDARInstance3DBoxes(tensor, box_dim=columns)


def sample(truth, found, scores, truth_labels=None, labels=None):
    return dict(
        eval_ann_info=dict(
            gt_bboxes_3d=truth,
            gt_labels_3d=np.array(truth_labels or [0] * len(truth), np.int64),
        ),
        pred_instances_3d=dict(
            bboxes_3d=found,
            labels_3d=torch.tensor(labels or [0] * len(found)),
            scores_3d=torch.tensor(scores),
        ),
    )


def evaluate(*samples, **settings):
    metric = METRICS.build(dict(type='explain3d.OverlapAP', iou_thr=[0.5], **settings))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, list(samples))
    return metric.evaluate(size=len(samples))


def test_boxes_with_a_velocity_are_compared_with_boxes_without():
    truth = boxes((5, 0, 0), (15, 0, 0))
    # Half a metre off in 4: 3.5 / 4.5 = 0.78. Three off: 1 / 7.
    near, far = boxes((5.5, 0, 0), columns=9), boxes((8, 0, 0), columns=9)
    assert evaluate(sample(truth, near, [0.9]))['Car_rec_0.50'] == pytest.approx(0.5)
    assert evaluate(sample(truth, far, [0.9]))['Car_rec_0.50'] == 0


def test_a_false_alarm_above_a_hit_halves_the_precision():
    truth = boxes((5, 0, 0))
    both = boxes((5, 0, 0), (30, 0, 0))
    assert evaluate(sample(truth, both, [0.9, 0.5]))['mAP_0.50'] == pytest.approx(1)
    assert evaluate(sample(truth, both, [0.5, 0.9]))['mAP_0.50'] == pytest.approx(0.5)


def test_truth_beyond_the_range_does_not_count():
    truth, found = boxes((5, 0, 0), (60, 0, 0)), boxes((5, 0, 0))
    everything = evaluate(sample(truth, found, [0.9]))
    within = evaluate(
        sample(truth, found, [0.9]), point_cloud_range=[-51.2, -51.2, -2, 51.2, 51.2, 4]
    )
    assert everything['Car_rec_0.50'] == pytest.approx(0.5)
    assert within['Car_rec_0.50'] == pytest.approx(1)


def test_a_class_without_truth_has_no_part_in_the_mean():
    two = boxes((5, 0, 0), (9, 0, 0))
    scores = evaluate(sample(boxes((5, 0, 0)), two, [0.9, 0.8], labels=[0, 1]))
    assert scores['mAP_0.50'] == pytest.approx(1)
    assert not any(key.startswith('Pedestrian') for key in scores)


def test_a_frame_without_detections_counts_its_truth():
    truth = boxes((5, 0, 0))
    scores = evaluate(sample(truth, boxes(), []), sample(truth, truth, [0.9]))
    assert scores['Car_rec_0.50'] == pytest.approx(0.5)
    assert evaluate(sample(truth, boxes(), []))['mAP_0.50'] == 0


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(InputError, match='six numbers'):
        evaluate(point_cloud_range=[0, 0, 1, 1])
    with pytest.raises(InputError, match='without'):
        evaluate(dict(pred_instances_3d={}))
    with pytest.raises(InputError, match='received none: widen'):
        evaluate(sample(boxes(), boxes((5, 0, 0)), [0.9]))
