"""The same weights in both toolboxes give the same outputs, boxes and saliency.

MMDetection3D's model and OpenPCDet's (the stand-in's where OpenPCDet is not installed) get the
same voxels. Raw outputs, gradients and boxes are compared in float64, where rounding is 1e-16 a
step: what differs by more than 1e-9 is another computation. Saliency runs through the adapters,
in float32.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d', reason='one of the two hosts is MMDetection3D')

from explain3d.adapters.checkpoint_names import BRANCHES  # noqa: E402
from explain3d.adapters.common.spconv_compat import differentiable_sparse_convolutions  # noqa: E402

ROOT = Path(__file__).parents[3]
SECOND, CENTERPOINT = 'second_small_miniworld', 'centerpoint_small_miniworld'
CONFIGS = {SECOND: 'second', CENTERPOINT: 'centerpoint'}
CLASSES = ('Pedestrian', 'Cyclist', 'Car')
_DIFFERENTIATED = ('cls_preds', 'box_preds', 'hm', 'dim', 'rot')
TIGHT = {'rtol': 1e-9, 'atol': 1e-9}


def mmdet3d_model(name):
    from mmdet3d.apis import init_model

    checkpoint = str(ROOT / 'checkpoints' / f'{name}.pth')
    return init_model(str(ROOT / 'configs' / CONFIGS[name] / f'{name}.py'), checkpoint, 'cpu')


def pcdet_model(name, data, checkpoint):
    import logging

    from pcdet.config import EasyDict, cfg_from_yaml_file
    from pcdet.datasets import build_dataloader
    from pcdet.models import build_network

    cfg = cfg_from_yaml_file(str(ROOT / 'configs' / 'pcdet' / f'{name}.yaml'), EasyDict())
    cfg.DATA_CONFIG.DATA_PATH = str(data)
    dataset, _, _ = build_dataloader(
        cfg.DATA_CONFIG, cfg.CLASS_NAMES, batch_size=1, dist=False, workers=0, training=False
    )
    model = build_network(model_cfg=cfg.MODEL, num_class=3, dataset=dataset)
    model.load_params_from_file(str(checkpoint), logger=logging.getLogger(__name__), to_cpu=True)
    return model.eval()


@pytest.fixture(scope='module', params=[SECOND, CENTERPOINT])
def pair(request, pcdet_host, pcdet_kitti, converted):
    """Name, MMDetection3D's model, OpenPCDet's model and a frame's points in its range."""
    name = request.param
    theirs = pcdet_model(name, pcdet_kitti, converted(name))
    points = theirs.dataset[0]['points']
    # OpenPCDet's range is for x and y alone, MMDetection3D's for z too, borders excluded.
    low, high = theirs.dataset.point_cloud_range[:3], theirs.dataset.point_cloud_range[3:]
    points = points[((points[:, :3] > low) & (points[:, :3] < high)).all(1)]
    return name, mmdet3d_model(name), theirs, points


class Run:
    """One pass of both models over the same voxels, in float64, with a graph from a layer up.

    Attributes:
        ours: MMDetection3D's raw outputs under OpenPCDet's names.
        theirs: OpenPCDet's.
        leaves: Both models' sparse features at stride 4.
    """

    def __init__(self, name, mm, pc):
        batch = dict(pc.dataset.collate_batch([pc.dataset[0]]))
        for key in ('voxels', 'voxel_coords', 'voxel_num_points'):
            batch[key] = torch.from_numpy(batch[key]).double()
        self.mm, self.pc, self.batch, self.leaves = mm, pc, batch, []
        second = name == SECOND
        encoder = mm.middle_encoder if second else mm.pts_middle_encoder
        stages = (encoder.encoder_layers.encoder_layer3, pc.backbone_3d.conv3)
        handles = [stage.register_forward_hook(self._leaf) for stage in stages]
        try:
            with differentiable_sparse_convolutions(mm), differentiable_sparse_convolutions(pc):
                self.ours = self._mmdet3d(second)
                # Decoding and suppression are not looked at, and need not know float64.
                pc.dense_head.generate_predicted_boxes = lambda *args, **kwargs: (None, None)
                for module in pc.module_list:
                    batch = module(batch)
        finally:
            for handle in handles:
                handle.remove()
        kept = pc.dense_head.forward_ret_dict
        self.theirs = dict(kept) if second else kept['pred_dicts']

    def _leaf(self, _module, _args, output):
        leaf = output.features.detach().requires_grad_()
        self.leaves.append(output.replace_feature(leaf))
        return self.leaves[-1]

    def _mmdet3d(self, second):
        mm, batch = self.mm, self.batch
        parts = [
            getattr(mm, part if second else f'pts_{part}')
            for part in ('voxel_encoder', 'middle_encoder', 'backbone', 'neck', 'bbox_head')
        ]
        voxel_encoder, encoder, backbone, neck, head = parts
        coords = batch['voxel_coords'].int()
        x = voxel_encoder(batch['voxels'], batch['voxel_num_points'], coords)
        self.raw = head(neck(backbone(encoder(x, coords, 1))))
        if second:
            names = ('cls_preds', 'box_preds', 'dir_cls_preds')
            # A channel is anchor by anchor in both: class, then rotation, then its outputs.
            return {n: maps[0].permute(0, 2, 3, 1) for n, maps in zip(names, self.raw, strict=True)}
        return [{BRANCHES[k]: v for k, v in task[0].items()} for task in self.raw]


