"""Detectors as black boxes: windows and shared passes give what whole passes give."""

import pytest

pytest.importorskip('mmdet3d')

import tiny_detectors as tiny
import torch

from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox, black_box_of
from explain3d.core.black_box import Region
from explain3d.core.errors import NotApplicableError
from explain3d.metrics.curves import perturbation_curves
from explain3d.metrics.protocol import Protocol

# Nothing trained has a reach that ends inside of 12.8 m x 12.8 m; these layers do.
SHORT = dict(
    middle_encoder=dict(
        tiny.SPARSE_ENCODER,
        encoder_channels=((8,), (8,), (16,), (16,)),
        encoder_paddings=((1,), (1,), (1,), ((0, 1, 1),)),
    ),
)
REGIONS = [Region(2.0, -5.0, 0.9, 0), Region(11.0, 5.0, 0.9, 2)]


def short_second():
    config = tiny.second()
    config.update(SHORT)
    config['backbone'] = tiny.backbone(16, (1, 1))
    config['backbone']['layer_nums'] = [0, 0]
    config['neck'] = dict(tiny.NECK, upsample_strides=[1, 1])
    return config


CONFIGS = {'short_second': short_second, **tiny.MODELS}


@pytest.fixture(params=CONFIGS)
def model(request):
    return tiny.build(CONFIGS[request.param]())


def perturbed(cloud, region, count=3):
    distance = (cloud[:, :2] - torch.tensor([region.x, region.y])).norm(dim=1)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(len(cloud), generator=generator) < i / count for i in range(count)]
    return [cloud[(distance >= region.radius) | draw] for draw in draws]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for answer, other in zip(found, expected, strict=True):
        for a, b in zip(answer, other, strict=True):
            assert len(b) > 0
            torch.testing.assert_close(a.boxes, b.boxes)
            torch.testing.assert_close(a.scores, b.scores)
            assert torch.equal(a.labels, b.labels)


def test_windows_give_what_whole_passes_give(model):
    cloud = torch.from_numpy(tiny.cloud(3))
    box = MMDet3DBlackBox(model, batch_size=2)
    whole = MMDet3DBlackBox(model, batch_size=1, windows=False)
    for region in REGIONS:
        clouds = perturbed(cloud, region)
        found = box.candidates_in(clouds, [region], 0.0, cloud)
        assert_same(found, whole.candidates_in(clouds, [region], 0.0))
    assert box.reach() is not None


def parts_of(cloud, count=3):
    generator = torch.Generator().manual_seed(2)
    return [cloud[torch.rand(len(cloud), generator=generator) < 0.4] for _ in range(count)]


def test_clouds_that_differ_anywhere_give_what_whole_passes_give(model):
    cloud = torch.from_numpy(tiny.cloud(3))
    box = MMDet3DBlackBox(model, batch_size=2)
    whole = MMDet3DBlackBox(model, batch_size=1, windows=False)
    clouds = [*parts_of(cloud), cloud[:0]]
    for regions in (REGIONS[:1], REGIONS[1:], REGIONS):
        found = box.candidates_in(clouds, regions, 0.0, cloud, anywhere=True)
        expected = whole.candidates_in(clouds, regions, 0.0)
        assert_same(found[:-1], expected[:-1])
        assert [len(answer) for answer in found[-1]] == [0] * len(regions)


def test_clouds_that_differ_anywhere_take_what_the_candidates_see():
    model, cloud = tiny.build(short_second()), torch.from_numpy(tiny.cloud(3))
    box = MMDet3DBlackBox(model)
    box.candidates_in([cloud], REGIONS[:1], 0.0, cloud)
    cost = box.cost(REGIONS[:1], cloud, anywhere=True)
    assert box.cost(REGIONS[:1], cloud) < cost < box.cost(REGIONS, cloud, anywhere=True)
    box.candidates_in(parts_of(cloud), REGIONS[:1], 0.0, cloud, anywhere=True)
    assert box.work == pytest.approx(1 + 3 * cost)
    assert box.passes == 4


@pytest.mark.parametrize('sigmoid', [True, False])
def test_candidates_above_a_score(model, sigmoid):
    box = MMDet3DBlackBox(model)
    if not sigmoid:
        box.head.use_sigmoid_cls = False
    answer = box.candidates_of(box.raw([torch.from_numpy(tiny.cloud(3))]))
    for label in range(3):
        index = answer.of_label(label)
        scores = answer.scores(index, torch.full_like(index, label))
        for threshold in (0.0, float(scores.median()), 1.0):
            assert torch.equal(answer.above(label, threshold), index[scores > threshold])


