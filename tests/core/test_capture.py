"""The graph starts at the layer, with the gradient that the whole graph would have there."""

import pytest
import torch
from torch import nn

from explain3d.core.capture import cell_order, leaf_at
from explain3d.core.errors import NotApplicableError


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 1)
    ).double()


def test_gradient_is_that_of_the_whole_graph_and_ends_at_the_leaf():
    net, inputs = network(), torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    hidden = net[1](net[0](inputs))
    (expected,) = torch.autograd.grad(net[3](hidden.relu()).sum(), hidden)
    with leaf_at(net[1]) as leaf:  # An in-place activation follows.
        out = net(inputs).sum()
    found, below = torch.autograd.grad(out, [leaf.tensor, inputs], allow_unused=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(leaf.tensor.detach(), hidden.detach())
    assert below is None


@pytest.mark.parametrize('fails', [False, True])
def test_hooks_are_removed(fails):
    net = network()
    try:
        with leaf_at(net[1]):
            if fails:
                raise RuntimeError
            net(torch.rand(2, 3, dtype=torch.float64))
    except RuntimeError:
        assert fails
    assert not any(m._forward_hooks for m in net.modules())
    net(torch.rand(2, 3, dtype=torch.float64))


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x * 2)


@pytest.mark.parametrize(
    ('wrap', 'unwrap'),
    [
        (lambda x: x, lambda y: y),
        (lambda x: [x], lambda y: y[0]),
        (lambda x: (x, torch.arange(len(x) * 4).view(-1, 4)), lambda y: y[0]),
        (lambda x: dict(map=x, note='text'), lambda y: y['map']),
        (lambda x: dict(maps=([x], None)), lambda y: y['maps'][0][0]),
    ],
)
def test_one_tensor_is_found_in_any_structure(wrap, unwrap):
    layer = Returns(wrap)
    with leaf_at(layer) as leaf:
        out = unwrap(layer(torch.ones(2, 3)))
    (gradient,) = torch.autograd.grad((out**2).sum(), leaf.tensor)
    torch.testing.assert_close(gradient, torch.full((2, 3), 4.0))


def test_indices_beside_the_features_are_kept():
    layer = Returns(lambda x: (x, torch.arange(8).view(2, 4)))
    with leaf_at(layer) as leaf:
        layer(torch.ones(2, 3))
    assert leaf.indices.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize('wrap', [lambda x: (x, x + 1), lambda x: None])
def test_several_tensors_or_none_are_refused(wrap):
    layer = Returns(wrap)
    with leaf_at(layer, 'neck'), pytest.raises(NotApplicableError, match="'neck' gives [02]"):
        layer(torch.ones(2, 3))


def test_a_layer_that_runs_twice_is_refused():
    layer = nn.Linear(3, 3)
    with leaf_at(layer, 'shared'):
        layer(torch.ones(2, 3))
        with pytest.raises(NotApplicableError, match="'shared' ran more than once"):
            layer(torch.ones(2, 3))


def test_a_layer_that_does_not_run_gives_no_leaf():
    with leaf_at(nn.Linear(3, 3)) as leaf:
        pass
    assert leaf.tensor is None


def test_an_entry_of_a_dict_of_everything():
    """OpenPCDet's modules add to a dictionary that they hand on; all names of the entry change."""
    other = torch.ones(4)
    layer = Returns(lambda x: {'features': x, 'same': x, 'other': other, 'deeper': {'a': [x]}})
    with leaf_at(layer, 'vfe', key='features') as leaf:
        output = layer(torch.ones(2, 3))
    for value in (output['features'], output['same'], output['deeper']['a'][0]):
        (gradient,) = torch.autograd.grad(value.sum(), leaf.tensor)
        assert gradient.all()
    assert output['other'] is other
    assert leaf.indices is None


def test_indices_stay_when_the_network_changes_its_own():
    class Sparse:
        batch_size, spatial_shape = 1, (4, 4)

        def __init__(self, features, indices):
            self.features, self.indices = features, indices

        def replace_feature(self, features):
            return Sparse(features, self.indices)

    layer = Returns(lambda x: Sparse(x, torch.ones(2, 3, dtype=torch.int32)))
    with leaf_at(layer) as leaf:
        output = layer(torch.ones(2, 5))
        output.indices[:, 1:] *= 2
    assert (leaf.indices == 1).all()


class Rows:
    """A sparse tensor of three voxels in one plane."""

    batch_size, spatial_shape = 1, (4, 4)

    def __init__(self, features, indices):
        self.features, self.indices = features, indices

    def replace_feature(self, features):
        return Rows(features, self.indices)


CELLS = torch.tensor([[0, 0, 1], [0, 0, 3], [0, 2, 0]], dtype=torch.int32)


@pytest.mark.parametrize('order', [[0, 1, 2], [2, 0, 1], [1, 0, 2]], ids=str)
@pytest.mark.parametrize('sparse', [True, False])
def test_rows_stand_by_cell_whatever_the_networks_order_is(order, sparse):
    """Voxel i has the feature i; the sum weighs by cell, so the gradient at voxel i is 10 ** i."""
    wrap = (lambda x: Rows(x, CELLS[order])) if sparse else (lambda x: (x, CELLS[order]))
    layer, given = Returns(wrap), torch.arange(3.0)[:, None]
    weight = torch.tensor([[1.0], [10.0], [100.0]])
    for value in (None, given + 5):
        with leaf_at(layer, value=value) as leaf:
            output = layer(given[order] / 2)
        features = output.features if sparse else output[0]
        assert torch.equal(leaf.indices, CELLS)
        expected = given if value is None else value
        assert torch.equal(leaf.tensor.detach(), expected)
        assert torch.equal(features.detach(), expected[order])  # The network has its own order.
        (gradient,) = torch.autograd.grad((features * weight[order]).sum(), leaf.tensor)
        assert torch.equal(gradient, weight)


def test_features_of_another_shape_are_refused():
    layer = Returns(lambda x: Rows(x, CELLS))
    with (
        leaf_at(layer, 'encoder', value=torch.ones(2, 1)),
        pytest.raises(NotApplicableError, match=r"'encoder' gives .* \(3, 1\): expected \(2, 1\)"),
    ):
        layer(torch.ones(3, 1))


def test_cells_are_ordered_by_the_first_column_first():
    cells = torch.tensor([[1, 0, 0, 0], [0, 0, 9, 0], [0, 0, 0, 8], [0, 1, 0, 0], [0, 0, 0, 8]])
    assert cell_order(cells).tolist() == [2, 4, 1, 3, 0]
    assert cell_order(cells[:0]).tolist() == []
