"""Linear operations: each component must be the operation of that component, the rest the bias."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import OFFSET, TOLERANCE, OneOperation, decompose, inputs

torch.manual_seed(0)
INDEX = torch.tensor([3, 0, 0, 1])
MASK = torch.rand(6, 6) > 0.4
WEIGHT = torch.randn(6, 4, 3, 3, dtype=torch.float64)
DEEP = torch.randn(2, 4, 6, 6, dtype=torch.float64)
SQUARE = torch.randn(6, 6, dtype=torch.float64)


def weight(x, *shape):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(x)


def view3(x):
    return x.flatten(2)


def setitem(x):
    out = torch.zeros_like(x)
    out[:, INDEX.unique()] = x[:, :3] * 2
    out[0, 2] = 5.0
    return out


def view_then_write(x):
    x = x * 1
    first = x[:, 0]
    first += x[:, 1]
    x.view(2, -1)[:, 3] = 1.0
    return x


def write_into_view_of_plain(x):
    canvas = x.new_zeros(2, 4, 40)
    for b in range(2):
        row = canvas[b]
        row[:, :36] = x[b].flatten(1)
    return canvas.view(2, 4, 5, 8)


def iadd_to_plain(x):
    out = torch.ones_like(x)
    out += x
    return out


def skip_from_before_inplace(x):
    y = x * 2
    z = y.view(2, 4, 36)
    y.mul_(3)
    return z + 1


CASES = {
    # convolutions
    'conv1d': lambda x: F.conv1d(view3(x), weight(x, 5, 4, 3), weight(x, 5), padding=1),
    'conv2d': lambda x: F.conv2d(x, WEIGHT.to(x), None, 2, 1),
    'conv2d groups': lambda x: F.conv2d(x, weight(x, 4, 2, 3, 3), weight(x, 4), groups=2),
    'conv2d same dilated': lambda x: F.conv2d(x, WEIGHT.to(x), padding='same', dilation=2),
    'conv2d unbatched': lambda x: F.conv2d(x[0], WEIGHT.to(x), weight(x, 6)),
    'conv2d keywords': lambda x: torch.conv2d(input=x, weight=WEIGHT.to(x), bias=weight(x, 6)),
    'conv3d': lambda x: F.conv3d(x.unsqueeze(1), weight(x, 3, 1, 3, 3, 3), weight(x, 3)),
    'conv_transpose1d': lambda x: F.conv_transpose1d(view3(x), weight(x, 4, 5, 3), weight(x, 5)),
    'conv_transpose2d': lambda x: F.conv_transpose2d(x, weight(x, 4, 5, 2, 2), None, stride=2),
    'conv_transpose2d groups': lambda x: F.conv_transpose2d(
        x, weight(x, 4, 3, 2, 2), weight(x, 6), stride=2, groups=2
    ),
    'conv_transpose3d': lambda x: F.conv_transpose3d(x.unsqueeze(1), weight(x, 1, 2, 2, 2, 2)),
    'linear': lambda x: F.linear(x, weight(x, 5, 6), weight(x, 5)),
    'linear no bias': lambda x: F.linear(x, weight(x, 5, 6)),
    # sums
    'add': lambda x: x + 2 * x + 1.5,
    'radd': lambda x: 1 + x,
    'add alpha': lambda x: torch.add(x, DEEP.to(x), alpha=3),
    'add broadcast': lambda x: x[:, :1, :1] + x,
    'add method': lambda x: x.add(DEEP.to(x)).add_(1),
    'plain plus carried': lambda x: DEEP.to(x) + x,
    'iadd to plain': iadd_to_plain,
    'sub': lambda x: x - DEEP.to(x) - x * 0.5,
    'rsub': lambda x: 1 - x,
    'torch.rsub': lambda x: torch.rsub(x, 2),
    'isub': lambda x: (x * 1).sub_(1).__isub__(x),
    'neg': lambda x: -x + x.neg() + torch.neg(x).neg_(),
    'pos': lambda x: +x,
    'lerp': lambda x: torch.lerp(x, DEEP.to(x), 0.3),
    'copy_': lambda x: torch.empty_like(x).copy_(x),
    'fill_': lambda x: (x * 1).fill_(2) + (x * 1).zero_(),
    'addmm': lambda x: torch.addmm(weight(x, 5), x[0, 0], weight(x, 6, 5), alpha=2, beta=3),
    'baddbmm': lambda x: torch.baddbmm(x[:, 0], x[:, 1], SQUARE.to(x).expand(2, 6, 6)),
    'addcmul': lambda x: torch.addcmul(x, DEEP.to(x), x, value=0.5),
    'addcdiv_': lambda x: (x * 1).addcdiv_(x, DEEP.to(x), value=0.5),
    # products with constants
    'mul': lambda x: 2 * x * DEEP.to(x) * x.new_tensor(3.0),
    'imul': lambda x: (x + 0).mul_(2).__imul__(DEEP.to(x)),
    'div': lambda x: x / 2 / DEEP.to(x),
    'div_': lambda x: (x + 0).div_(3).__itruediv__(2),
    'matmul': lambda x: (
        x @ SQUARE.to(x) + SQUARE.to(x) @ x + torch.matmul(x, weight(x, 6))[..., None]
    ),
    'matmul vector': lambda x: torch.mv(SQUARE.to(x), x[0, 0, 0]) + x[0, 0, 0] @ SQUARE.to(x),
    'mm': lambda x: torch.mm(SQUARE.to(x), x[0, 0]),
    'bmm': lambda x: (
        torch.bmm(SQUARE.to(x).expand(2, 6, 6), x[:, 0]) + x[:, 1].bmm(x.new_ones(2, 6, 6))
    ),
    'rmatmul': lambda x: x[0].__rmatmul__(SQUARE.to(x)),
    'einsum': lambda x: torch.einsum('bchw,wk->bkhc', x, SQUARE.to(x)),
    'einsum implicit': lambda x: torch.einsum('ij,jk', SQUARE.to(x), x[0, 0]),
    'einsum ellipsis': lambda x: torch.einsum('...ij,jk->...ik', x, SQUARE.to(x)),
    'einsum one': lambda x: torch.einsum('bchw->bc', [x]),
    # shapes
    'view': lambda x: x.view(2, -1) * 1,
    'reshape copy': lambda x: x.permute(0, 2, 3, 1).reshape(2, -1),
    'reshape function': lambda x: torch.reshape(x.transpose(1, 2), (2, 4, 36)),
    'flatten': lambda x: torch.flatten(x, 1) + nn.Flatten()(x),
    'unflatten': lambda x: x.unflatten(1, (2, 2)).permute(0, 2, 1, 3, 4).flatten(1, 2),
    'expand': lambda x: x[:, :1].expand(2, 3, 6, 6) + x[:, :1].expand_as(x[:, :3]),
    'repeat': lambda x: x.repeat(1, 2, 1, 3),
    'repeat_interleave': lambda x: x.repeat_interleave(2, dim=1) + torch.tile(x, (1, 2, 1, 1)),
    'T': lambda x: x[0, 0].T + x[0, 0].mT + x[0, 0].t(),
    'movedim': lambda x: torch.movedim(x, 1, -1).contiguous(),
    'unsqueeze_': lambda x: (x * 1).unsqueeze_(1).squeeze_(1).transpose_(1, 2),
    'unbind': lambda x: sum(x.unbind(1)),
    'split': lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    'chunk': lambda x: torch.stack(torch.chunk(x, 2, dim=2), 1),
    'tensor_split': lambda x: torch.tensor_split(x, 3, dim=1)[0],
    'iteration': lambda x: torch.stack([row * 2 for row in x]),
    'cat mixed': lambda x: torch.cat([x, DEEP.to(x), x * 2], dim=1),
    'cat empty': lambda x: torch.cat([x.new_zeros(0), x], dim=1),
    'cat negative': lambda x: torch.cat((DEEP.to(x), x), dim=-1),
    'stack mixed': lambda x: torch.stack([x, DEEP.to(x)], dim=-1),
    'unfold method': lambda x: x.unfold(2, 3, 1) * 1,
    'narrow select': lambda x: x.narrow(1, 1, 2) + x.select(1, 0).unsqueeze(1),
    'diagonal': lambda x: torch.diagonal(x, dim1=-2, dim2=-1),
    'clone detach': lambda x: x.clone().detach().contiguous() + x.data,
    'channels_last': lambda x: x.contiguous(memory_format=torch.channels_last) + 1,
    'to double': lambda x: x.double() + x.to(torch.float64) + x.to(dtype=torch.float64),
    'to same': lambda x: x.to(x.device).type_as(x).requires_grad_(False),
    'roll flip': lambda x: torch.roll(x, 2, 3).flip(2) + torch.flip(x, (1, 3)) + x.rot90(2, (2, 3)),
    'tril': lambda x: torch.tril(x) + x.triu(),
    'pad': lambda x: F.pad(x, (1, 2, 0, 1)) + F.pad(x, (1, 2, 0, 1), value=2.0),
    'pad modes': lambda x: (
        F.pad(x, (1, 1, 0, 0), 'circular') + F.pad(x, (1, 1, 0, 0), mode='replicate')
    ),
    'reflection module': lambda x: nn.ReflectionPad2d(1)(x) + nn.ZeroPad2d(1)(x),
    'pixel_shuffle': lambda x: F.pixel_shuffle(x, 2) + x.flatten(1).view(2, 1, 12, 12),
    'pixel_unshuffle': lambda x: nn.PixelUnshuffle(2)(x),
    'unfold fold': lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1),
    'meshgrid': lambda x: torch.meshgrid(x[0, 0, 0], x[0, 0, 1], indexing='ij')[0] * 1,
    'broadcast_tensors': lambda x: torch.broadcast_tensors(x[:, :1], x)[0] * 1,
    'hstack': lambda x: torch.hstack([x, DEEP.to(x)]) + torch.block_diag(x[0, 0], x[0, 1])[:6, :6],
    # selecting and writing
    'getitem': lambda x: x[:, 1:3, ::2] * 1,
    'getitem list': lambda x: x[:, [2, 0]] + x[:, INDEX[:2]],
    'getitem mask': lambda x: x[..., MASK],
    'getitem apart': lambda x: x[INDEX[1:3], :, INDEX[:2]],
    'getitem none': lambda x: x[None, ..., 0],
    'gather': lambda x: x.gather(1, INDEX.view(1, 4, 1, 1).expand(2, 4, 6, 6)),
    'index_select': lambda x: torch.index_select(x, 1, INDEX),
    'take_along_dim': lambda x: torch.take_along_dim(x, INDEX.view(1, 4, 1, 1), 1),
    'masked_select': lambda x: torch.masked_select(x, MASK),
    'masked_fill': lambda x: x.masked_fill(MASK, 0.0) + torch.masked_fill(x, MASK, 2.0),
    'masked_fill_': lambda x: (x * 1).masked_fill_(MASK, -1.0),
    'where': lambda x: torch.where(MASK, x, 2.0) + torch.where(MASK, DEEP.to(x), x),
    'where method': lambda x: x.where(MASK, x * 2),
    'setitem': setitem,
    'view then write': view_then_write,
    'write into a view of plain': write_into_view_of_plain,
    'skip from before in-place': skip_from_before_inplace,
    'index_put_': lambda x: torch.zeros_like(x).index_put_((INDEX[:2] % 2, INDEX[:2]), x[0, :2]),
    'index_add_': lambda x: torch.zeros_like(x).index_add_(1, INDEX, x, alpha=2),
    'index_add': lambda x: torch.index_add(x, 1, INDEX, DEEP.to(x)),
    'index_copy': lambda x: x.index_copy(1, INDEX[:1], DEEP[:, :1].to(x)),
    'index_fill': lambda x: x.index_fill(1, INDEX[:2], 2.0),
    'scatter': lambda x: torch.zeros_like(x).scatter(
        3, INDEX.expand(2, 4, 6, 4)[..., :2], x[..., :2]
    ),
    'scatter_ value': lambda x: (x * 1).scatter_(3, INDEX.expand(2, 4, 6, 4), 2.0),
    'scatter_add_': lambda x: torch.ones_like(x).scatter_add_(3, INDEX.expand(2, 4, 6, 4), x),
    'masked_scatter': lambda x: x.masked_scatter(MASK, x.flip(1)),
    # reductions
    'mean': lambda x: x.mean((2, 3)) + torch.mean(x, dim=(-1, -2)) + x.mean(dim=[2, 3]),
    'mean keepdim': lambda x: x.mean((2, 3), True) + x.mean(1, keepdim=True),
    'sum': lambda x: x.sum(1) + torch.sum(x, 1),
    'sum all': lambda x: x.sum() + x.mean(),
    'cumsum': lambda x: torch.cumsum(x, 1),
    # pooling and sampling
    'avg_pool': lambda x: F.avg_pool2d(x, 2) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    'avg_pool1d': lambda x: F.avg_pool1d(view3(x), 2) + F.adaptive_avg_pool1d(view3(x), 18),
    'avg_pool3d': lambda x: (
        F.avg_pool3d(x.unsqueeze(1), 2) + F.adaptive_avg_pool3d(x.unsqueeze(1), (2, 3, 3))
    ),
    'adaptive_avg_pool': lambda x: F.adaptive_avg_pool2d(x, (3, 2)) + nn.AdaptiveAvgPool2d(1)(x),
    'interpolate': lambda x: F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True),
    'interpolate nearest': lambda x: F.interpolate(x, size=(9, 4)),
    'interpolate bicubic': lambda x: F.interpolate(x, (8, 8), mode='bicubic'),
    'upsample module': lambda x: (
        nn.Upsample(scale_factor=2)(x) + nn.UpsamplingBilinear2d(scale_factor=2)(x)
    ),
    'grid_sample': lambda x: F.grid_sample(
        x, weight(x, 2, 5, 5, 2).clamp(-1, 1), align_corners=False
    ),
    'dropout': lambda x: F.dropout(x, 0.5, training=False) + nn.Dropout(0.3).eval()(x),
    'identity': lambda x: nn.Identity()(x) + 0,
}


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('name', CASES)
def test_components_of_linear_operations(name, dtype):
    operation, (a, b) = CASES[name], inputs(dtype)
    run = decompose(OneOperation(operation), a, b, mode='check')
    assert run.residual <= TOLERANCE[dtype]
    found = run.outputs['']
    assert found.conservation_error() <= TOLERANCE[dtype]
    constant = operation(torch.zeros_like(a))
    scale = found.value.abs().max().clamp_min(1)
    expected = {
        'camera': operation(a.clone()) - constant,
        'radar': operation(b.clone()) - constant,
        'bias': operation(torch.full_like(a, OFFSET)),
    }
    for part, value in expected.items():
        assert (found[part] - value).abs().max() <= 10 * TOLERANCE[dtype] * scale, part


@pytest.mark.parametrize('name', CASES)
def test_production_gives_the_same_components(name):
    operation, args = CASES[name], inputs()
    check = decompose(OneOperation(operation), *args, mode='check').outputs['']
    production = decompose(OneOperation(operation), *args).outputs['']
    assert production.residual is None
    scale = check.value.abs().max().clamp_min(1)
    assert (production.parts - check.parts).abs().max() <= 1e-13 * scale
    assert production.conservation_error() <= 1e-15


def test_questions_give_plain_answers():
    def operation(x):
        answers = [x > 0, x.shape, x.argmax(1), x.isnan(), x.dtype, len(x), x.size(1), x == x]
        answers += [x.dim(), x.numel(), x.is_contiguous(), float(x.sum()), x.device, x.stride()]
        answers += [x.long(), x.detach().numpy().shape, x.sum().item(), bool(x.any()), x.nonzero()]
        answers += [torch.zeros_like(x), x.new_zeros(3), torch.is_tensor(x), x.requires_grad]
        for answer in answers:
            assert not isinstance(answer, Tensor) or type(answer) is Tensor
        return x

    run = decompose(OneOperation(operation), *inputs(), rules=dict(exports='allow'))
    assert [e.operation.rpartition('.')[2] for e in run.exports] == ['__float__', 'numpy', 'item']
