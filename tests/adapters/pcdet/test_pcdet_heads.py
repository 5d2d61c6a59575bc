"""Each family of heads against its decoding, written out for one candidate at a time."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from explain3d.adapters.pcdet.heads import HEADS, candidates_class
from explain3d.adapters.pcdet.heads.anchor import AnchorCandidates
from explain3d.adapters.pcdet.heads.center import CenterCandidates
from explain3d.adapters.pcdet.heads.convention import ConventionCandidates
from explain3d.adapters.pcdet.heads.transfusion import TransFusionCandidates
from explain3d.adapters.pcdet.heads.voxelnext import VoxelNeXtCandidates
from explain3d.core.errors import NotApplicableError

VOXEL, LOW, STRIDE = (0.1, 0.2, 0.1), (-5.0, -4.0, -3.0), 4
#: Two heads: classes 0 and 2, class 1.
CLASSES = [[0, 2], [1]]


def rand(*shape):
    return torch.randn(*shape)


def sigmoid(x):
    return 1 / (1 + math.exp(-float(x)))


def head(**more):
    post = {'USE_IOU_TO_RECTIFY_SCORE': True, 'IOU_RECTIFIER': [0.2, 0.5, 0.7]}
    settings = SimpleNamespace(POST_PROCESSING=Settings(post))
    return SimpleNamespace(
        model_cfg=settings,
        feature_map_stride=STRIDE,
        voxel_size=VOXEL,
        point_cloud_range=[*LOW, 5, 4, 1],
        class_id_mapping_each_head=[torch.tensor(labels) for labels in CLASSES],
        **more,
    )


class Settings(dict):
    __getattr__ = dict.__getitem__


def regression(*shape, heat):
    maps = {'hm': (heat, *shape), 'center': (2, *shape), 'center_z': (1, *shape)}
    maps |= {'dim': (3, *shape), 'rot': (2, *shape), 'iou': (1, *shape)}
    return maps


def box(column, row, values):
    """The box of a cell by the formulas of a center head."""
    x = (column + float(values['center'][0])) * STRIDE * VOXEL[0] + LOW[0]
    y = (row + float(values['center'][1])) * STRIDE * VOXEL[1] + LOW[1]
    size = [math.exp(float(v)) for v in values['dim']]
    yaw = math.atan2(float(values['rot'][1]), float(values['rot'][0]))
    return torch.tensor([x, y, float(values['center_z'][0]), *size, yaw])


def rectified(values, heat, label):
    weight = [0.2, 0.5, 0.7][label]
    iou = min(max((float(values['iou'][0]) + 1) / 2, 0), 1)
    return sigmoid(heat) ** (1 - weight) * iou**weight


@pytest.mark.parametrize('label', [0, 1, 2])
def test_center_heads_cell_by_cell(label):
    torch.manual_seed(label)
    predictions = [
        {name: rand(1, *shape) for name, shape in regression(3, 5, heat=len(labels)).items()}
        for labels in CLASSES
    ]
    candidates = CenterCandidates(head(), {}, 1, predictions)
    pool = candidates.of_label(label)
    labels = torch.full_like(pool, label)
    part = 1 if label == 1 else 0
    channel = CLASSES[part].index(label)
    for i in range(15):
        row, column = divmod(i, 5)
        values = {n: v[0, :, row, column] for n, v in predictions[part].items()}
        one = slice(i, i + 1)
        torch.testing.assert_close(candidates.boxes(pool[one])[0], box(column, row, values))
        heat = values['hm'][channel]
        assert candidates.logits(pool[one], labels[one])[0] == heat
        score = candidates.scores(pool[one], labels[one])[0]
        assert float(score) == pytest.approx(rectified(values, heat, label), rel=1e-5)


def test_a_center_head_without_rectification():
    plain = head()
    plain.model_cfg.POST_PROCESSING['USE_IOU_TO_RECTIFY_SCORE'] = False
    maps = [{n: rand(1, *s) for n, s in regression(2, 2, heat=len(c)).items()} for c in CLASSES]
    candidates = CenterCandidates(plain, {}, 1, maps)
    index, label = torch.tensor([1]), torch.tensor([0])
    torch.testing.assert_close(
        candidates.scores(index, label), candidates.logits(index, label).sigmoid()
    )


@pytest.mark.parametrize('iou', [False, True])
def test_voxelnext_voxel_by_voxel(iou):
    torch.manual_seed(0)
    own = head(double_flip=False, iou_branch=iou, rectifier=[0.2, 0.5, 0.7])
    indices = torch.tensor([[0, 7, 3], [0, 2, 9], [0, 4, 4]])
    predictions = [
        {n: rand(3, s[0]) for n, s in regression(heat=len(labels)).items() if iou or n != 'iou'}
        for labels in CLASSES
    ]
    candidates = VoxelNeXtCandidates(own, {}, 1, predictions, indices, None)
    for label in range(3):
        pool = candidates.of_label(label)
        part = 1 if label == 1 else 0
        # Candidates stand by cell, whatever the order of the voxels: rows 2, 4 and 7.
        for place, i in enumerate([1, 2, 0]):
            _, row, column = indices[i].tolist()
            values = {n: v[i] for n, v in predictions[part].items()}
            one, labels = pool[place : place + 1], torch.tensor([label])
            torch.testing.assert_close(candidates.boxes(one)[0], box(column, row, values))
            heat = values['hm'][CLASSES[part].index(label)]
            want = rectified(values, heat, label) if iou else sigmoid(heat)
            assert float(candidates.scores(one, labels)[0]) == pytest.approx(want, rel=1e-5)
            assert candidates.logits(one, labels)[0] == heat


def test_voxelnext_with_flipped_copies_is_refused():
    with pytest.raises(NotApplicableError, match='without DOUBLE_FLIP'):
        VoxelNeXtCandidates(head(double_flip=True), {}, 4, [], torch.zeros(0, 3), None)


def test_transfusion_query_by_query():
    torch.manual_seed(0)
    sizes = dict(heatmap=3, query_heatmap_score=3, center=2, height=1, dim=3, rot=2)
    maps = {name: rand(1, size, 4) for name, size in sizes.items()}
    own = head(query_labels=torch.tensor([[2, 0, 2, 1]]))
    candidates = TransFusionCandidates(own, {}, maps)
    assert [candidates.of_label(label).tolist() for label in range(3)] == [[1], [3], [0, 2]]
    for query, label in enumerate([2, 0, 2, 1]):
        values = {n: v[0, :, query] for n, v in maps.items()}
        values['center_z'], values['rot'] = values['height'], values['rot'].flip(0)
        one, labels = torch.tensor([query]), torch.tensor([label])
        torch.testing.assert_close(candidates.boxes(one)[0], box(0, 0, values))
        want = sigmoid(values['heatmap'][label]) * float(values['query_heatmap_score'][label])
        assert float(candidates.scores(one, labels)[0]) == pytest.approx(want, rel=1e-5)


class SeveralHeads(nn.Module):
    """Anchor heads that know one class and two, in OpenPCDet's manner."""

    num_class = 3

    def __init__(self):
        super().__init__()
        self.rpn_heads = [
            SimpleNamespace(head_label_indices=torch.tensor(labels)) for labels in ([2], [3, 1])
        ]

    def generate_predicted_boxes(self, batch_size, cls_preds, box_preds, dir_cls_preds=None):
        return cls_preds, torch.cat(box_preds, 1)


