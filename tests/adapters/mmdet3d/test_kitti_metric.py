"""KITTI AP on a CPU against the stock CUDA kernel (simulated), geometry, and known answers."""

import gc
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from shapely.geometry import Polygon

pytest.importorskip('mmdet3d')

from mmdet3d.evaluation.functional.kitti_utils import eval as kitti_eval_module
from mmdet3d.evaluation.functional.kitti_utils import kitti_eval
from mmdet3d.structures import Box3DMode, CameraInstance3DBoxes, LiDARInstance3DBoxes
from mmengine.registry import METRICS

from explain3d.adapters.mmdet3d.kitti_counts import (
    CountProtocol,
    camera_to_lidar_axes,
    count_kitti,
)
from explain3d.adapters.mmdet3d.kitti_iou import _STOCK_MODULE, cpu_rotate_iou, rotate_iou_eval
from explain3d.adapters.mmdet3d.kitti_metric import KittiMetricCPU, ap_bounds
from explain3d.core.boxes import bev_iou, iou_3d
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.metrics.detection_counts import DetectionCounts

CRITERIA = (-1, 0, 1, 2)
CLASSES = ('Pedestrian', 'Cyclist', 'Car')
CATEGORIES = {'Pedestrian': 0, 'Cyclist': 1, 'Car': 2, 'Van': 3, 'Person_sitting': 5}
LIDAR2CAM = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
CAM2IMG = np.array([[700, 0, 620, 0], [0, 700, 187, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)
SIZES = {'Car': (4.0, 1.6, 1.5), 'Pedestrian': (0.8, 0.6, 1.7), 'Cyclist': (1.8, 0.6, 1.7)}

# Numba's simulator runs the stock CUDA kernel, so the stock evaluation is its own oracle.
STOCK = """
import pickle, sys
import explain3d.adapters.mmdet3d.kitti_metric
rotate_iou = 'mmdet3d.evaluation.functional.kitti_utils.rotate_iou'
answer = {'loaded by us': rotate_iou in sys.modules}
from mmdet3d.evaluation.functional.kitti_utils import eval as stock
from mmdet3d.evaluation.functional.kitti_utils.rotate_iou import rotate_iou_gpu_eval
with open(sys.argv[1], 'rb') as file:
    task = pickle.load(file)
a, b = task['boxes']
flat = [0, 2, 3, 5, 6]
answer |= {
    'bev': {c: rotate_iou_gpu_eval(a[:, flat], b[:, flat], c) for c in (-1, 0, 1, 2)},
    '3d': {c: stock.d3_box_overlap(a, b, c) for c in (-1, 0, 1, 2)},
    'ap': stock.kitti_eval(task['objects'], task['detections'], task['classes']),
}
with open(sys.argv[2], 'wb') as file:
    pickle.dump(answer, file)
"""


def random_camera_boxes(count, seed):
    """(K, 7) boxes x, y, z, l, h, w, rotation_y that mostly overlap each other."""
    random = np.random.default_rng(seed)
    return random.uniform([-2, 1, 8, 1, 1, 1, -4], [2, 2, 12, 5, 2, 3, 4], (count, 7))


def annotation(names, boxes, scores=None):
    """A frame's annotation from camera boxes; image boxes are made up to follow the location."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    left = 600 + 40 * boxes[:, 0]
    top = 10 * boxes[:, 2]
    return {
        'name': np.array(names),
        'truncated': np.zeros(len(boxes)),
        'occluded': np.zeros(len(boxes), dtype=int),
        'alpha': boxes[:, 6] - np.arctan2(boxes[:, 0], boxes[:, 2]),
        'bbox': np.stack([left, top, left + 90, top + 60], axis=1),
        'dimensions': boxes[:, 3:6],
        'location': boxes[:, :3],
        'rotation_y': boxes[:, 6],
        'score': np.ones(len(boxes)) if scores is None else np.asarray(scores),
    }


def detected(names, boxes, scores=None):
    """A frame's detections: in float32, as the stock metric has them."""
    anno = annotation(names, boxes, scores)
    return {
        key: value.astype(np.float32) if value.dtype == np.float64 else value
        for key, value in anno.items()
    }


def random_frames(count, seed):
    """Objects and blurred detections of them, with false alarms, misses and other classes."""
    random = np.random.default_rng(seed)
    objects, detections = [], []
    for _ in range(count):
        number = random.integers(3, 7)
        boxes = random.uniform([-20, 1, 5, 1, 1, 1, -3], [20, 2, 40, 5, 2, 3, 3], (number, 7))
        names = random.choice(
            ['Car', 'Van', 'Pedestrian', 'Cyclist', 'Truck'], number, p=[0.4, 0.1, 0.25, 0.15, 0.1]
        )
        objects.append(annotation(names, boxes))
        found = boxes[: number - 1] + random.normal(0, 0.06, (number - 1, 7))
        names = [name if name in CLASSES else 'Car' for name in names[: number - 1]] + ['Car']
        found = np.concatenate([found, boxes[:1] + 6])
        detections.append(detected(names, found, random.uniform(0.1, 1, number)))
    return objects, detections


@pytest.fixture(autouse=True)
def _little_to_collect():
    """The stock evaluation collects garbage thrice; numba's objects make that half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope='module')
def task():
    objects, detections = random_frames(8, seed=0)
    return {
        'boxes': (
            random_camera_boxes(7, seed=1).astype(np.float32),
            random_camera_boxes(6, seed=2),
        ),
        'objects': objects,
        'detections': detections,
        'classes': list(CLASSES),
    }


@pytest.fixture(scope='module')
def stock(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp('stock')
    (folder / 'task.pkl').write_bytes(pickle.dumps(task))
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', STOCK, folder / 'task.pkl', folder / 'answer.pkl'],
        env={**os.environ, 'NUMBA_ENABLE_CUDASIM': '1', 'NUMBA_DISABLE_JIT': '1'},
        check=True,
        capture_output=True,
    )
    return pickle.loads((folder / 'answer.pkl').read_bytes())


class TestAgainstTheStockKernel:
    def test_our_import_does_not_load_it(self, stock):
        assert not stock['loaded by us']

    @pytest.mark.parametrize('criterion', CRITERIA)
    def test_rotated_overlap(self, task, stock, criterion):
        a, b = (boxes[:, [0, 2, 3, 5, 6]] for boxes in task['boxes'])
        ours = rotate_iou_eval(a, b, criterion)
        expected = stock['bev'][criterion]
        assert ours.dtype == expected.dtype
        assert (expected > 0.1).sum() > 20
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)  # The kernel is float32.

    @pytest.mark.parametrize('criterion', CRITERIA)
    def test_overlap_of_volumes(self, task, stock, criterion):
        with cpu_rotate_iou():
            ours = kitti_eval_module.d3_box_overlap(*task['boxes'], criterion)
        np.testing.assert_allclose(ours, stock['3d'][criterion], rtol=0, atol=2e-5)

    def test_average_precision(self, task, stock):
        table, values = stock['ap']
        with cpu_rotate_iou():
            our_table, our_values = kitti_eval(task['objects'], task['detections'], task['classes'])
        assert our_values == values
        assert our_table == table
        assert 'aos  AP40' in table
        assert sum(0 < value < 100 for value in values.values()) > 20


class TestAgainstGeometry:
    """The stock boxes' own corners say where they lie and which way they turn."""

    a, b = random_camera_boxes(12, seed=3).astype(np.float32), random_camera_boxes(11, seed=4)

    def shared(self):
        """Areas by shapely from the corners that CameraInstance3DBoxes has; shared heights."""
        polygons = []
        for boxes in (self.a, self.b):
            corners = CameraInstance3DBoxes(boxes).corners.double()
            # x0y0z0, x0y0z1, x1y0z1, x1y0z0: the upper face, in order around it.
            polygons.append([Polygon(face[[0, 1, 5, 4]][:, [0, 2]]) for face in corners])
        area = np.array([[p.intersection(q).area for q in polygons[1]] for p in polygons[0]])
        bottom = np.minimum(self.a[:, None, 1], self.b[:, 1])
        top = np.maximum(self.a[:, None, 1] - self.a[:, None, 4], self.b[:, 1] - self.b[:, 4])
        return area, np.clip(bottom - top, 0, None)

    @pytest.mark.parametrize('criterion', CRITERIA)
    def test_rotated_overlap(self, criterion):
        area, _ = self.shared()
        own, query = (boxes[:, 3] * boxes[:, 5] for boxes in (self.a, self.b))
        reference = {-1: own[:, None] + query - area, 0: query, 1: own[:, None], 2: 1.0}
        flat = [0, 2, 3, 5, 6]
        ours = rotate_iou_eval(self.a[:, flat], self.b[:, flat], criterion)
        np.testing.assert_allclose(ours, area / reference[criterion], rtol=2e-6, atol=2e-6)

    def test_overlap_of_volumes(self):
        area, height = self.shared()
        volume = area * height
        own, query = (boxes[:, 3:6].prod(axis=1) for boxes in (self.a, self.b))
        with cpu_rotate_iou():
            ours = kitti_eval_module.d3_box_overlap(self.a, self.b)
        expected = volume / (own[:, None] + query - volume)
        np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6)

    def test_our_axes_keep_the_overlap(self):
        ours = [
            camera_to_lidar_axes(boxes[:, :3], boxes[:, 3:6], boxes[:, 6])
            for boxes in (self.a, self.b)
        ]
        area, height = self.shared()
        own, query = (boxes[:, 3:6].prod(axis=1) for boxes in (self.a, self.b))
        volume = area * height
        expected = volume / (own[:, None] + query - volume)
        np.testing.assert_allclose(iou_3d(*ours), expected, rtol=2e-6, atol=2e-6)

    def test_our_axes_are_the_lidars(self):
        boxes = CameraInstance3DBoxes(self.a)
        lidar = boxes.convert_to(Box3DMode.LIDAR, np.linalg.inv(LIDAR2CAM), correct_yaw=True)
        ours = camera_to_lidar_axes(self.a[:, :3], self.a[:, 3:6], self.a[:, 6])
        np.testing.assert_allclose(ours[:, :3], lidar.gravity_center, atol=1e-5)
        np.testing.assert_allclose(ours[:, 3:6], lidar.dims, atol=1e-6)
        overlap = bev_iou(ours, torch.cat([lidar.gravity_center, lidar.tensor[:, 3:]], 1).double())
        np.testing.assert_allclose(overlap.diagonal(), 1, atol=1e-5)
        np.testing.assert_allclose(np.cos(ours[:, 6] - lidar.yaw), 1, atol=1e-6)


class TestRotatedOverlap:
    def test_boxes_that_are_not_finite_or_empty_overlap_nothing(self):
        box = np.array([[1.0, 2, 4, 2, 0.3]])
        for bad in ([np.nan, 2, 4, 2, 0], [1, 2, np.inf, 2, 0], [1, 2, 0, 0, 0], [1, 2, -1, -1, 0]):
            for criterion in CRITERIA:
                assert rotate_iou_eval(np.array([bad]), box, criterion) == 0
                assert rotate_iou_eval(box, np.array([bad]), criterion) == 0
                assert rotate_iou_eval(np.array([bad]), np.array([bad]), criterion) == 0

    @pytest.mark.parametrize(('count', 'queries'), [(0, 0), (0, 2), (2, 0)])
    def test_no_boxes(self, count, queries):
        assert rotate_iou_eval(np.zeros((count, 5)), np.zeros((queries, 5))).shape == (
            count,
            queries,
        )


class TestSubstitution:
    def stock_module(self):
        return sys.modules.get(_STOCK_MODULE)

    @pytest.fixture(params=['not loaded', 'loaded'])
    def before(self, request, monkeypatch):
        if request.param == 'loaded':
            monkeypatch.setitem(sys.modules, _STOCK_MODULE, type(sys)(_STOCK_MODULE))
        else:
            monkeypatch.delitem(sys.modules, _STOCK_MODULE, raising=False)
        return self.stock_module()

    def test_is_in_force_inside_and_gone_after_success(self, before):
        with cpu_rotate_iou():
            overlap = kitti_eval_module.bev_box_overlap(
                np.array([[0, 0, 4, 2, 0.0]]), np.array([[1, 0, 4, 2, 0.0]])
            )
        assert overlap == np.float32(0.6)
        assert self.stock_module() is before
        assert (_STOCK_MODULE in sys.modules) == (before is not None)

    def test_is_gone_after_an_exception(self, before):
        with pytest.raises(ZeroDivisionError), cpu_rotate_iou():
            raise ZeroDivisionError
        assert self.stock_module() is before
        assert (_STOCK_MODULE in sys.modules) == (before is not None)

    def test_is_gone_after_an_evaluation_that_fails(self, before, tmp_path):
        objects, detections = random_frames(2, seed=5)
        del detections[1]['rotation_y']
        metric = KittiMetricCPU(ann_file='')
        with pytest.raises(KeyError, match='rotation_y'):
            metric.kitti_evaluate({'pred_instances_3d': detections}, objects, 'bbox', CLASSES)
        assert self.stock_module() is before


def lidar_box(name, x, y, yaw=0.2):
    return [x, y, -1.0, *SIZES[name], yaw]


class Scene:
    """Frames of one object class, as an annotation file and as a detector's results."""

    def __init__(self, frames=10, per_frame=5, name='Car'):
        self.name = name
        self.objects = [
            np.array(
                [lidar_box(name, 10 + 2 * f / frames, 6.0 * (i - 1)) for i in range(per_frame)]
            )
            for f in range(frames)
        ]
        # Spread in depth so that the image boxes don't hide each other.
        for boxes in self.objects:
            boxes[:, 0] += np.arange(per_frame) * 3

    def camera(self, boxes):
        lidar = LiDARInstance3DBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 7))
        return lidar.convert_to(Box3DMode.CAM, LIDAR2CAM.astype(np.float32))

    def instances(self, boxes, name=None):
        if len(boxes) == 0:
            return []
        camera = self.camera(boxes)
        corners = camera.corners.numpy()
        pixels = corners @ CAM2IMG[:3, :3].T
        pixels = pixels[..., :2] / pixels[..., 2:]
        image = np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1)
        image[:, 2:] = np.minimum(image[:, 2:], [1242, 375])
        image[:, :2] = np.maximum(image[:, :2], 0)
        return [
            {
                'bbox': image[i].tolist(),
                'bbox_label': CATEGORIES.get(name or self.name, -1),
                'bbox_3d': camera.tensor[i].tolist(),
                'truncated': 0.0,
                'occluded': 0,
                'alpha': float(-np.arctan2(-boxes[i][1], boxes[i][0]) + camera.tensor[i, 6]),
                'score': 0.0,
            }
            for i in range(len(boxes))
        ]

    def infos(self):
        image = {'height': 375, 'width': 1242, 'lidar2cam': LIDAR2CAM, 'cam2img': CAM2IMG}
        return {
            'metainfo': {'categories': dict(CATEGORIES)},
            'data_list': [
                {'sample_idx': i, 'images': {'CAM2': image}, 'instances': self.instances(boxes)}
                for i, boxes in enumerate(self.objects)
            ],
        }

    def evaluate(self, folder, detections, scores=None, infos=None, **settings):
        """Runs the metric as the test loop does, through the registry."""
        path = folder / 'infos.pkl'
        path.write_bytes(pickle.dumps(infos or self.infos()))
        metric = METRICS.build(
            {'type': 'explain3d.KittiMetricCPU', 'ann_file': str(path), **RANGE, **settings}
        )
        metric.dataset_meta = {'classes': CLASSES}
        random = np.random.default_rng(0)
        for i, boxes in enumerate(detections):
            boxes = torch.tensor(np.asarray(boxes), dtype=torch.float32).reshape(-1, 7)
            score = random.uniform(0.4, 0.9, len(boxes)) if scores is None else scores[i]
            sample = {
                'pred_instances_3d': {
                    'bboxes_3d': LiDARInstance3DBoxes(boxes),
                    'scores_3d': torch.as_tensor(score, dtype=torch.float32),
                    'labels_3d': torch.full((len(boxes),), CLASSES.index(self.name)),
                },
                'pred_instances': {},
                'sample_idx': i,
            }
            metric.process({}, [sample])
        return metric.evaluate(len(detections))


