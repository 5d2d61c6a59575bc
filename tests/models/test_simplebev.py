"""SimpleBEV as a model of MMDetection3D: modes, losses, batches, what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmdet3d')

from mmengine.config import Config

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.locations import config_path
from explain3d.models.simplebev import detector as module
from explain3d.models.simplebev.heads import BEVCenterHead, BEVOffsetHead, BEVSegmentationHead

from . import simplebev_cases as cases

BEV = (24, 32)


@pytest.fixture(scope='module')
def model():
    return cases.small_model().double().eval()


def run(model, mode='tensor', **kwargs):
    data = model.data_preprocessor(cases.batch(**kwargs))
    with torch.no_grad():
        return model(**data, mode=mode)


@pytest.mark.parametrize(
    ('name', 'channels'),
    [
        ('r101', [1024, 128]),
        ('r101_camera', [1024]),
        ('r101_radar_occupancy', [1024, 1]),
        ('r101_lidar', [1024, 8]),
        ('r101_radar_lidar', [1024, 128, 8]),
        ('small', [128, 4]),
    ],
)
def test_configs_build_with_their_sensors(name, channels):
    config = Config.fromfile(config_path(f'_base_/models/simplebev_{name}.py')).model
    with torch.device('meta'):
        model = cases.build(config)
    assert list(model.fuser.in_channels) == channels
    parameters = sum(value.numel() for value in model.parameters())
    assert (1e6 < parameters < 2e6) if name == 'small' else (4e7 < parameters < 5e7)


def test_raw_maps(model):
    outputs = run(model, samples=(0, 1))
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == dict(segmentation=(2, 1, *BEV), center=(2, 1, *BEV), offset=(2, 2, *BEV))
    assert ((outputs['center'] > 0) & (outputs['center'] < 1)).all()
    assert (outputs['segmentation'] < 0).any()


def test_prediction_is_the_logits(model):
    samples = run(model, 'predict', samples=(0, 1))
    logits = torch.stack([sample.pred_bev_seg.logits for sample in samples])
    assert torch.equal(logits, run(model, samples=(0, 1))['segmentation'])


@pytest.mark.parametrize('sensors', list(cases.RASTERIZERS))
def test_each_set_of_sensors_and_batches(sensors):
    model = cases.small_model(sensors).double().eval()
    both = run(model, samples=(0, 1))['segmentation']
    for index in (0, 1):
        alone = run(model, samples=(index,))['segmentation']
        torch.testing.assert_close(alone[0], both[index], rtol=0, atol=1e-12)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_each_sensor_matters(model):
    before = run(model)['segmentation']
    for key in ('img', 'radar', 'points'):
        batch = cases.batch()
        batch['inputs'][key] = cases.batch(samples=(1,))['inputs'][key]
        with torch.no_grad():
            after = model(**model.data_preprocessor(batch), mode='tensor')['segmentation']
        assert (after - before).abs().max() > 1e-3, key


def test_empty_radar_is_a_blank_map(model):
    batch = cases.batch()
    batch['inputs']['radar'] = [torch.zeros(0, 19)]
    data = model.data_preprocessor(batch)
    with torch.no_grad():
        maps = model.sensor_maps(data['inputs'], data['data_samples'])
        assert torch.isfinite(model(**data, mode='tensor')['segmentation']).all()
    assert maps[1].shape == (1, 64, *BEV)
    assert not maps[1].any()
    assert maps[2].any()


def test_images_and_grids_that_are_no_multiples_of_eight():
    grid = dict(x=(-32, 32, 21), y=(-4, 6, 3), z=(-24, 24, 19))
    model = cases.small_model('lidar', grid=grid).eval()
    batch = cases.batch(sensors=('points',))
    batch['inputs']['img'] = [batch['inputs']['img'][0][..., :57, :88]]
    with torch.no_grad():
        outputs = model(**model.data_preprocessor(batch), mode='tensor')
    assert outputs['segmentation'].shape == (1, 1, 19, 21)


def test_preprocessor_normalises_rgb_and_keeps_radar(model):
    data = cases.small_model().data_preprocessor(cases.batch(samples=(0, 1)))
    rgb = np.stack([cases.images(0), cases.images(1)])[:, :, ::-1] / 255.0
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    np.testing.assert_allclose(data['inputs']['imgs'].numpy(), (rgb - mean) / std, atol=2e-6)
    np.testing.assert_allclose(data['inputs']['radar'][1], cases.points(1), rtol=1e-6)
    assert len(data['inputs']['points']) == 2


def test_every_trained_parameter_gets_a_gradient():
    model = cases.small_model(flip_augmentation=True).train()
    data = model.data_preprocessor(cases.batch(samples=(0, 1)), training=True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert set(log) == {'loss'} | {
        f'{head}_{kind}'
        for head in ('segmentation', 'center', 'offset')
        for kind in ('loss', 'loss_uncertainty')
    }
    for name, value in model.named_parameters():
        assert torch.isfinite(value.grad).all(), name
        assert value.grad.abs().max() > 0, name


def test_losses_are_the_authors():
    """Written out cell by cell; the factors 10, 1/2, 1/2 and the weights exp(-w), w / 2."""
    draw = cases.random('losses')
    shape = (2, 1, 5, 6)
    truth = {
        'segmentation': (draw.uniform(size=shape) < 0.3).astype(float),
        'valid': (draw.uniform(size=shape) < 0.7).astype(float),
        'center': draw.uniform(size=shape),
        'offset': draw.normal(size=(2, 2, 5, 6)),
    }
    logit, heat, offset = (draw.normal(size=s) for s in (shape, shape, (2, 2, 5, 6)))
    entropy, near, far, distance = [], [], [], []
    for b, _, z, x in np.ndindex(shape):
        is_vehicle, valid = truth['segmentation'][b, 0, z, x], truth['valid'][b, 0, z, x]
        probability = 1 / (1 + np.exp(-logit[b, 0, z, x]))
        if valid:
            right = 2.13 * np.log(probability) if is_vehicle else np.log(1 - probability)
            entropy.append(-right)
        squared = (heat[b, 0, z, x] - truth['center'][b, 0, z, x]) ** 2
        (near if truth['center'][b, 0, z, x] > 0.5 else far).append(squared)
        if valid and is_vehicle:
            distance.append(np.abs(offset[b, :, z, x] - truth['offset'][b, :, z, x]).sum())
    expected = {
        BEVSegmentationHead: (logit, 10 * np.mean(entropy)),
        BEVCenterHead: (heat, 0.5 * (np.mean(near) + np.mean(far)) / 2),
        BEVOffsetHead: (offset, 0.5 * np.mean(distance)),
    }
    targets = {name: torch.from_numpy(value) for name, value in truth.items()}
    for kind, (prediction, value) in expected.items():
        head = kind(in_channels=4).double()
        nn.init.constant_(head.log_variance, 0.3)
        losses = head.loss(torch.from_numpy(prediction), targets)
        # A mean's denominator has the authors' 1e-6 added.
        np.testing.assert_allclose(losses['loss'].item(), value * np.exp(-0.3), rtol=1e-6)
        assert losses['loss_uncertainty'].item() == pytest.approx(0.15)


def test_flips_are_undone(monkeypatch):
    """With parts that commute with mirroring, mirroring and back changes nothing."""
    fused = []

    class Sum(nn.Module):
        def forward(self, maps):
            fused.append(maps[0] + maps[1].mean(dim=1, keepdim=True))
            return fused[-1]

    model = cases.small_model(flip_augmentation=True).double()
    model.img_encoder, model.fuser, model.decoder = nn.AvgPool2d(8), Sum(), nn.Identity()
    data = model.data_preprocessor(cases.batch(samples=(0, 1)))
    plain = model.eval().extract_feat(data['inputs'], data['data_samples'])
    assert plain.abs().max() > 0.1
    model.train()
    for mirrored in (True, False):
        monkeypatch.setattr(
            module,
            '_coin',
            lambda like, chosen=mirrored: torch.tensor([chosen] * len(like)).view(-1, 1, 1, 1),
        )
        flipped = model.extract_feat(data['inputs'], data['data_samples'])
        torch.testing.assert_close(flipped, plain, rtol=0, atol=1e-12)
        expected = plain.flip(-1, -2) if mirrored else plain
        torch.testing.assert_close(fused[-1], expected, rtol=0, atol=1e-12)


def test_seeds_are_the_sensors_maps(model):
    data = model.data_preprocessor(cases.batch())
    received = []
    handle = model.fuser.register_forward_pre_hook(lambda _, args: received.append(args))
    with torch.no_grad():
        model(**data, mode='tensor')
        maps = model.sensor_maps(data['inputs'], data['data_samples'])
    handle.remove()
    seeds = model.lmd_seeds()
    assert [seed.modality for seed in seeds] == ['camera', 'radar', 'lidar']
    for seed, expected in zip(seeds, maps, strict=True):
        assert seed.module == 'fuser'
        value = received[0]
        for key in seed.path.split('.'):
            value = value[int(key)]
        assert torch.equal(value, expected)


def test_cameras_are_slices_of_the_lifted_volume(model):
    cameras, *others = model.lmd_seeds('cameras')
    assert (cameras.module, cameras.at, cameras.dim) == ('lift', 'output', 1)
    assert cameras.modalities == module.CAMERAS
    assert others == model.lmd_seeds()[1:]
    received = []
    handle = model.lift.register_forward_hook(lambda *args: received.append(args[2]))
    run(model)
    handle.remove()
    assert received[0].shape == (1, sum(cameras.split.values()), 8, 24, 4, 32)
    with pytest.raises(UnknownNameError, match="'sensors' or 'cameras'"):
        model.lmd_seeds('wheels')


def test_outputs_are_modules_segmentation_first(model):
    assert model.lmd_outputs == ('heads.segmentation', 'heads.center', 'heads.offset')
    received, handles = {}, []
    for path in model.lmd_outputs:
        handles.append(
            model.get_submodule(path).register_forward_hook(
                lambda _, __, output, path=path: received.update({path: output})
            )
        )
    outputs = run(model)
    for handle in handles:
        handle.remove()
    assert all(torch.equal(received[f'heads.{name}'], outputs[name]) for name in outputs)


def _without(key):
    def change(batch):
        del batch['inputs'][key]

    return change


def _meta(**changes):
    def change(batch):
        batch['data_samples'][0].set_metainfo(changes)

    return change


def _drop_meta(name):
    def change(batch):
        batch['data_samples'][0].pop(name)

    return change


def _five_images(batch):
    batch['inputs']['img'] = [batch['inputs']['img'][0][:5]]


def _nan(batch):
    batch['inputs']['radar'][0][3, 2] = float('nan')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (_without('radar'), r"inputs\['radar'\] of the sensor 'radar'.*without it"),
        (_without('points'), r"inputs\['points'\] of the sensor 'lidar'"),
        (_without('img'), r"inputs\['imgs'\] of the sensor 'camera'"),
        (_five_images, r'images \(B, 6, 3, H, W\).*received \(1, 5, 3, 64, 96\)'),
        (_meta(cam2ref=np.tile(np.eye(4), (5, 1, 1))), r"'cam2ref' \(6, 4, 4\).*\(5, 4, 4\)"),
        (_drop_meta('cam2img'), "'cam2img' in the metainfo"),
        (_drop_meta('radar_fields'), "'radar_fields', the names of the columns"),
        (_nan, 'Expected finite points, received 1'),
    ],
)
def test_what_the_model_refuses(model, change, message):
    batch = cases.batch()
    change(batch)
    with pytest.raises(InputError, match=message):
        model(**model.data_preprocessor(batch), mode='tensor')


def test_losses_need_their_ground_truth_on_the_grid(model):
    batch = cases.batch()
    del batch['data_samples'][0].gt_bev_center
    with pytest.raises(InputError, match="'gt_bev_center' in each data sample"):
        model(**model.data_preprocessor(batch), mode='loss')
    other = cases.batch(truth=dict(cases.GRID, x=(-32, 32, 30)))
    with pytest.raises(InputError, match=r'\(24, 32\) of the model, received \(24, 30\)'):
        model(**model.data_preprocessor(other), mode='loss')


def test_sensors_and_heads_of_the_config():
    with pytest.raises(UnknownNameError, match=r"\['sonar'\]: expected among \['radar', 'lidar'\]"):
        cases.small_model(rasterizers=dict(sonar=dict()))
    with pytest.raises(InputError, match="Expected a head 'segmentation'"):
        cases.small_model(heads=dict(center=dict(type='explain3d.BEVCenterHead')))
