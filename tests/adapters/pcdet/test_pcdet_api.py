"""What may be given to the Python API for detectors of OpenPCDet, and from which function."""

import numpy as np
import pcdet_scenes as scenes
import pytest
import torch
from torch import nn

import explain3d
from explain3d.adapters.pcdet import explain, sensor_shares
from explain3d.core.errors import InputError, NotApplicableError
from explain3d.methods import EXPLAINERS, RandomMap

SELECT = {'score_thr': 0.0, 'top_n': 2}
KW = dict(method='GradCAM', layer='stride4', targets='score', select=SELECT)


@pytest.fixture(scope='module')
def model(pcdet_host):
    return scenes.build('second')


@pytest.fixture(scope='module')
def right(model):
    return explain(model, scenes.cloud(1), **KW)


def state_of(model):
    """Modes, weights and statistics, hooks and attributes of each module."""
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [dict(module._forward_hooks) for module in model.modules()],
        [set(vars(module)) for module in model.modules()],
        [value.tolist() for value in model.state_dict().values()],
    )


def assert_same(found, right):
    torch.testing.assert_close(found.points, right.points)
    torch.testing.assert_close(found.saliency, right.saliency, atol=1e-5, rtol=1e-3)


def test_files_give_what_the_array_gives(model, right, tmp_path):
    cloud = scenes.cloud(1)
    cloud.tofile(tmp_path / 'a.bin')
    np.save(tmp_path / 'b.npy', cloud.astype(np.float64))
    found = explain(model, [tmp_path / 'a.bin', str(tmp_path / 'b.npy')], **KW)
    assert [e.frame_id for e in found] == ['a', 'b']
    for explanation in found:
        assert_same(explanation, right)


def test_points_of_another_width_are_refused(model, tmp_path):
    cloud = np.pad(scenes.cloud(1), ((0, 0), (0, 1)))
    cloud.tofile(tmp_path / 'five.bin')
    for data in (cloud, torch.as_tensor(cloud), cloud[:, :3], tmp_path / 'five.bin'):
        with pytest.raises(InputError, match='4 columns .x, y, z, intensity; src_feature_list'):
            explain(model, data, **KW)
    with pytest.raises(InputError, match=r'none\.bin cannot be read \(No such file'):
        explain(model, tmp_path / 'none.bin', **KW)


def test_the_function_of_the_package_finds_the_toolbox(model, right):
    assert_same(explain3d.explain(model, scenes.cloud(1), **KW), right)
    wrapped = torch.compile(nn.DataParallel(model), backend='eager')
    assert_same(explain3d.explain(wrapped, scenes.cloud(1), **KW), right)
    with pytest.raises(NotApplicableError, match='has no fuser and vtransform|TransFusionHead'):
        explain3d.sensor_shares(model, {'points': scenes.cloud(1)})


def test_detectors_of_the_other_toolbox_are_refused(model):
    pytest.importorskip('mmdet3d')
    from mmengine.model import BaseModel

    from explain3d.adapters.mmdet3d import explain as explain_mmdet3d

    other = type('VoxelNet', (BaseModel,), {'forward': lambda self: None})()
    for function in (explain, sensor_shares):
        with pytest.raises(NotApplicableError, match='VoxelNet is a model of MMDetection3D'):
            function(other, {'points': scenes.cloud(1)})
    with pytest.raises(NotApplicableError, match='is a model of OpenPCDet: expected one of MMDet'):
        explain_mmdet3d(model, scenes.cloud(1))
    with pytest.raises(NotApplicableError, match=r'expected seeds and outputs.*sensor_shares'):
        explain3d.decompose(model, {'points': scenes.cloud(1)})


@EXPLAINERS.register('FailingInOpenPCDet')
class FailingInOpenPCDet(RandomMap):
    """Fails when the host has predicted."""

    def explain(self, trace, targets):
        raise FloatingPointError('in the middle')


@pytest.mark.parametrize('fails', [False, True])
def test_a_model_in_training_mode_is_evaluated_and_left_as_found(right, fails):
    trained = scenes.build('second').train()
    trained.backbone_2d.eval()
    next(trained.parameters()).requires_grad_(False)
    trained.dense_head.register_forward_hook(lambda *_: None)
    before = state_of(trained)
    if fails:
        with pytest.raises(FloatingPointError, match='in the middle'):
            explain(trained, scenes.cloud(1), 'FailingInOpenPCDet', select=SELECT)
    else:
        assert_same(explain(trained, scenes.cloud(1), **KW), right)
    assert state_of(trained) == before
