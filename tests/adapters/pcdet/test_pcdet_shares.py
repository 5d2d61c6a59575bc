"""Which sensor made which part of a box, with the interfaces of OpenPCDet's BevFusion."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from explain3d.adapters.pcdet.lmd import ShareDecomposer, sensor_report, sensor_shares
from explain3d.adapters.pcdet.lmd.blanks import without
from explain3d.adapters.pcdet.lmd.proposals import seeds_of
from explain3d.core.errors import InputError, NotApplicableError, UnknownNameError
from explain3d.core.results import ResultStore, SettingsMismatchError
from explain3d.lmd import Decomposition
from explain3d.lmd.tags import FrameTags, write_tags
from tests.helpers import toy_fusion as toy

LEVELS = ('sensors', 'branches')
IMAGE = (32, 48)
NORMALISE = dict(NAME='image_normalize', mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.2])


class VTransform(toy.ViewTransform):
    """Image features and points to a map, rows along y."""

    def forward(self, batch):
        points = batch['points']
        frames = [points[points[:, 0] == i, 1:] for i in range(batch['batch_size'])]
        x = batch['image_fpn'][0].unflatten(0, (batch['batch_size'], -1))
        batch['spatial_features_img'] = super().forward(x, frames, IMAGE).permute(0, 1, 3, 2)
        return batch


class VoxelMap(nn.Module):
    """The means of the voxels' points, two of their channels, as a map."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(True))

    def forward(self, batch):
        mean = batch['voxels'].sum(1) / batch['voxel_num_points'][:, None]
        frame, _, y, x = batch['voxel_coords'].long().T
        canvas = mean.new_zeros(batch['batch_size'], toy.CELLS, toy.CELLS, 2)
        canvas[frame, y, x] = mean[:, 2:4] + 0.5
        batch['spatial_features'] = self.net(canvas.permute(0, 3, 1, 2))
        return batch