@pytest.fixture(scope='module')
def run(pair):
    name, mm, pc, _ = pair
    # The data set is kept: its compiled voxel generator cannot be copied.
    theirs = copy.deepcopy(pc, {id(pc.dataset): pc.dataset})
    return Run(name, copy.deepcopy(mm).double(), theirs.double())


def outputs(run):
    """Pairs of raw outputs by name, the documented permutation applied."""
    if isinstance(run.ours, dict):
        assert run.ours.keys() == run.theirs.keys()
        return {k: (run.ours[k], run.theirs[k]) for k in run.ours}
    pairs = {}
    for i, (ours, theirs) in enumerate(zip(run.ours, run.theirs, strict=True)):
        assert ours.keys() == theirs.keys()
        for k in ours:
            # MMDetection3D has the sine first, OpenPCDet the cosine.
            pairs[f'{i}.{k}'] = (ours[k][:, [1, 0]] if k == 'rot' else ours[k], theirs[k])
    return pairs


def test_raw_outputs_are_equal(run):
    pairs = outputs(run)
    assert len(pairs) in (3, 18)
    for name, (ours, theirs) in pairs.items():
        assert ours.dtype == theirs.dtype == torch.float64
        assert float(ours.detach().std()) > 1e-3, name
        torch.testing.assert_close(ours, theirs, **TIGHT, msg=lambda m, name=name: f'{name}: {m}')


def test_gradients_at_stride_4_are_equal(run):
    ours, theirs = run.leaves
    assert torch.equal(ours.indices, theirs.indices)
    torch.testing.assert_close(ours.features, theirs.features, **TIGHT)
    # The highest score of each class or head, and the largest of some box outputs, at once: the
    # graph is walked once in each host.
    pairs = [v for k, v in outputs(run).items() if k.split('.')[-1] in _DIFFERENTIATED]
    assert len(pairs) in (2, 9)
    sums = [0.0, 0.0]
    for a, b in pairs:
        best = int(a.detach().flatten().argmax())
        sums = [sums[0] + a.flatten()[best], sums[1] + b.flatten()[best]]
    (one,) = torch.autograd.grad(sums[0], ours.features)
    (other,) = torch.autograd.grad(sums[1], theirs.features)
    assert int((one.abs().sum(1) > 0).sum()) > 10
    torch.testing.assert_close(one, other, **TIGHT)


def test_decoded_boxes_are_equal(pair):
    """Every detection of MMDetection3D is one of OpenPCDet's anchors or cells, box for box."""
    name, mm, pc, points = pair
    ours = mmdet3d_detections(mm, points)
    boxes, scores = all_candidates(name, pc, points)
    assert len(ours.boxes) > 10
    for box, score, label in zip(ours.boxes, ours.scores, ours.labels, strict=True):
        gap = (scores[:, label] - score).abs()
        same = (gap < 1e-5).nonzero().flatten()
        assert len(same) > 0
        difference = boxes[same, :7] - box
        turns = difference[:, 6] / (2 * np.pi)
        difference[:, 6] = (turns - turns.round()) * 2 * np.pi
        # float32: anchors as linspace or arange, boxes decoded from a bottom or a mid centre.
        assert float(difference.abs().amax(1).min()) < 1e-4


def mmdet3d_detections(model, points):
    from mmdet3d.apis import inference_detector

    from explain3d.adapters.mmdet3d.frames import detections_of

    sample, _ = inference_detector(model, points.copy())
    return detections_of(sample, CLASSES, 'frame')