RANGE = {'pcd_limit_range': [0, -40, -3, 70.4, 40, 3.0]}


def figures(results, name='Car', *parts):
    """The results whose key has all of ``parts``."""
    chosen = {
        key: value
        for key, value in results.items()
        if f'KITTI/{name}_' in key and all(part in key for part in parts)
    }
    assert chosen
    return chosen


class TestKnownAnswers:
    def test_flawless(self, tmp_path):
        scene = Scene()
        results = scene.evaluate(tmp_path, scene.objects)
        assert set(figures(results).values()) == {100.0}
        assert len(figures(results)) == 2 * 3 * 3 * 2  # R11/R40, 2D/BEV/3D, levels, strict/loose.
        assert set(figures(results, 'Pedestrian').values()) == {0.0}

    def test_all_wrong(self, tmp_path):
        scene = Scene()
        results = scene.evaluate(
            tmp_path, [boxes + [0, 2.5, 0, 0, 0, 0, 0] for boxes in scene.objects]
        )
        assert set(figures(results, 'Car', 'BEV').values()) == {0.0}
        assert set(figures(results, 'Car', '3D').values()) == {0.0}

    def test_half_found(self, tmp_path):
        # Precision 1 up to recall 1/2: 20 of the 40 samples, 6 of the 11.
        scene = Scene(frames=10, per_frame=6)
        results = scene.evaluate(tmp_path, [boxes[::2] for boxes in scene.objects])
        assert set(figures(results, 'Car', 'AP40').values()) == {50.0}
        assert set(figures(results, 'Car', 'AP11').values()) == {round(600 / 11, 4)}

    def test_as_many_false_alarms_that_score_higher(self, tmp_path):
        # Precision grows up to 50 / 100 at the last object: 1/2 at every recall.
        scene = Scene()
        detections = [
            np.concatenate([boxes, boxes + [0, 2.5, 0, 0, 0, 0, 0]]) for boxes in scene.objects
        ]
        scores = [[0.5 - 0.01 * i for i in range(5)] + [0.9] * 5] * 10
        results = scene.evaluate(tmp_path, detections, scores)
        assert set(figures(results, 'Car', '3D').values()) == {50.0}
        assert set(figures(results, 'Car', 'BEV').values()) == {50.0}

    def test_as_many_false_alarms_that_score_lower(self, tmp_path):
        scene = Scene()
        detections = [
            np.concatenate([boxes, boxes + [0, 2.5, 0, 0, 0, 0, 0]]) for boxes in scene.objects
        ]
        scores = [[0.5 - 0.01 * i for i in range(5)] + [0.1] * 5] * 10
        results = scene.evaluate(tmp_path, detections, scores)
        assert set(figures(results, 'Car', '3D').values()) == {100.0}

    def test_overlap_between_the_two_thresholds(self, tmp_path):
        scene = Scene()
        shifted = [boxes.copy() for boxes in scene.objects]
        for boxes in shifted:  # Along the box by a quarter of its length: IoU 3 / 5.
            boxes[:, 0] += np.cos(0.2)
            boxes[:, 1] += np.sin(0.2)
        results = scene.evaluate(tmp_path, shifted)
        for kind in ('BEV', '3D'):
            assert set(figures(results, 'Car', kind, 'strict').values()) == {0.0}
            assert set(figures(results, 'Car', kind, 'loose').values()) == {100.0}

    @pytest.mark.parametrize('objects', [1, 7, 40])
    def test_few_objects_bound_the_ap(self, tmp_path, objects):
        scene = Scene(frames=objects, per_frame=1)
        results = scene.evaluate(tmp_path, scene.objects)
        r11, r40 = ap_bounds(objects)
        assert set(figures(results, 'Car', 'AP11').values()) == {round(r11, 4)}
        assert set(figures(results, 'Car', 'AP40').values()) == {round(r40, 4)}

    def test_bounds_are_100_from_41_objects_on(self):
        assert ap_bounds(41) == ap_bounds(1000) == (100, 100)
        assert ap_bounds(0) == (0, 0)

    def test_the_log_tells_bounds_and_orientation(self, capsys):
        boxes = random_camera_boxes(5, seed=6) + [0, 0, 20, 0, 0, 0, 0]
        objects = [annotation(['Car'], boxes[i : i + 1]) for i in range(5)]
        detections = [detected(['Car'], boxes[i : i + 1]) for i in range(5)]
        results = KittiMetricCPU(ann_file='').kitti_evaluate(
            {'pred_instances_3d': detections}, objects, 'bbox', ['Car']
        )
        printed = capsys.readouterr().out
        assert 'Car moderate: 5 objects' in printed
        assert 'at most 18.18 (R11), 10.00 (R40)' in printed
        assert 'aos  AP40:10.00, 10.00, 10.00' in printed
        assert results['pred_instances_3d/KITTI/Car_3D_AP40_moderate_strict'] == 10