class Fuser(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = toy.Fuser((4, 5), toy.WIDTH)

    def forward(self, batch):
        maps = [batch['spatial_features_img'], batch['spatial_features']]
        batch['spatial_features'] = self.conv(maps)
        return batch


class Backbone2D(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(toy.WIDTH, toy.WIDTH, 3, padding=1), nn.ReLU(True))

    def forward(self, batch):
        batch['spatial_features_2d'] = self.net(batch['spatial_features'])
        return batch


class TransFusionHead(nn.Module):
    """Queries from the peaks of a heat map, boxes from queries; rows along y, places are x, y."""

    feature_map_stride, voxel_size = 4, [toy.SIZE / 4] * 3
    point_cloud_range = [toy.LOW, toy.LOW, -3, -toy.LOW, -toy.LOW, 3]

    def __init__(self):
        super().__init__()
        self.shared_conv = nn.Conv2d(toy.WIDTH, toy.WIDTH, 3, padding=1)
        self.heatmap_head = nn.Conv2d(toy.WIDTH, toy.CLASSES, 3, padding=1)
        self.class_encoding = nn.Conv1d(toy.CLASSES, toy.WIDTH, 1)
        self.decoder, self.prediction_head = toy.Decoder(), toy.Predictions()
        grid = torch.arange(toy.CELLS) + 0.5
        self.bev_pos = torch.cartesian_prod(grid, grid)[None]

    def predict(self, x):
        shared = self.shared_conv(x)
        key, heat = shared.flatten(2), self.heatmap_head(shared)
        score = heat.detach().sigmoid()
        peaks = (score * (score == F.max_pool2d(score, 3, 1, 1))).flatten(2)
        top = peaks.flatten(1).argsort(-1, descending=True)[:, : toy.QUERIES]
        self.query_labels, cell = top // toy.CELLS**2, top % toy.CELLS**2
        query = key.gather(2, cell[:, None].expand(-1, toy.WIDTH, -1))
        one_hot = F.one_hot(self.query_labels, toy.CLASSES).transpose(1, 2)
        query += self.class_encoding(one_hot.to(query.dtype))
        grid = self.bev_pos.to(query.dtype).repeat(len(query), 1, 1)
        places = grid.gather(1, cell[..., None].expand(-1, -1, 2)).flip(-1)
        found = self.prediction_head(self.decoder(query, key, places, grid.flip(-1)))
        found['center'] = found['center'] + places.transpose(1, 2)
        found['query_heatmap_score'] = peaks.gather(2, cell[:, None].expand(-1, toy.CLASSES, -1))
        return {**found, 'dense_heatmap': heat}

    def get_bboxes(self, out):
        chosen = F.one_hot(self.query_labels, toy.CLASSES).transpose(1, 2)
        score, label = (out['heatmap'].sigmoid() * out['query_heatmap_score'] * chosen).max(1)
        out['center'] *= toy.SIZE  # In place, as OpenPCDet's.
        out['center'] += toy.LOW
        yaw = torch.atan2(out['rot'][:, :1], out['rot'][:, 1:])
        boxes = torch.cat([out['center'], out['height'], out['dim'].exp(), yaw, out['vel']], 1)
        return [
            dict(pred_boxes=b.T, pred_scores=s, pred_labels=n.int() + 1)
            for b, s, n in zip(boxes, score, label, strict=True)
        ]

    def forward(self, batch):
        batch['final_box_dicts'] = self.get_bboxes(self.predict(batch['spatial_features_2d']))
        return batch


class BevFusion(nn.Module):
    class_names = ('car', 'bus', 'pedestrian')

    def __init__(self):
        super().__init__()
        self.backbone_3d = VoxelMap()
        self.image_backbone = nn.Sequential(nn.Conv2d(3, 6, 5, 4, 2), nn.ReLU(True))
        self.vtransform, self.fuser = VTransform(), Fuser()
        self.backbone_2d, self.dense_head = Backbone2D(), TransFusionHead()
        self.dataset = SimpleNamespace(
            dataset_cfg=dict(DATA_PROCESSOR=[NORMALISE]),
            collate_batch=lambda items: batch_of(*(item['index'] for item in items)),
        )

    def forward(self, batch):
        batch['image_fpn'] = (self.image_backbone(batch['camera_imgs'].flatten(0, 1)),)
        for part in (self.backbone_3d, self.vtransform, self.fuser, self.backbone_2d):
            batch = part(batch)
        return self.dense_head(batch)['final_box_dicts'], {}


def build():
    torch.manual_seed(0)
    return toy.randomised(BevFusion().eval().requires_grad_(False))


def batch_of(*indices, dtype=np.float32):
    """A batch as OpenPCDet collates it: a voxel for each cell that has points."""
    points, voxels, coords, images = [], [], [], []
    for i, index in enumerate(indices):
        rng = np.random.default_rng(index)
        cloud = rng.uniform([-11, -11, -2, 0], [11, 11, 1, 1], (60, 4)).astype(dtype)
        cells = ((cloud[:, :2] - toy.LOW) / toy.SIZE).astype(int)
        _, first = np.unique(cells, axis=0, return_index=True)
        points.append(np.concatenate([np.full((60, 1), i, dtype), cloud], 1))
        voxels.append(np.stack([cloud[first], 0 * cloud[first]], 1))
        frame = np.full(len(first), i)
        coords.append(np.stack([frame, 0 * frame, cells[first, 1], cells[first, 0]], 1))
        images.append(rng.standard_normal((2, 3, *IMAGE)).astype(dtype))
    voxels = np.concatenate(voxels)
    return dict(
        batch_size=len(indices), frame_id=np.array([f'f{i}' for i in indices]),
        points=np.concatenate(points), voxels=voxels, voxel_coords=np.concatenate(coords),
        voxel_num_points=np.ones(len(voxels), dtype), camera_imgs=np.stack(images),
    )  # fmt: skip


def tensors(batch, dtype=torch.float32):
    return {k: torch.from_numpy(v).to(dtype) if k not in ('batch_size', 'frame_id') else v
            for k, v in batch.items()}  # fmt: skip


@pytest.fixture(scope='module')
def case():
    model = build()
    plain = model(tensors(batch_of(0, 1)))[0]
    shares = {
        level: ShareDecomposer(model, level, mode='check', score_thr=0.01).decompose(
            tensors(batch_of(0, 1))
        )
        for level in LEVELS
    }
    return model, plain, shares


@pytest.mark.parametrize('level', LEVELS)
def test_boxes_are_the_models_own_and_raw_outputs_decode_to_them(case, level):
    _, plain, shares = case
    predicted, frames = shares[level]
    for before, after, frame in zip(plain, predicted, frames, strict=True):
        assert all(torch.equal(before[key], after[key]) for key in before)
        parts, boxes = frame.parts, frame.detections.boxes
        assert len(parts) >= 5
        assert parts.names == ('camera', 'lidar', 'bias')
        assert parts.attributes[:3] == ('logit', 'heatmap_logit', 'query')
        assert parts.conservation_error() < 1e-5
        assert parts.residual < 1e-5
        assert parts.parts.abs().amax((0, 2)).min() > 1e-3
        value = {name: parts.of_value(name) for name in parts.attributes}
        score = value['logit'].sigmoid() * value['heatmap_logit'].sigmoid()
        torch.testing.assert_close(score, frame.detections.scores)
        places = (boxes[:, :2] - toy.LOW) / toy.SIZE
        cells = places - torch.stack([value['dx'], value['dy']], 1) - 0.5
        torch.testing.assert_close(cells, cells.round(), rtol=0, atol=1e-5)
        torch.testing.assert_close(value['z'], boxes[:, 2])
        size = torch.stack([value[f'log_{n}'] for n in 'lwh'], 1).exp()
        torch.testing.assert_close(size, boxes[:, 3:6])


@pytest.mark.parametrize('level', LEVELS)
def test_conservation_in_float64(level):
    model = build().double()
    batch = tensors(batch_of(0), torch.float64)
    outputs = ['dense_head.heatmap_head', 'dense_head.prediction_head']
    with (
        torch.no_grad(),
        Decomposition(model, seeds_of(model, level), outputs, mode='check') as run,
    ):
        model(dict(batch))
    assert run.residual < 1e-12
    assert len(run.outputs) == 1 + len(toy.Predictions.kinds)
    for found in run.outputs.values():
        assert found.conservation_error() < 1e-12
        assert found.parts.flatten(1).any(1).all()


def test_the_camera_branch_holds_lidar_and_sensors_tell_them_apart():
    model = build()
    model.fuser.conv[0].weight[:, 4:] = 0  # The LiDAR's own branch does not matter.
    batch = tensors(batch_of(0))
    (sensors,), (branches,) = (
        ShareDecomposer(model, level, blank=(), score_thr=0.01).decompose(batch)[1]
        for level in LEVELS
    )
    assert not branches.parts.parts[:, 1].any()
    assert sensors.parts.parts[:, 1].abs().amin() > 0


def test_a_camera_that_provably_does_not_matter_has_no_share_and_blanking_it_changes_nothing():
    model = build()
    model.fuser.conv[0].weight[:, :4] = 0
    for frame in ShareDecomposer(model, score_thr=0.01).decompose(tensors(batch_of(0, 1)))[1]:
        assert not frame.parts.parts[:, 0].any()
        assert torch.equal(frame.effects['camera'].raw, frame.parts.value)
        assert frame.effects['camera'].found.all()
        assert not torch.equal(frame.effects['lidar'].raw, frame.parts.value)


def test_frames_without_detections():
    for frame in ShareDecomposer(build(), score_thr=2.0).decompose(tensors(batch_of(0, 1)))[1]:
        assert frame.parts.parts.shape[:2] == (0, 3)
        assert len(frame.effects['camera'].raw) == 0


def test_a_batch_without_a_sensor():
    model, batch = build(), tensors(batch_of(0, 1))
    dark = without(model, batch, 'camera')['camera_imgs']
    black = -torch.tensor(NORMALISE['mean']) / torch.tensor(NORMALISE['std'])
    torch.testing.assert_close(dark, black[:, None, None].expand_as(dark))
    found = without(model, batch, 'lidar')
    assert found['voxel_coords'][:, 0].tolist() == [0, 1]
    for i in range(2):
        own = batch['voxels'][batch['voxel_coords'][:, 0] == i, 0]
        farthest = own[own[:, :2].norm(dim=1).argmax()]
        assert torch.equal(found['points'][i, 1:], farthest)
        assert torch.equal(found['voxels'][i, 0], farthest)
        assert not found['voxels'][i, 1:].any()
    with pytest.raises(InputError, match="to blank 'radar'"):
        without(model, batch, 'radar')


def test_from_python_it_is_the_same_and_the_model_stays_as_it_was(case):
    _, _, shares = case
    model = build().train()
    before = dict(vars(model.dense_head))
    batch = batch_of(0, 1)
    found = sensor_shares(model, batch, score_thr=0.01)
    assert model.training
    assert set(vars(model.dense_head)) == set(before)
    for one, frame in zip(found, shares['sensors'][1], strict=True):
        assert one.frame_id == frame.frame_id
        torch.testing.assert_close(one.parts.parts, frame.parts.parts, rtol=1e-3, atol=1e-4)
    alone = sensor_shares(model, dict(index=1), score_thr=0.01, blank=())
    torch.testing.assert_close(alone.parts.value, found[1].parts.value, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match='points without images'):
        sensor_shares(model, np.zeros((5, 4)))


def test_what_is_not_known_is_refused():
    model = build()
    with pytest.raises(UnknownNameError, match="level 'cameras'.*'sensors', 'branches'"):
        seeds_of(model, 'cameras')
    with pytest.raises(UnknownNameError, match=r"\['radar'\] to blank"):
        ShareDecomposer(model, blank=['radar'])
    del model.vtransform
    with pytest.raises(NotApplicableError, match='has no fuser and vtransform'):
        seeds_of(model, None)
    model.dense_head = nn.Identity()
    with pytest.raises(NotApplicableError, match='expected a TransFusionHead'):
        ShareDecomposer(model)


def test_a_report_over_a_data_set_goes_on_where_it_stopped(tmp_path, monkeypatch):
    model, items = build(), [dict(index=i) for i in (0, 1, 2)]
    write_tags(tmp_path / 'tags.json', {'f1': FrameTags({'weather': 'rain'})})
    options = dict(out_dir=tmp_path / 'out', tags=tmp_path / 'tags.json', score_thr=0.01)
    table = sensor_report(model, items, 'branches', frames=2, **options)
    files = {path.name for path in (tmp_path / 'out').iterdir()}
    assert files == {'frames', 'report.md', 'report.csv', 'report.json', 'report.png'}
    alone = [sensor_shares(model, item, 'branches', score_thr=0.01) for item in items]
    everything, rain = table.groups[0], table.groups[-1]
    assert everything.boxes == sum(len(frame.parts) for frame in alone[:2])
    assert (rain.tag, rain.boxes) == (('weather', 'rain'), len(alone[1].parts))
    shares = torch.cat([frame.parts.shares('logit') for frame in alone[:2]]).nanmean(0)
    assert list(everything.shares.values()) == pytest.approx(shares.tolist(), rel=1e-5)
    assert table.protocol['frames with tags'] == 1
    assert [frame.frame_id for frame in ResultStore(tmp_path / 'out/frames')] == ['f0', 'f1']
    done, decompose = [], ShareDecomposer.decompose

    def counting(self, batch):
        done.append(str(batch['frame_id'][0]))
        return decompose(self, batch)

    monkeypatch.setattr(ShareDecomposer, 'decompose', counting)
    assert sensor_report(model, items, 'branches', **options).groups[0].boxes > everything.boxes
    assert done == ['f2']
    page = (Path(__file__).parents[3] / 'docs/sensor_shares.md').read_text('utf-8')
    (example,) = re.findall(r'```python\n(from explain3d.adapters.pcdet .*?)```', page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = dict(model=model, dataset=items[:1])
    example = example.replace('score_thr=0.2', 'score_thr=0.01')  # Its weights are random.
    exec(example.replace('out_dir=', 'score_thr=0.01, out_dir='), names)
    assert names['table'].groups[0].boxes == len(names['frame'].parts) > 0
    assert (tmp_path / 'work_dirs/sensors/report.md').exists()
    write_tags(tmp_path / 'tags.json', {'elsewhere': FrameTags()})
    with pytest.raises(InputError, match="such as 'elsewhere'"):
        sensor_report(model, items, 'branches', **options)


def test_a_stored_frame_is_of_its_inputs_and_has_todays_class_names(tmp_path, monkeypatch):
    model, options = build(), dict(out_dir=tmp_path, blank=(), score_thr=0.01)
    done, decompose = [], ShareDecomposer.decompose

    def counting(self, batch):
        done.append('-' if batch['frame_id'] is None else str(batch['frame_id'][0]))
        return decompose(self, batch)

    def stored():
        return list(ResultStore(tmp_path / 'frames'))

    monkeypatch.setattr(ShareDecomposer, 'decompose', counting)
    sensor_report(model, [dict(index=0), dict(index=1)], **options)
    assert done == ['f0', 'f1']
    model.class_names = ('van', *model.class_names[1:])
    sensor_report(model, [dict(index=0), dict(index=1)], **options)
    assert done == ['f0', 'f1']
    assert {found.detections.class_names for found in stored()} == {model.class_names}
    collate = model.dataset.collate_batch

    def all_called_f0(items):
        return {**collate(items), 'frame_id': np.array(['f0'])}

    model.dataset.collate_batch = all_called_f0
    sensor_report(model, [dict(index=2)], **options)  # Other inputs under a known name.
    assert done == ['f0', 'f1', 'f0']
    with pytest.raises(InputError, match="Two frames are called 'f0'.*frame_id of its own"):
        sensor_report(model, [dict(index=2), dict(index=1)], **options)
    model.dataset.collate_batch = lambda items: {**collate(items), 'frame_id': None}
    sensor_report(model, [dict(index=0), dict(index=1)], **{**options, 'out_dir': tmp_path / 'b'})
    names = [found.frame_id for found in ResultStore(tmp_path / 'b/frames')]
    assert names == ['frame_000000', 'frame_000001']
    with pytest.raises(SettingsMismatchError, match='belongs to another run.*score_thr'):
        sensor_report(model, [dict(index=0)], **{**options, 'score_thr': 0.5})
