"""Layers, their aliases and the places of their cells."""

import pytest
import tiny_detectors as tiny
import torch
from torch import nn

from explain3d.adapters.common.layers import find_layer
from explain3d.adapters.mmdet3d.layers import layers
from explain3d.core.errors import NotApplicableError, UnknownNameError

ALIASES = {
    'second': {
        'stride1': 'middle_encoder.encoder_layers.encoder_layer1',
        'stride2': 'middle_encoder.encoder_layers.encoder_layer2',
        'stride4': 'middle_encoder.encoder_layers.encoder_layer3',
        'stride8': 'middle_encoder.encoder_layers.encoder_layer4',
        'bev': 'middle_encoder',
        'neck': 'neck',
    },
    # The stride-2 convolution is the last of a stage: encoder_layer3 as a whole has stride 8.
    'centerpoint_voxel': {
        'stride1': 'pts_middle_encoder.encoder_layers.encoder_layer1.1',
        'stride2': 'pts_middle_encoder.encoder_layers.encoder_layer2.1',
        'stride4': 'pts_middle_encoder.encoder_layers.encoder_layer3.1',
        'stride8': 'pts_middle_encoder.encoder_layers.encoder_layer4',
        'bev': 'pts_middle_encoder',
        'neck': 'pts_neck',
    },
    'pointpillars': {'pillars': 'voxel_encoder', 'bev': 'middle_encoder', 'neck': 'neck'},
    'centerpoint_pillar': {
        'pillars': 'pts_voxel_encoder',
        'bev': 'pts_middle_encoder',
        'neck': 'pts_neck',
    },
}


@pytest.mark.parametrize('name', ALIASES)
def test_aliases(name):
    table = layers(tiny.build(tiny.MODELS[name]()))
    found = {alias: layer.name for layer in table for alias in layer.aliases}
    assert found == ALIASES[name]
    for alias in found:
        layer = find_layer(table, alias)
        assert layer is find_layer(table, layer.name)
        if alias.startswith('stride'):
            assert layer.stride == float(alias.removeprefix('stride'))


def test_an_unknown_layer_lists_the_candidates():
    table = layers(tiny.build(tiny.second()))
    with pytest.raises(UnknownNameError) as error:
        find_layer(table, 'strid4')
    for part in ("'strid4'", "'stride4'", "'bev'", 'encoder_layer3', "Did you mean 'stride4'?"):
        assert part in str(error.value)


def test_models_without_a_voxel_grid_are_refused():
    with pytest.raises(NotApplicableError, match='has no voxel grid'):
        layers(nn.Linear(2, 2))


def test_the_map_of_a_pillar_model_covers_the_range():
    table = layers(tiny.build(tiny.pointpillars()))
    for alias, cells, size in (('pillars', 64, 0.2), ('bev', 64, 0.2), ('neck', 32, 0.4)):
        layer = find_layer(table, alias)
        assert layer.spatial_shape == (1, cells, cells)
        assert layer.geometry.voxel_size == pytest.approx((size, size, 4))
        z = layer.geometry.centers(torch.tensor([[0, 0, 0]]))[0, 2]
        assert float(z) == pytest.approx(-1)
    pillar = find_layer(table, 'pillars').geometry
    assert pillar.origin == pytest.approx((0, -6.4, -3))
    # A 3x3 stride-2 padding-1 convolution is centred on the even pillars.
    neck = find_layer(table, 'neck').geometry
    first = neck.centers(torch.tensor([[0, 0, 0]]))[0]
    assert first.tolist() == pytest.approx([0.1, -6.3, -1])


class Bare(nn.Module):
    """A detector's shell around a middle encoder whose convolutions only pass values on."""

    def __init__(self, **encoder):
        from mmdet3d.registry import MODELS

        super().__init__()
        shape = encoder['sparse_shape']
        self.middle_encoder = MODELS.build(dict(type='SparseEncoder', in_channels=1, **encoder))
        self.data_preprocessor = nn.Module()
        self.data_preprocessor.voxel_layer = nn.Module()
        self.data_preprocessor.voxel_layer.voxel_size = [1.0, 1.0, 1.0]
        limits = [0.0, 0.0, 0.0, *map(float, reversed(shape))]
        self.data_preprocessor.voxel_layer.point_cloud_range = limits
        for module in self.modules():
            if not hasattr(module, 'subm'):
                continue
            nn.init.ones_(module.weight)
            if module.subm:  # Submanifold convolutions spread evenly to all sides: leave them out.
                nn.init.zeros_(module.weight)
                module.weight.data[:, 1, 1, 1] = 1
        self.eval()


ENCODERS = {
    'conv_module': dict(
        encoder_channels=((1,), (1, 1), (1, 1), (1, 1)),
        encoder_paddings=((1,), (1, 1), (1, 1), ((0, 1, 1), 1)),
    ),
    'basicblock': dict(
        encoder_channels=((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1)),
        encoder_paddings=((0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)),
        block_type='basicblock',
    ),
    'no padding in z': dict(
        encoder_channels=((1,), (1,), (1,), (1,)),
        encoder_paddings=((1,), ((0, 1, 1),), ((0, 1, 1),), ((1, 0, 1),)),
    ),
}


@pytest.mark.parametrize('encoder', ENCODERS.values(), ids=ENCODERS)
def test_cells_lie_in_the_middle_of_what_reaches_them(encoder):
    """With all voxels occupied, by the gradient of single cells: no arithmetic of ours."""
    from spconv.pytorch import SparseConvTensor

    shape = (61, 24, 26)
    model = Bare(sparse_shape=list(shape), base_channels=1, output_channels=1, **encoder)
    table = [layer for layer in layers(model) if layer.kind == 'sparse' and not layer.is_leaf]
    cells = torch.cartesian_prod(*map(torch.arange, shape)).int()
    coords = torch.cat([torch.zeros(len(cells), 1).int(), cells], 1)
    features = torch.ones(len(cells), 1, requires_grad=True)
    outputs = {}
    for layer in table:
        model.get_submodule(layer.name).register_forward_hook(
            lambda _m, _i, out, name=layer.name: outputs.__setitem__(name, out)
        )
    model.middle_encoder(features, coords, 1)
    assert any(layer.geometry.center_offset[2] > 4 for layer in table)
    for layer in table:
        out: SparseConvTensor = outputs[layer.name]
        index = [min(1, n - 1) for n in layer.spatial_shape]  # Far enough from the border.
        row = (out.indices[:, 1:] == torch.tensor(index)).all(1).nonzero().item()
        (gradient,) = torch.autograd.grad(out.features[row, 0], features, retain_graph=True)
        reached = cells[gradient[:, 0].nonzero().flatten()].double()
        middle = (reached.amin(0) + reached.amax(0)) / 2 + 0.5
        center = layer.geometry.centers(torch.tensor([index]), torch.float64)[0]
        assert center.flip(0).tolist() == middle.tolist(), layer.name


def test_the_probe_leaves_no_trace():
    model = tiny.build(tiny.second())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    layers(model)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(m._forward_hooks for m in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