def test_a_window_is_smaller_than_the_frame_and_counts_as_that():
    model, cloud = tiny.build(short_second()), torch.from_numpy(tiny.cloud(3))
    box = MMDet3DBlackBox(model)
    box.candidates_in([cloud], REGIONS[:1], 0.0, cloud)
    assert (box.passes, box.work) == (1, 1)
    cost = box.cost(REGIONS[:1], cloud)
    assert 0.02 < cost < 0.5
    box.candidates_in(perturbed(cloud, REGIONS[0]), REGIONS[:1], 0.0, cloud)
    assert box.passes == 4
    assert box.work == pytest.approx(1 + 3 * cost)


def test_nothing_outside_of_the_reach_changes_a_candidate(model):
    cloud = torch.from_numpy(tiny.cloud(3))
    box = MMDet3DBlackBox(model, windows=False)
    region = Region(1.5, -5.0, 1.0, 0)
    before = box.candidates_in([cloud], [region], 0.0, cloud)
    reach = box.reach()
    near = (cloud[:, 0] - region.x).abs() <= region.radius + reach[0]
    near &= (cloud[:, 1] - region.y).abs() <= region.radius + reach[1]
    after = box.candidates_in([cloud[near]], [region], 0.0)
    assert_same(after, before)


def test_a_region_that_is_emptied_wholly():
    model, cloud = tiny.build(short_second()), torch.from_numpy(tiny.cloud(3))
    around = (cloud[:, :2] - torch.tensor([2.0, -5.0])).norm(dim=1) > 4
    far = cloud[around]
    box, whole = MMDet3DBlackBox(model), MMDet3DBlackBox(model, windows=False)
    one = torch.tensor([[2.0, -5.0, -1.0, 0.5]])
    base = torch.cat([far, one])
    found = box.candidates_in([far], REGIONS[:1], 0.0, base)
    assert_same(found, whole.candidates_in([far], REGIONS[:1], 0.0))
    empty = whole.candidates_in([far[:0], far], REGIONS[:1], 0.0)
    assert len(empty[0][0]) == 0
    assert len(empty[1][0]) > 0
    assert len(whole.candidates([far[:0]], 0.0)[0]) == 0


def test_curves_with_and_without_windows_and_sharing():
    model, cloud = tiny.build(short_second()), torch.from_numpy(tiny.cloud(3))
    whole = MMDet3DBlackBox(model, windows=False)
    objects = []
    for region in REGIONS:  # Boxes that the detector does report there.
        found = whole.candidates_in([cloud], [Region(region.x, region.y, 1.5, region.label)], 0.0)
        box = found[0][0].boxes[0].clone()
        box[3:6] = torch.tensor([0.6, 0.5, 1.0])
        objects.append(box)
    objects = torch.stack(objects)
    labels = [region.label for region in REGIONS]
    saliency = torch.rand(2, len(cloud), generator=torch.Generator().manual_seed(1))
    protocol = Protocol(steps=5, score_thr=0.0)
    curves, boxes = [], []
    for options in (dict(windows=False, share=False), dict(windows=False), {}):
        share = options.pop('share', True)
        box = MMDet3DBlackBox(model, **options)
        if not share:
            box.reach = lambda: None
        maps = {'m': saliency}
        curves.append(perturbation_curves(box, cloud, maps, objects, labels, protocol)['m'])
        boxes.append(box)
    for other in curves[1:]:
        torch.testing.assert_close(other.deletion, curves[0].deletion)
        torch.testing.assert_close(other.insertion, curves[0].insertion)
    alone, shared, windowed = boxes
    assert alone.passes == 1 + 2 * 7
    assert shared.passes == 1 + 7
    assert windowed.work < shared.work < alone.work
    assert (curves[0].deletion[:, 0] > 0).any()


def test_model_is_left_as_found(model):
    cloud = torch.from_numpy(tiny.cloud(3))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    box = MMDet3DBlackBox(model)
    box.candidates_in(perturbed(cloud, REGIONS[0]), REGIONS, 0.0, cloud)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert 'predict_by_feat' not in vars(box.head)
    assert 'forward' not in vars(model.data_preprocessor.voxel_layer)


def test_two_stages_are_refused():
    import tiny_two_stage

    with pytest.raises(NotApplicableError, match='one-stage'):
        MMDet3DBlackBox(tiny.build(tiny_two_stage.pv_rcnn()))


def test_a_detector_without_a_grid_is_no_black_box():
    assert black_box_of(torch.nn.Linear(2, 2)) is None
