"""Detectors of OpenPCDet as black boxes: what the host gives, whole, in windows and shared."""

import pcdet_scenes as scenes
import pytest
import torch
from test_pcdet_two_stage import ROI_HEAD

from explain3d.adapters.pcdet.black_box import PcdetBlackBox, black_box_of
from explain3d.core.black_box import Region
from explain3d.core.errors import NotApplicableError

#: Wide enough for a part of it to be less than the whole: the reach of these layers ends.
WIDE = [0, -12.8, -3, 25.6, 12.8, 1]
REGIONS = [Region(2.0, -9.0, 0.9, 2), Region(22.0, 9.0, 0.9, 0)]


def wide(config):
    config['DATA_CONFIG']['POINT_CLOUD_RANGE'] = WIDE
    config['MODEL']['BACKBONE_2D'].update(LAYER_NUMS=[0, 0], NUM_UPSAMPLE_FILTERS=[8, 8])


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def model(request, pcdet_host):
    return scenes.build(request.param, wide)


@pytest.fixture(scope='module')
def cloud():
    """(N, 4) points all over the wide range, and some above and below the grid."""
    parts = []
    for i, (x, y) in enumerate([(0, -9), (19, 9), (9, 0), (0, 9), (19, -9)]):
        part = torch.from_numpy(scenes.cloud(i, 150))
        part[:, :2] += torch.tensor([x, y])
        parts.append(part)
    points = torch.cat(parts)
    points[::50, 2] = 3.0
    return points


@pytest.fixture
def on_device(model, cloud):
    return cloud.to(next(model.parameters()).device)


def perturbed(cloud, region, count=3):
    center = cloud.new_tensor([region.x, region.y])
    distance = (cloud[:, :2] - center).norm(dim=1).cpu()
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(len(cloud), generator=generator) < i / count for i in range(count)]
    return [cloud[((distance >= region.radius) | draw).to(cloud.device)] for draw in draws]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for answer, other in zip(found, expected, strict=True):
        for a, b in zip(answer, other, strict=True):
            assert len(b) > 0
            torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)
            assert torch.equal(a.labels, b.labels)


def test_what_the_host_reports_is_among_the_candidates(model, on_device):
    batch = scenes.batch(model, on_device.cpu().numpy())
    with torch.no_grad():
        predicted = model(dict(batch))[0][0]
    (found,) = PcdetBlackBox(model).candidates([on_device], 0.0)
    rows = found.boxes, found.labels, found.scores
    assert len(predicted['pred_boxes']) > 5
    for box, label, score in zip(
        *(predicted[f'pred_{name}'] for name in ('boxes', 'labels', 'scores')), strict=True
    ):
        near = (rows[0] - box[:7]).abs().amax(1) < 1e-3
        near &= (rows[1] == label - 1) & ((rows[2] - score).abs() < 1e-4)
        assert near.any()


def test_windows_give_what_whole_passes_give(model, on_device):
    box = PcdetBlackBox(model, batch_size=2)
    whole = PcdetBlackBox(model, batch_size=1, windows=False)
    for region in REGIONS:
        clouds = perturbed(on_device, region)
        found = box.candidates_in(clouds, [region], 0.0, on_device)
        assert_same(found, whole.candidates_in(clouds, [region], 0.0))
        assert box.cost([region], on_device) < 0.6
    assert box.reach() is not None
    assert box.passes == 1 + 2 * 3
    assert box.work < 1 + 0.6 * 6


def test_nothing_outside_of_the_reach_changes_a_candidate(model, on_device):
    box = PcdetBlackBox(model)
    region = REGIONS[0]
    before = box.candidates_in([on_device], [region], 0.0, on_device)
    reach = box.reach()
    near = (on_device[:, 0] - region.x).abs() <= region.radius + reach[0]
    near &= (on_device[:, 1] - region.y).abs() <= region.radius + reach[1]
    assert not near.all()
    whole = PcdetBlackBox(model, windows=False)
    assert_same(whole.candidates_in([on_device[near]], [region], 0.0), before)


def test_places_and_cells_are_where_the_boxes_are_asked_for(model, on_device):
    box = PcdetBlackBox(model)
    box.candidates_in([on_device], REGIONS, 0.0, on_device)
    answer = box._base_answer
    index = answer.of_label(1)
    cells, places = answer.cells(index), answer.places(index)
    size = torch.tensor([25.6, 25.6]) / (cells.amax(0).cpu() + 1).flip(0)
    low = torch.tensor([0.0, -12.8])
    offset = (places.cpu() - low) / size - cells.flip(1).cpu()
    # Anchors are spread from border to border, cells' centres are not.
    assert ((offset > -1e-3) & (offset < 1 + 1e-3)).all()
    assert len(torch.unique(cells, dim=0)) == int((cells.amax(0) + 1).prod())


def test_clouds_without_points_in_the_grid_have_no_candidates(model, on_device):
    box = PcdetBlackBox(model)
    high = on_device[on_device[:, 2] > 2]
    one = on_device[on_device[:, 2] < 0][:1]
    found = box.candidates([high, on_device[:0], one, on_device], 0.0)
    assert [len(answer) > 0 for answer in found] == [False, False, True, True]
    assert box.passes == 2
    alone = box.candidates_in([high], REGIONS, 0.0, on_device)
    assert len(alone[0]) == 2


def test_model_is_left_as_found(model, on_device):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = {name: dict(vars(m)) for name, m in model.named_modules()}
    modes = {name: m.training for name, m in model.named_modules()}
    box = PcdetBlackBox(model)
    box.candidates_in(perturbed(on_device, REGIONS[0]), REGIONS, 0.0, on_device)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert modes == {name: m.training for name, m in model.named_modules()}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, module in model.named_modules():
        assert vars(module).keys() == attributes[name].keys(), name
        for key, value in attributes[name].items():
            assert vars(module)[key] is value, (name, key)


def test_voxels_are_those_of_the_data_set(model, on_device):
    made = scenes.batch(model, on_device.cpu().numpy())
    ours = PcdetBlackBox(model)._voxels.batch([on_device])
    # The host's own generator may order the points of equal keys otherwise: compare by voxel.
    order = [coords_order(batch['voxel_coords']) for batch in (made, ours)]
    for key in ('voxel_coords', 'voxel_num_points', 'voxels'):
        assert torch.equal(made[key][order[0]], ours[key][order[1]]), key


def coords_order(coords):
    b, z, y, x = coords.long().T
    return (((b * 1000 + z) * 1000 + y) * 1000 + x).argsort()


def test_two_stages_are_refused(pcdet_host):
    def two_stages(config):
        config['MODEL'].update(NAME='VoxelRCNN', ROI_HEAD=ROI_HEAD)

    model = scenes.build('second', two_stages)
    with pytest.raises(NotApplicableError, match=r'by a proposal layer: expected a one-stage'):
        PcdetBlackBox(model)
    assert black_box_of(model) is None


def test_flipped_copies_are_refused(model):
    (step,) = (
        s
        for s in model.dataset.dataset_cfg.DATA_PROCESSOR
        if s['NAME'] == 'transform_points_to_voxels'
    )
    step['DOUBLE_FLIP'] = True
    try:
        with pytest.raises(NotApplicableError, match='without DOUBLE_FLIP'):
            PcdetBlackBox(model)
    finally:
        del step['DOUBLE_FLIP']


def test_a_detector_without_a_grid_is_no_black_box():
    assert black_box_of(torch.nn.Linear(2, 2)) is None
