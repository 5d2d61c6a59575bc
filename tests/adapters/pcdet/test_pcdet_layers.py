"""The layers of OpenPCDet's detectors: names, aliases, grids, positions."""

import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.common.layers import find_layer
from explain3d.adapters.pcdet.layers import layers
from explain3d.core.errors import NotApplicableError, UnknownNameError


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def model(request, pcdet_host):
    return scenes.build(request.param)


def test_aliases_go_by_stride(model):
    table = layers(model)
    found = {alias: layer.name for layer in table for alias in layer.aliases}
    assert found == {
        'stride1': 'backbone_3d.conv1',
        'stride2': 'backbone_3d.conv2',
        'stride4': 'backbone_3d.conv3',
        'stride8': 'backbone_3d.conv4',
        'bev': 'map_to_bev_module',
        'neck': 'backbone_2d',
    }
    assert find_layer(table, 'backbone_3d.conv3') is find_layer(table, 'stride4')


def test_grids_have_a_layer_more_along_z(model):
    shapes = {layer.name: layer.spatial_shape for layer in layers(model)}
    assert shapes['vfe'] == shapes['backbone_3d.conv1'] == (41, 64, 64)
    assert shapes['backbone_3d.conv3'] == (11, 16, 16)
    assert shapes['backbone_3d.conv4'] == (5, 8, 8)
    assert shapes['backbone_3d.conv_out'] == (2, 8, 8)
    assert shapes['map_to_bev_module'] == (1, 8, 8)


def test_voxel_centres_follow_strides_and_paddings(model):
    geometry = {layer.name: layer.geometry for layer in layers(model)}
    x, y, z = scenes.RANGE[:3]
    cell = torch.tensor([[2, 3, 1]])
    # Receptive fields of 3-wide, stride-2, padding-1 convolutions are centred on (4 i + 0.5) v ...
    expected = torch.tensor([[x + 4.5 * 0.1, y + 12.5 * 0.1, z + 8.5 * 0.1]])
    torch.testing.assert_close(geometry['backbone_3d.conv3'].centers(cell), expected)
    # ... and without padding along z, as in conv4, on (8 i + 4.5) v.
    expected = torch.tensor([[x + 8.5 * 0.1, y + 24.5 * 0.1, z + 20.5 * 0.1]])
    torch.testing.assert_close(geometry['backbone_3d.conv4'].centers(cell), expected)
    assert geometry['map_to_bev_module'].stride == (8, 8, 40)
    assert geometry['map_to_bev_module'].center_offset == (0.5, 0.5, 20)


def test_centres_are_those_of_the_receptive_fields(model):
    """The voxels that a cell of stride 8 depends on lie around its centre, by autograd."""
    layer = find_layer(layers(model), 'stride8')
    batch = scenes.batch(model, scenes.cloud(1, 6000))
    model.vfe(batch)
    batch['voxel_features'] = batch['voxel_features'].detach().requires_grad_()
    coords = batch['voxel_coords'].clone()
    outputs = []
    handle = model.get_submodule(layer.name + '.0').register_forward_hook(
        lambda _m, _i, out: outputs.append(out)
    )
    inputs = []
    before = model.get_submodule('backbone_3d.conv4').register_forward_pre_hook(
        lambda _m, args: inputs.append(args[0])
    )
    with torch.enable_grad():
        model.backbone_3d(batch)
    handle.remove()
    before.remove()
    fine = find_layer(layers(model), 'stride4')
    row = len(outputs[0].features) // 2
    (gradient,) = torch.autograd.grad(outputs[0].features[row].sum(), inputs[0].features)
    reached = inputs[0].indices[gradient.abs().sum(1) > 0][:, 1:]
    centers = fine.geometry.centers(reached)
    own = layer.geometry.centers(outputs[0].indices[row : row + 1, 1:])
    reach = torch.tensor([0.4, 0.4, 0.4]) + 1e-4
    assert len(reached)
    assert ((centers - own).abs() <= reach).all()
    assert len(coords) == len(batch['voxel_features'])


def test_an_unknown_layer_is_answered_with_the_candidates(model):
    with pytest.raises(UnknownNameError, match=r"'strde4'.*'backbone_3d.conv3'.*mean 'stride4'"):
        find_layer(layers(model), 'strde4')


def test_the_model_is_left_as_found(model):
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    kept = {name: dict(vars(module)) for name, module in model.named_modules()}
    layers(model)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, module in model.named_modules():
        assert vars(module) == kept[name]
        assert not module._forward_hooks
    model.eval()


def test_a_model_without_voxels_is_refused():
    class PointNet(torch.nn.Module):
        backbone_3d = torch.nn.Identity()

    with pytest.raises(NotApplicableError, match='PointNet has no voxel grid of its own'):
        layers(PointNet())
