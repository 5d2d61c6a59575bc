"""Versions of a frame: what one convolution after the other gives, against each by itself."""

import pytest
import torch

from explain3d.adapters.common.sparse_rows import Layer, Tree, convolve, versions_of

SHAPE = (4, 7, 8)
KERNEL = (3, 3, 3)
VERSIONS = 6


def frame(seed=0):
    """Some cells of a grid, and their features."""
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(SHAPE, generator=generator) < 0.4).nonzero()
    return cells, torch.randn(len(cells), 3, generator=generator, dtype=torch.float64)


def neighbours(cells, stride):
    """The pairs of a 3 x 3 x 3 kernel with padding 1, and the output's cells; cell by cell."""
    here = {tuple(cell): row for row, cell in enumerate(cells.tolist())}
    out, found = {}, [([], []) for _ in range(27)]
    if stride == 1:
        out = dict(here)
    for cell, row in here.items():
        for offset in range(27):
            step = (offset // 9, offset // 3 % 3, offset % 3)
            place = tuple(c + 1 - s for c, s in zip(cell, step, strict=True))
            target = tuple(p // stride for p in place)
            if any(p % stride for p in place) or min(place) < 0:
                continue
            if any(t > (n - 1) // stride for t, n in zip(target, SHAPE, strict=True)):
                continue
            if stride == 1 and target not in out:
                continue
            found[offset][0].append(row)
            found[offset][1].append(out.setdefault(target, len(out)))
    pairs = [(i, torch.tensor(a), torch.tensor(b)) for i, (a, b) in enumerate(found) if a]
    return pairs, torch.tensor(list(out))


def dense(cells, features, weight, bias, stride):
    """The same by a dense convolution: values of all cells, and which of them are there."""
    grid = features.new_zeros(1, features.shape[1], *SHAPE)
    there = features.new_zeros(1, 1, *SHAPE)
    grid[0, :, cells[:, 0], cells[:, 1], cells[:, 2]] = features.T
    there[0, 0, cells[:, 0], cells[:, 1], cells[:, 2]] = 1
    kernel = weight.permute(2, 1, 0).reshape(weight.shape[2], weight.shape[1], *KERNEL)
    values = torch.nn.functional.conv3d(grid, kernel, bias, stride, 1)[0]
    seen = torch.nn.functional.conv3d(there, torch.ones(1, 1, *KERNEL).double(), None, stride, 1)
    return values, (there if stride == 1 else seen)[0, 0] > 0


def at(grid, cells):
    return grid[..., cells[:, 0], cells[:, 1], cells[:, 2]]


def layer_of(cells, features, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(27, features.shape[1], 5, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64)
    pairs, out = neighbours(cells, stride)
    values, _ = dense(cells, features, weight, bias, stride)
    indices = torch.cat([torch.zeros(len(out), 1).int(), out.int()], dim=1)
    return Layer(
        pairs, weight, bias, features, at(values, out).T, indices, SHAPE, stride == 1
    )  # fmt: skip


def kept():
    """(N, B) which cells each version keeps: none removed, a few, a block, nearly all, all."""
    cells, _ = frame()
    generator = torch.Generator().manual_seed(5)
    draw = torch.rand(len(cells), generator=generator)
    block = (cells[:, 1] < 4) & (cells[:, 2] < 4)
    return torch.stack(
        [draw > 2, draw > 0.2, ~block, block, draw > 0.9, draw < 2], dim=1
    )  # fmt: skip


@pytest.mark.parametrize('stride', [1, 2])
def test_each_version_is_what_it_is_by_itself(stride):
    cells, features = frame()
    layer = layer_of(cells, features, stride, 1)
    keep = kept()
    moved = features[:, None].repeat(1, VERSIONS, 1)
    moved[3, 1] += 1  # Points were taken out of a voxel that is still there.
    moved[~keep] = 0
    found = versions_of(features, torch.arange(len(cells)), moved, keep)
    result = convolve(layer, found)
    out = layer.indices[:, 1:].long()
    values = result.features.view(len(result.rows), VERSIONS, -1)
    for version in range(VERSIONS):
        mine = keep[:, version]
        grid, there = dense(
            cells[mine], moved[mine, version], layer.weight, layer.bias, stride
        )  # fmt: skip
        assert torch.equal(at(there, out[result.rows]), result.active[:, version])
        expected = layer.target.clone()
        expected[result.rows] = values[:, version]
        has = at(there, out)
        torch.testing.assert_close(expected[has], at(grid, out).T[has])


def test_two_layers_in_a_row():
    cells, features = frame()
    first = layer_of(cells, features, 1, 1)
    second = layer_of(cells, first.target.relu(), 1, 2)
    keep = kept()
    moved = (features[:, None] * keep[..., None]).contiguous()
    state = convolve(first, versions_of(features, torch.arange(len(cells)), moved, keep))
    state = convolve(second, type(state)(**{**vars(state), 'features': state.features.relu()}))
    values = state.features.view(len(state.rows), VERSIONS, -1)
    for version in range(VERSIONS):
        mine = cells[keep[:, version]]
        middle, _ = dense(mine, features[keep[:, version]], first.weight, first.bias, 1)
        grid, there = dense(mine, at(middle, mine).T.relu(), second.weight, second.bias, 1)
        has = at(there, cells[state.rows])
        assert torch.equal(has, state.active[:, version])
        torch.testing.assert_close(values[has, version], at(grid, cells[state.rows]).T[has])


def test_what_is_equal_is_left_alone():
    cells, features = frame()
    moved = features[:, None].repeat(1, 3, 1)
    keep = torch.ones(len(cells), 3, dtype=torch.bool)
    found = versions_of(features, torch.arange(len(cells)), moved, keep)
    assert len(found.rows) == 0
    assert len(convolve(layer_of(cells, features, 1, 1), found).rows) == 0


def test_versions_are_compared_with_what_they_resemble():
    # Rows go one by one; the order of the versions does not matter. The last column: the frame.
    content = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]])
    tree = Tree.of(content)
    assert tree.order == [2, 1, 0]
    assert tree.parent == [1, 2, 3]
    assert Tree.of(torch.tensor([[2, 3, 1], [2, 3, 1], [1, 1, 1]])).parent == [2, 2]