class TestAnnotationFiles:
    def test_first_frame_without_objects(self, tmp_path):
        scene = Scene(frames=11)
        scene.objects[0] = np.zeros((0, 7))
        results = scene.evaluate(tmp_path, scene.objects)
        assert set(figures(results).values()) == {100.0}

    def test_no_detections_at_all(self, tmp_path):
        scene = Scene()
        results = scene.evaluate(tmp_path, [[]] * 10)
        assert set(figures(results).values()) == {0.0}

    def test_no_objects_at_all(self, tmp_path):
        scene = Scene(frames=2)
        scene.objects = [np.zeros((0, 7))] * 2
        with pytest.raises(InputError, match='received none in 2 frames'):
            scene.evaluate(tmp_path, scene.objects)

    def test_a_part_of_the_frames(self, tmp_path):
        scene, infos = Scene(frames=10), Scene(frames=12).infos()
        with pytest.raises(InputError, match=r'each of the 12 frames.*received 10.*whole split'):
            scene.evaluate(tmp_path, scene.objects, infos=infos)

    def test_dont_care_missing_among_the_categories(self, tmp_path):
        # The converter lists it only if the last frame has such a region.
        scene = Scene()
        infos = scene.infos()
        region = scene.instances(scene.objects[0][:1])[0]
        region.update(bbox_label=-1, bbox_3d=[-1000.0] * 3 + [-1.0] * 3 + [-10.0], alpha=-10.0)
        infos['data_list'][0]['instances'].append(region)
        results = scene.evaluate(tmp_path, scene.objects, infos=infos)
        assert set(figures(results).values()) == {100.0}

    def test_vans_are_no_false_alarms(self, tmp_path):
        scene = Scene(per_frame=6)
        infos = scene.infos()
        for info in infos['data_list']:
            info['instances'][0]['bbox_label'] = CATEGORIES['Van']
        results = scene.evaluate(tmp_path, scene.objects, infos=infos, counts={'thr': 0.7})
        aps = {key: value for key, value in figures(results).items() if '_AP' in key}
        assert set(aps.values()) == {100.0}
        key = 'Kitti metric/pred_instances_3d/KITTI/Car_BEV@0.70_score0.30'
        assert (results[f'{key}_TP'], results[f'{key}_FP'], results[f'{key}_FN']) == (50, 0, 0)