def all_candidates(name, model, points):
    """Boxes (A, 7) and scores (A, 3) of all anchors, or of what the heat map is decoded to."""
    batch = pcdet_batch(model, points)
    with torch.no_grad():
        found, _ = model(batch)
    if name == SECOND:
        return batch['batch_box_preds'][0], batch['batch_cls_preds'][0].sigmoid()
    head, raw = model.dense_head, model.dense_head.forward_ret_dict['pred_dicts']
    loose = head.model_cfg.POST_PROCESSING
    boxes, scores = [], []
    from pcdet.models.model_utils import centernet_utils

    for task, maps in enumerate(raw):
        made = centernet_utils.decode_bbox_from_heatmap(
            heatmap=maps['hm'].sigmoid(), rot_cos=maps['rot'][:, :1], rot_sin=maps['rot'][:, 1:],
            center=maps['center'], center_z=maps['center_z'], dim=maps['dim'].exp(), K=200,
            point_cloud_range=head.point_cloud_range, voxel_size=head.voxel_size,
            feature_map_stride=head.feature_map_stride,
            post_center_limit_range=torch.tensor(loose.POST_CENTER_LIMIT_RANGE),
        )[0]  # fmt: skip
        row = torch.zeros(len(made['pred_scores']), 3)
        row[:, task] = made['pred_scores']
        boxes.append(made['pred_boxes'])
        scores.append(row)
    return torch.cat(boxes), torch.cat(scores)


def pcdet_batch(model, points):
    from pcdet.models import load_data_to_gpu

    item = model.dataset.prepare_data({'points': points.copy(), 'frame_id': 'frame'})
    batch = model.dataset.collate_batch([item])
    load_data_to_gpu(batch)
    return batch


def test_saliency_of_the_same_detections_is_equal(pair):
    from explain3d.adapters.mmdet3d import explain as explain_mmdet3d
    from explain3d.adapters.pcdet import explain as explain_pcdet

    name, mm, pc, points = pair
    settings = {'layer': 'stride4', 'rank': 8, 'targets': ['all', 'score']}
    settings['select'] = {'score_thr': 0.3, 'top_n': 3}
    ours = explain_mmdet3d(mm, points, **settings)
    theirs = explain_pcdet(pc, points, **settings)
    pairs = matched(ours.detections, theirs.detections)
    assert len(pairs) == 3  # the NMS of the two differ, but not on the best ones
    np.testing.assert_array_equal(ours.points[:, :3], theirs.points[:, :3])
    for target, maps in ours.maps.saliency.items():
        for i, j in pairs:
            a, b = maps[i], theirs.maps.saliency[target][j]
            peak = float(a.abs().max())
            assert peak > 0
            # Rounding alone: in float64 the gradients are equal (above). In float32 each of some
            # twenty layers rounds by 6e-8 of a sum's largest term; 2e-7 of the peak were seen.
            assert float((a - b).abs().max()) < 1e-5 * peak, (target, i, j)


def matched(ours, theirs):
    """Pairs of detections of one anchor or cell: the same class, score and box."""
    pairs = []
    for i in range(len(ours)):
        close = (theirs.labels == ours.labels[i]) & ((theirs.scores - ours.scores[i]).abs() < 1e-5)
        close &= (theirs.boxes[:, :6] - ours.boxes[i, :6]).abs().amax(1) < 1e-3
        if close.any():
            pairs.append((i, int(close.nonzero()[0])))
    return pairs


def test_as_black_boxes_they_give_the_same_candidates_of_parts_of_a_cloud(pair):
    """So Deletion, Insertion and OccAM ask both the same, in windows too."""
    from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox
    from explain3d.adapters.pcdet.black_box import PcdetBlackBox
    from explain3d.core.black_box import Region

    _, mm, pc, points = pair
    points = torch.from_numpy(points)
    boxes = MMDet3DBlackBox(mm), PcdetBlackBox(pc)
    ours, theirs = (box.candidates([points], 0.3)[0] for box in boxes)
    best = int(ours.scores.argmax())
    x, y = ours.boxes[best, :2].tolist()
    region = Region(x, y, 4.0, int(ours.labels[best]))
    near = (points[:, :2] - torch.tensor([x, y])).norm(dim=1) < region.radius
    some = torch.rand(len(points), generator=torch.Generator().manual_seed(0)) < 0.6
    clouds = [points, points[~near | some], points[~near]]
    found = [box.candidates_in(clouds, [region], 0.02, points) for box in boxes]
    assert abs(boxes[0].cost([region], points) - boxes[1].cost([region], points)) < 0.1
    pairs = [(ours, theirs), *((a[0], b[0]) for a, b in zip(*found, strict=True))]
    assert [len(a) > 3 for a, _ in pairs[:3]] == [True] * 3
    for a, b in pairs:
        # Scores on the threshold may fall on either side of it.
        assert abs(len(a) - len(b)) <= 1
        a, b = (torch.cat([d.boxes, d.scores[:, None], d.labels[:, None]], 1) for d in (a, b))
        if len(a) and len(b):
            distance = torch.cdist(a, b, p=float('inf'))
            near = [distance.amin(axis).sort().values for axis in (0, 1)]
            assert max(float(values[: min(len(a), len(b)) - 1].max()) for values in near) < 1e-2
