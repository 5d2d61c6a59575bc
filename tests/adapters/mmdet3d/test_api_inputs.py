"""What may be given to the Python API: models in any state and wrapper, points from anywhere."""

import copy

import numpy as np
import pytest
import tiny_detectors as tiny
import tiny_run
import torch
from mmdet3d.apis import inference_detector
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel, MMSeparateDistributedDataParallel
from test_tracer import state_of
from torch import distributed, nn
from torch.utils.checkpoint import checkpoint

import explain3d
from explain3d.core.errors import InputError, NotApplicableError
from explain3d.methods import EXPLAINERS, RandomMap

KW = dict(method='GradCAM', layer='stride4', targets='score', select=dict(score_thr=0.0, top_n=2))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A detector with its configuration, as ``init_model`` leaves it."""
    folder = tmp_path_factory.mktemp('inputs')
    data = tiny_run.write_dataset(folder / 'data', frames=2)
    (folder / 'config.py').write_text(tiny_run.config_text(data))
    model = tiny.build(tiny.second())
    model.cfg = Config.fromfile(folder / 'config.py')
    return model


@pytest.fixture
def clean(model):
    """The model, whose configuration a test may change."""
    before = model.cfg
    model.cfg = copy.deepcopy(before)
    yield model
    model.cfg = before


@pytest.fixture(scope='module')
def right(model):
    """The explanation of a cloud, against which the others are held."""
    return explain3d.explain(model, tiny.cloud(1), **KW)


def assert_same(found, right):
    torch.testing.assert_close(found.points, right.points)
    torch.testing.assert_close(found.detections.boxes, right.detections.boxes)
    torch.testing.assert_close(found.saliency, right.saliency, atol=1e-5, rtol=1e-4)


def loader(model):
    return model.cfg.test_dataloader.dataset.pipeline[0]


def test_files_of_other_kinds_give_what_the_array_gives(model, right, tmp_path):
    cloud = tiny.cloud(1)
    np.save(tmp_path / 'b.npy', cloud.astype(np.float64))
    header = (
        f'FIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nPOINTS {len(cloud)}\nDATA binary\n'
    )
    (tmp_path / 'c.pcd').write_bytes(header.encode() + cloud.tobytes())
    for name in ('b.npy', 'c.pcd'):
        found = explain3d.explain(model, tmp_path / name, **KW)
        assert found.frame_id == name[0]
        assert_same(found, right)


def test_files_and_points_of_another_width_are_refused(model, tmp_path):
    cloud = np.pad(tiny.cloud(1), ((0, 0), (0, 1)))
    cloud.tofile(tmp_path / 'five.bin')
    for data in (cloud, torch.as_tensor(cloud), cloud[:, :3], tmp_path / 'five.bin'):
        with pytest.raises(InputError, match='4 columns .*load_dim of LoadPointsFromFile'):
            explain3d.explain(model, data, **KW)
    with pytest.raises(InputError, match=r'none\.bin cannot be read \(No such file'):
        explain3d.explain(model, tmp_path / 'none.bin', **KW)


def test_arrays_get_what_the_pipeline_does_with_files(clean, tmp_path):
    wide = np.c_[tiny.cloud(1)[:, :3], np.arange(800), 30 * tiny.cloud(1)[:, 3]].astype(np.float32)
    wide.tofile(tmp_path / 'wide.bin')
    loader(clean).update(load_dim=5, use_dim=[0, 1, 2, 4], norm_intensity=True)
    before = wide.copy()
    of_file = explain3d.explain(clean, tmp_path / 'wide.bin', **KW)
    of_array = explain3d.explain(clean, wide, **KW)
    assert_same(of_array, of_file)
    assert of_array.points[:, 3].min() > 0
    assert of_array.points[:, 3].max() <= 1
    assert np.array_equal(wide, before)
    inference_detector(clean, wide)  # Leaves another first step in the configuration.
    assert loader(clean).type == 'LoadPointsFromDict'
    assert_same(explain3d.explain(clean, wide, **KW), of_file)


def test_a_pipeline_that_reads_more_than_points_asks_for_an_item(clean):
    clean.cfg.test_dataloader.dataset.pipeline.insert(0, dict(type='LoadImageFromFile'))
    with pytest.raises(InputError, match='begins with LoadImageFromFile.*Give an item'):
        explain3d.explain(clean, tiny.cloud(1), **KW)


def test_items_of_a_data_set(model):
    dataset = DATASETS.build(model.cfg.test_dataloader.dataset)
    one = explain3d.explain(model, dataset[1], **KW)
    assert one.frame_id == '000001'
    many = explain3d.explain(model, [dataset[0], tiny.cloud(1)], **KW)
    assert [e.frame_id for e in many] == ['000000', 'frame_000001']
    batch = tiny.batch(tiny.cloud(1))
    assert_same(explain3d.explain(model, batch, **KW)[0], many[1])
    with pytest.raises(InputError, match='received a collated batch: give batches one by one'):
        explain3d.explain(model, [batch], **KW)
    with pytest.raises(InputError, match=r"received dict\['points'\]"):
        explain3d.explain(model, dict(points=tiny.cloud(1)), **KW)


@EXPLAINERS.register('FailingInTheMiddle')
class FailingInTheMiddle(RandomMap):
    """Fails when the host has predicted."""

    def explain(self, trace, targets):
        raise FloatingPointError('in the middle')


@pytest.mark.parametrize('fails', [False, True])
def test_a_model_in_training_mode_is_evaluated_and_left_as_found(right, model, fails):
    trained = copy.deepcopy(model).train()
    trained.neck.eval()
    next(trained.backbone.parameters()).requires_grad_(False)
    trained.bbox_head.register_forward_hook(lambda *_: None)
    before, weights = state_of(trained), copy.deepcopy(trained.state_dict())
    cfg = trained.cfg.to_dict()
    if fails:
        with pytest.raises(FloatingPointError, match='in the middle'):
            explain3d.explain(trained, tiny.cloud(1), 'FailingInTheMiddle', select=KW['select'])
    else:
        assert_same(explain3d.explain(trained, tiny.cloud(1), **KW), right)
    assert state_of(trained) == before
    assert all(torch.equal(value, weights[key]) for key, value in trained.state_dict().items())
    assert trained.cfg.to_dict() == cfg


@pytest.fixture
def process_group(tmp_path):
    store = distributed.FileStore(str(tmp_path / 'store'), 1)
    distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_wrapped_models_are_explained(model, right, process_group):
    for wrapped in (
        nn.DataParallel(model),
        torch.compile(model, backend='eager'),
        MMDistributedDataParallel(model),
        torch.compile(MMDistributedDataParallel(model), backend='eager'),
    ):
        assert_same(explain3d.explain(wrapped, tiny.cloud(1), **KW), right)
    in_pieces = MMSeparateDistributedDataParallel(copy.deepcopy(model), False, False)
    with pytest.raises(NotApplicableError, match=r"'backbone'.*Pass the detector as it was"):
        explain3d.explain(in_pieces, tiny.cloud(1), **KW)


def test_what_is_no_model_says_what_to_build():
    for model in ('config.py', dict(type='VoxelNet'), None):
        with pytest.raises(InputError, match='Expected a model .*init_model'):
            explain3d.explain(model, tiny.cloud(1))
        with pytest.raises(InputError, match='Expected a model .*init_model'):
            explain3d.decompose(model, tiny.cloud(1))
        with pytest.raises(InputError, match='Expected a model .*init_model'):
            explain3d.sensor_shares(model, tiny.cloud(1))


class Checkpointed(nn.Module):
    """A part whose activations are computed again in the backward pass."""

    def __init__(self, part, reentrant):
        super().__init__()
        self.part, self.reentrant = part, reentrant

    def forward(self, x):
        return checkpoint(self.part, x, use_reentrant=self.reentrant)


THROUGH_BLOCKS = [
    dict(type='GradCAM', layer='stride4'),
    dict(type='GradCAM', layer='bev'),
    dict(type='OccAM', samples=8),
]


@pytest.mark.parametrize('method', THROUGH_BLOCKS, ids=str)
@pytest.mark.parametrize('reentrant', [True, False])
def test_maps_through_checkpointed_blocks_are_those_without(model, reentrant, method):
    """The first frame has a second pass, the next one windows; OccAM asks the black box."""
    other = copy.deepcopy(model)
    for index, block in enumerate(other.backbone.blocks):
        other.backbone.blocks[index] = Checkpointed(block, reentrant)
    clouds = [tiny.cloud(1), tiny.cloud(2)]
    right = explain3d.explain(model, clouds, method, 'score', KW['select'])
    found = explain3d.explain(other, clouds, method, 'score', KW['select'])
    for one, expected in zip(found, right, strict=True):
        assert expected.saliency.any()
        assert_same(one, expected)