class TestCounts:
    def test_in_the_results(self, tmp_path):
        scene = Scene(frames=4, per_frame=5)
        found = [boxes[:4].copy() for boxes in scene.objects]
        for boxes in found:
            boxes[0, 2] += 1  # Right from above, wrong in 3D.
            boxes[1, 1] += 2.5  # Nowhere.
            boxes[2, 1] -= 200  # Outside of the image: dropped.
        counts = [{'score_thr': 0.3, 'iou': iou, 'thr': 0.5} for iou in ('bev', '3d')]
        scores = [[0.9, 0.8, 0.8, 0.7]] * 4
        results = scene.evaluate(tmp_path, found, scores, counts=counts)
        key = 'Kitti metric/pred_instances_3d/KITTI/Car_{}@0.50_score0.30_{}'
        table = {
            iou: [results[key.format(iou, kind)] for kind in ('TP', 'FP', 'FN')]
            for iou in ('BEV', '3D')
        }
        assert table == {'BEV': [8, 4, 12], '3D': [4, 8, 16]}
        assert results[key.format('BEV', 'recall')] == 8 / 20
        assert results[key.format('BEV', 'precision')] == 8 / 12

    def test_classes_and_their_neighbours(self):
        boxes = random_camera_boxes(1, seed=7) + np.arange(5)[:, None] * [30, 0, 0, 0, 0, 0, 0]
        objects = annotation(['car', 'Van', 'Person_sitting', 'Truck', 'Pedestrian'], boxes)
        detections = annotation(['Car', 'Car', 'Pedestrian', 'Car', 'Car'], boxes)
        counts = count_kitti([objects], [detections], ['Car', 'Pedestrian'], CountProtocol())
        assert counts == {
            'Car': DetectionCounts(tp=1, fp=2, fn=0),
            'Pedestrian': DetectionCounts(tp=0, fp=0, fn=1),
        }

    def test_a_neighbour_that_is_a_class_itself_counts(self):
        boxes = random_camera_boxes(1, seed=7)
        objects, detections = annotation(['Van'], boxes), annotation(['Car'], boxes)
        counts = count_kitti([objects], [detections], ['Car', 'Van'], CountProtocol(thr=0.5))
        assert counts == {'Car': DetectionCounts(fp=1), 'Van': DetectionCounts(fn=1)}

    @pytest.mark.parametrize(
        ('counts', 'error', 'message'),
        [
            ({'iou': '2d'}, UnknownNameError, "'3d', 'bev'"),
            ({'thr': 50}, InputError, 'below 1'),
            ({'threshold': 0.5}, UnknownNameError, 'threshold'),
        ],
    )
    def test_mistakes_are_found_before_the_run(self, counts, error, message):
        with pytest.raises(error, match=message):
            KittiMetricCPU(ann_file='', counts=counts)