def test_separate_anchor_heads_know_some_classes():
    scores = [rand(1, 4, 1), rand(1, 6, 2)]
    boxes = [rand(1, 4, 9), rand(1, 6, 9)]
    candidates = AnchorCandidates(SeveralHeads(), {}, 1, scores, boxes)
    assert candidates.of_label(1).tolist() == [0, 1, 2, 3]
    assert candidates.of_label(0).tolist() == candidates.of_label(2).tolist() == list(range(4, 10))
    index = torch.tensor([5])
    assert candidates.logits(index, torch.tensor([0])) == scores[1][0, 1, 1]
    assert candidates.logits(index, torch.tensor([2])) == scores[1][0, 1, 0]
    assert torch.equal(candidates.boxes(index)[0], boxes[1][0, 1, :7])


def test_conventions_final_boxes_and_batch_predictions():
    boxes, scores = rand(4, 9), torch.rand(4)
    final = {'pred_boxes': boxes, 'pred_scores': scores, 'pred_labels': torch.tensor([1, 3, 3, 2])}
    candidates = ConventionCandidates(nn.Identity(), {'final_box_dicts': [final]})
    assert candidates.of_label(2).tolist() == [1, 2]
    index, label = torch.tensor([1, 2]), torch.tensor([2, 2])
    torch.testing.assert_close(candidates.scores(index, label), scores[1:3])
    assert torch.equal(candidates.boxes(index), boxes[1:3, :7])
    batch = {'batch_cls_preds': rand(1, 4, 3), 'batch_box_preds': rand(1, 4, 7)}
    candidates = ConventionCandidates(nn.Identity(), batch)
    assert len(candidates.of_label(1)) == 4
    assert torch.equal(candidates.logits(index, label), batch['batch_cls_preds'][0, 1:3, 2])
    batch |= {'has_class_labels': True, 'roi_labels': torch.tensor([[1, 3, 3, 2]])}
    candidates = ConventionCandidates(nn.Identity(), batch)
    assert candidates.of_label(2).tolist() == [1, 2]
    best = batch['batch_cls_preds'][0, 1:3].amax(1)
    assert torch.equal(candidates.logits(index, label), best)
    batch = {**batch, 'cls_preds_normalized': True, 'batch_cls_preds': torch.rand(1, 4, 3)}
    candidates = ConventionCandidates(nn.Identity(), batch)
    best = batch['batch_cls_preds'][0, 1:3].amax(1)
    torch.testing.assert_close(candidates.scores(index, label), best)


def test_what_keeps_no_convention_is_told():
    with pytest.raises(NotApplicableError, match='Identity leaves neither final_box_dicts nor'):
        ConventionCandidates(nn.Identity(), {'batch_cls_preds': [rand(1, 2, 1)]})


def test_families_go_by_the_parents():
    class AnchorHeadTemplate(nn.Module): ...

    class Mine(AnchorHeadTemplate): ...

    assert candidates_class(Mine()) is HEADS['AnchorHeadTemplate']
    assert candidates_class(nn.Identity()) is ConventionCandidates
    assert candidates_class(Mine(), 'any') is ConventionCandidates
