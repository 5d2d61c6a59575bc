"""The fusion detector: where its maps lie, what blank sensors give, that it trains."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d')

from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints
from mmengine.registry import init_default_scope

from explain3d.adapters.mmdet3d.bev import CamerasToLidar
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.lmd import Decomposition

from . import fusion_cases as cases


@pytest.fixture(scope='module')
def model():
    return cases.build()


def maps_of(model, data):
    data = model.data_preprocessor(data, False)
    with torch.no_grad():
        return model.sensor_maps(data['inputs'], data['data_samples'])


def test_image_map_has_rows_along_y_and_columns_along_x(model):
    branch = model.img_branch
    calibration = [
        torch.tensor(m)[None, None].float() for m in (cases.CAM2IMG, cases.LOOKING_ALONG_X)
    ]

    class Left(torch.nn.Module):
        """1 in the left half of the image."""

        out_channels = 1

        def forward(self, images):
            found = torch.full((len(images), 1, 4, 6), 1e-3)
            found[..., :3] = 1
            return found

    encoder, branch.encoder = branch.encoder, Left()
    try:
        found = branch(torch.zeros(1, 1, 3, *cases.IMAGE), *calibration)[0].amax(0)
    finally:
        branch.encoder = encoder
    half = cases.CELLS // 2
    assert (found[:, :half] == 0).all()  # Behind the camera.
    # What is on the left of the picture is at positive y; column 4 m ahead, a metre off its edge.
    assert (found[half + 1 : half + 3, half + 4] > 0.9).all()
    assert (found[half - 3 : half - 1, half + 4] < 0.1).all()
    assert (found[half - 3 : half - 1, half + 4] > 0).all()


def test_lidar_map_has_the_same_axes(model):
    data = cases.batch(0)
    x, y = 6.1, -3.9
    data['inputs']['points'] = [torch.tensor([[x, y, -1.0, 0.5]])]
    with_point = maps_of(model, data)[1][0]
    row, column = (with_point - with_point[:, :1, :1]).abs().sum(0).nonzero().float().mean(0)
    assert row == pytest.approx(y + 12, abs=1.5)
    assert column == pytest.approx(x + 12, abs=1.5)


def test_a_batch_without_points_is_what_the_encoder_gives_for_an_empty_cloud(model):
    empty, full = cases.batch(0, 1), cases.batch(0, 1)
    empty['inputs']['points'] = [points[:0] for points in empty['inputs']['points']]
    full['inputs']['points'][0] = full['inputs']['points'][0][:0]
    nothing, something = maps_of(model, empty)[1], maps_of(model, full)[1]
    assert nothing.shape == something.shape
    assert torch.equal(nothing[0], something[0])
    assert something[1].abs().max() > 0


@pytest.mark.parametrize('without', [(), ('points',), ('img',)])
def test_trains_with_a_sensor_blanked(without):
    model = cases.build().train()
    data = cases.batch(0, 1, truth=True)
    for key in without:
        data['inputs'][key] = [
            value * 0 if value.dim() > 2 else value[:0] for value in data['inputs'][key]
        ]
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert model.fuser.conv.weight.grad.abs().sum() > 0


def test_cameras_follow_what_was_done_to_the_points():
    from mmdet3d.registry import TRANSFORMS

    init_default_scope('mmdet3d')
    rng = np.random.default_rng(0)
    cam2ego = np.stack([cases.LOOKING_ALONG_X, cases.LOOKING_BACK])
    cam2ego[:, :3, 3] = rng.normal(size=(2, 3))
    lidar2ego = np.eye(4)
    lidar2ego[:3] = [[0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8]]
    points = rng.normal(size=(20, 4)).astype(np.float32) * 5
    results = dict(
        cam2ego=cam2ego, lidar_points=dict(lidar2ego=lidar2ego),
        points=LiDARPoints(torch.tensor(points), points_dim=4),
        gt_bboxes_3d=LiDARInstance3DBoxes(torch.ones(1, 9), box_dim=9), box_type_3d=None,
    )  # fmt: skip

    def seen(results):
        cloud = np.c_[results['points'].tensor[:, :3].numpy(), np.ones(20)]
        return cloud @ np.linalg.inv(CamerasToLidar().transform(results)['cam2lidar']).swapaxes(
            1, 2
        )

    before = seen(results)
    for step in (
        dict(type='GlobalRotScaleTrans', rot_range=[0.7, 0.7], scale_ratio_range=[1, 1],
             translation_std=[1, 1, 1]),
        dict(type='RandomFlip3D', sync_2d=False, flip_ratio_bev_horizontal=1.0,
             flip_ratio_bev_vertical=1.0),
    ):  # fmt: skip
        results = TRANSFORMS.build(step)(results)
    assert np.abs(results['points'].tensor[:, :3].numpy() - points[:, :3]).max() > 1
    np.testing.assert_allclose(seen(results), before, atol=1e-4)
    results['pcd_scale_factor'] = 1.1
    with pytest.raises(InputError, match='were not scaled'):
        CamerasToLidar().transform(results)


def test_maps_of_other_sizes_are_refused(model):
    with pytest.raises(InputError, match='grid of the image branch'):
        model.fuser([torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 5, 5)])


@pytest.mark.parametrize(
    ('level', 'names'),
    [('sensors', ('camera', 'lidar')), ('cameras', (*cases.CAMERAS, 'lidar'))],
)
def test_proposes_where_a_decomposition_begins_and_ends(model, level, names):
    with torch.no_grad():
        plain = model(**model.data_preprocessor(cases.batch(0), False), mode='tensor')
        with Decomposition(model, model.lmd_seeds(level), model.lmd_outputs, mode='check') as run:
            found = model(**model.data_preprocessor(cases.batch(0), False), mode='tensor')
    assert run.modalities == names
    assert run.residual < 1e-5
    assert torch.equal(plain[0][0]['heatmap'], found[0][0]['heatmap'])
    heat = run.outputs['pts_bbox_head.0.0.heatmap']
    assert torch.equal(heat.value, plain[0][0]['heatmap'])
    assert (heat.parts.abs().flatten(1).sum(1) > 0).all()


def test_unknown_level_is_refused(model):
    with pytest.raises(UnknownNameError, match="'sensors' or 'cameras'"):
        model.lmd_seeds('eyes')


def test_ffam_explains_its_boxes_by_the_lidars_own_layers(model):
    import explain3d
    from explain3d.adapters.mmdet3d import layers

    names = [layer.name for layer in layers(model)]
    assert any(name.startswith('pts_middle_encoder') for name in names)
    assert not any(name.startswith(('pts_backbone', 'pts_neck')) for name in names)
    data, method = cases.batch(0), dict(type='FFAM', rank=4)
    (found,) = explain3d.explain(model, data, method, select=dict(top_n=2))
    assert found.saliency.shape == (2, 600)
    assert (found.saliency >= 0).all()
    assert (found.saliency.sum(1) > 0).all()
    with pytest.raises(UnknownNameError, match='pts_middle_encoder'):
        explain3d.explain(model, data, 'FFAM', layer='pts_neck')
