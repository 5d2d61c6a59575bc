"""What torch's dispatch does not see: pooling to the bird's eye, scattering, deformable kernels."""

import pytest
import torch
from torch import nn

from explain3d.core.errors import NotApplicableError, UnknownOperationError
from explain3d.lmd import Rules, Seed
from explain3d.lmd.registry import METHOD_RULES
from tests.lmd.networks import decompose, inputs

CELLS = 4
SEEDS = (Seed('', path='a', modality='camera'), Seed('', path='b', modality='lidar'))
OFFSET = 0.3


class Extension(torch.autograd.Function):
    """Any function of tensors, unseen by torch's dispatch as compiled code is."""

    @staticmethod
    def forward(ctx, function, *args):
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args)


class ViewTransform(nn.Module):
    """Lifts features to cells, as BEVFusion's view transforms do; the pooling is an extension."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, 5, 1)
        self.geometry = torch.randint(-1, CELLS + 1, (2, 1, 2, 6, 6, 3))

    def get_geometry(self):
        return self.geometry.double()

    def bev_pool(self, geom_feats, x):
        cells = geom_feats[..., :2].long().flatten(0, -2)
        inside = ((cells >= 0) & (cells < CELLS)).all(1)
        batch = torch.arange(len(x)).repeat_interleave(x[0, ..., 0].numel())[inside]
        index = (batch * CELLS + cells[inside, 0]) * CELLS + cells[inside, 1]
        rows = x.flatten(0, -2)[inside]
        maps = Extension.apply(
            lambda r: r.new_zeros(len(x) * CELLS * CELLS, r.shape[1]).index_add_(0, index, r), rows
        )
        return maps.view(-1, CELLS, CELLS, x.shape[-1]).permute(0, 3, 1, 2)

    def forward(self, x):
        x = self.net(x)
        depth = x[:, :2].softmax(1)
        lifted = depth[:, None] * x[:, 2:, None]  # (B, C, D, H, W)
        return self.bev_pool(self.get_geometry(), lifted[:, None].permute(0, 1, 3, 4, 5, 2)) + 1.0


class Model(nn.Module):
    """``inner(a + b + OFFSET)``."""

    def __init__(self, inner, *more):
        super().__init__()
        self.inner, self.more = inner, more

    def forward(self, a, b):
        return self.inner(a + b + OFFSET, *self.more)


def lifted(shape=(2, 3, 6, 6)):
    model = Model(ViewTransform()).double().eval()
    return model, inputs(shape=shape)


@pytest.mark.parametrize('mode', ['production', 'check'])
def test_each_component_is_pooled_where_the_geometry_says(mode):
    model, args = lifted()
    run = decompose(model, *args, seeds=SEEDS, mode=mode)
    found, transform = run.outputs[''], model.inner
    assert found.conservation_error() < 1e-12
    if mode == 'check':
        assert run.residual < 1e-12
    depth = transform.net(sum(args) + OFFSET)[:, :2].softmax(1)
    weight = transform.net.weight[2:, :, 0, 0]
    for part, component in zip(found.parts, args, strict=False):
        context = torch.einsum('kc,bchw->bkhw', weight, component)
        expected = torch.zeros(2, 3, CELLS, CELLS, dtype=torch.float64)
        for b, d, h, w in torch.ones(2, 2, 6, 6).nonzero().tolist():
            row, column = transform.geometry[b, 0, d, h, w, :2].tolist()
            if 0 <= row < CELLS and 0 <= column < CELLS:
                expected[b, :, row, column] += depth[b, d, h, w] * context[b, :, h, w]
        torch.testing.assert_close(part, expected.detach(), rtol=0, atol=1e-12)


def test_a_replay_pools_where_the_record_did():
    model, args = lifted()
    recorded = decompose(model, *args, seeds=SEEDS, record=True)
    model.inner.geometry = model.inner.geometry.roll(1, 3)
    again = decompose(model, *args, seeds=SEEDS, frozen=recorded.record)
    torch.testing.assert_close(again.outputs[''].parts, recorded.outputs[''].parts)


def test_the_method_is_put_back_and_without_its_rule_the_extension_is_refused(monkeypatch):
    model, args = lifted()
    decompose(model, *args, seeds=SEEDS)
    assert 'bev_pool' not in vars(model.inner)
    assert any(name == 'bev_pool' for _, name, _ in METHOD_RULES)
    monkeypatch.setattr('explain3d.lmd.registry.METHOD_RULES', [])
    with pytest.raises(UnknownOperationError, match="ViewTransform in module 'inner.0'"):
        decompose(Model(nn.Sequential(model.inner, nn.ReLU())).double(), *args, seeds=SEEDS)


class DynamicScatter(nn.Module):
    """As mmcv's: mean or maximum of the points in each voxel, by an extension."""

    def __init__(self, average_points):
        super().__init__()
        self.average_points = average_points

    def forward(self, points, coors):
        valid = (coors >= 0).all(1)
        voxels, number = coors[valid].unique(dim=0, return_inverse=True)
        index = number[:, None].expand(-1, points.shape[1])
        how = 'mean' if self.average_points else 'amax'

        def reduce(rows):
            out = rows.new_zeros(len(voxels), rows.shape[1])
            return out.scatter_reduce_(0, index, rows, how, include_self=False)

        return Extension.apply(reduce, points[valid]), voxels


@pytest.mark.parametrize('average', [True, False])
@pytest.mark.parametrize('mode', ['production', 'check'])
def test_points_are_scattered_as_the_voxels_have_them(average, mode):
    generator = torch.Generator().manual_seed(0)
    coors = torch.randint(-1, 3, (40, 3), generator=generator)
    scatter = DynamicScatter(average)
    args = inputs(shape=(40, 4))
    run = decompose(Model(scatter, coors), *args, seeds=SEEDS, outputs=['inner'], mode=mode)
    found = run.outputs['inner.0']
    assert found.conservation_error() < 1e-14
    points = sum(args) + OFFSET
    voxels = scatter(points, coors)[1]
    for part, component in zip(found.parts, args, strict=False):
        for row, voxel in zip(part, voxels, strict=True):
            inside = (coors == voxel).all(1)
            rows = component[inside]
            if average:
                expected = rows.mean(0)
            else:
                expected = rows.gather(0, points[inside].argmax(0, keepdim=True))[0]
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-14)


def test_voxels_are_copies_of_points():
    ops = pytest.importorskip('mmcv.ops')
    module = ops.Voxelization([1.0, 1.0, 4.0], [-4, -4, -2, 4, 4, 2], 3, 200).eval()
    generator = torch.Generator().manual_seed(0)
    cloud = torch.rand(90, 4, generator=generator) * 10 - 5
    cloud[:, 2] /= 5
    zero = torch.zeros_like(cloud)
    one = torch.where(torch.arange(90)[:, None] < 40, cloud, zero)
    model = Model(module)
    model.forward = lambda a, b: module(a + b)
    run = decompose(model, one, cloud - one, seeds=SEEDS, outputs=['inner'], mode='check')
    found = run.outputs['inner.0']
    assert found.conservation_error() == 0
    assert found.value.shape[1:] == (3, 4)
    first = {tuple(row) for row in cloud[:40].tolist()}
    for voxel, part in zip(found.value.flatten(0, 1), found['camera'].flatten(0, 1), strict=True):
        expected = voxel if tuple(voxel.tolist()) in first else torch.zeros(4)
        assert torch.equal(part, expected)
    with pytest.raises(NotApplicableError, match='not copies'):
        decompose(Model(Shuffled()), one, cloud - one, seeds=SEEDS, outputs=['inner'])


class Voxelization(nn.Module):
    """Gives other voxels each time."""

    def forward(self, points):
        order = torch.randperm(len(points))
        return points[order][:, None] * 1.0, order


class Shuffled(Voxelization):
    pass


@pytest.mark.parametrize('kind', ['DeformConv2dPack', 'ModulatedDeformConv2dPack'])
def test_a_deformable_convolution_that_finds_its_offsets_itself(kind):
    ops = pytest.importorskip('mmcv.ops')
    torch.manual_seed(0)
    module = getattr(ops, kind)(4, 5, 3, padding=1)
    nn.init.normal_(module.conv_offset.weight, 0, 0.3)
    nn.init.normal_(module.weight, 0, 0.3)
    if getattr(module, 'bias', None) is not None:
        nn.init.normal_(module.bias)
    model = Model(nn.Sequential(module, nn.ReLU())).double().eval().requires_grad_(False)
    args = inputs()
    run = decompose(model, *args, seeds=SEEDS, capture=['inner.0'], mode='check')
    assert run.residual < 1e-12
    found = run.captured['inner.0']
    # Linear at fixed offsets: the part of one sensor is the difference that it makes there.
    given = module.conv_offset(sum(args) + OFFSET)
    module.conv_offset.forward = lambda _: given
    whole = sum(args) + OFFSET
    for part, component in zip(found.parts, args, strict=False):
        expected = module(whole) - module(whole - component)
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('kind', ['DeformConv2d', 'ModulatedDeformConv2d'])
def test_a_deformable_convolution_with_given_offsets(kind):
    ops = pytest.importorskip('mmcv.ops')
    torch.manual_seed(0)
    module = getattr(ops, kind)(4, 5, 3, padding=1)
    more = [torch.randn(2, 18, 6, 6).double()]
    more += [torch.rand(2, 9, 6, 6).double()] * (kind != 'DeformConv2d')
    model = Model(module, *more).double().eval().requires_grad_(False)
    args = inputs()
    run = decompose(model, *args, seeds=SEEDS, mode='check')
    assert run.residual < 1e-12
    whole = sum(args) + OFFSET
    for part, component in zip(run.outputs[''].parts, args, strict=False):
        expected = module(whole, *more) - module(whole - component, *more)
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


def test_a_module_of_modules_can_be_declared_constant():
    model = Model(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())).double().eval()
    rules = Rules(per_module={'inner': dict(module='constant')})
    found = decompose(model, *inputs(), seeds=SEEDS, rules=rules, mode='check').outputs['']
    assert torch.equal(found['bias'], found.value)
