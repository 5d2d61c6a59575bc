"""Small networks for the tests: one operation on decomposed tensors, and a few real ones."""

import torch
from torch import nn
from torch.nn import functional as F

from explain3d.lmd import Decomposition, Seed

SHAPE = (2, 4, 6, 6)
SEEDS = (Seed('', path='a', modality='camera'), Seed('', path='b', modality='radar'))
#: What is added to the two modalities before the operation: the bias component.
OFFSET = 0.3
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


class OneOperation(nn.Module):
    """``operation(a + b + OFFSET)``: all three components are dense and none is zero."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, a, b):
        return self.operation(a + b + OFFSET)


def inputs(dtype=torch.float64, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, dtype=dtype, generator=generator) for _ in range(2))


def decompose(model, *args, seeds=SEEDS, outputs=('',), **settings):
    """Runs a model plainly and decomposed; checks that both give the same; returns the run."""
    with torch.no_grad():
        plain = model(*[clone(a) for a in args])
        with Decomposition(model, seeds, outputs, **settings) as run:
            out = model(*[clone(a) for a in args])
    assert_identical(plain, out)
    return run


def clone(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


def assert_identical(plain, out):
    """The same bits and the same types, in nested structures."""
    if isinstance(plain, torch.Tensor):
        assert type(out) is torch.Tensor
        assert out.dtype == plain.dtype
        assert out.stride() == plain.stride()
        assert torch.equal(out.nan_to_num(), plain.nan_to_num())
        assert torch.equal(out.isnan(), plain.isnan())
    elif isinstance(plain, (tuple, list)):
        assert len(plain) == len(out)
        for p, o in zip(plain, out, strict=True):
            assert_identical(p, o)
    else:
        assert plain == out


class Fusion(nn.Module):
    """Two sensors, a fusion convolution, a residual decoder with skips, and a head."""

    def __init__(self, sizes=(5, 3), width=8):
        super().__init__()
        self.fuse = nn.Conv2d(sum(sizes), width, 3, padding=1)
        self.norm = nn.InstanceNorm2d(width)
        self.layer1 = Residual(width)
        self.layer2 = Residual(width, stride=2)
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.InstanceNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2, 1),
        )

    def forward(self, *sensors):
        x = F.gelu(self.norm(self.fuse(torch.cat(sensors, 1))))
        skip = self.layer1(x)
        x = self.layer2(skip)
        x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
        x += skip
        return self.head(x)


class Residual(nn.Module):
    """ResNet's basic block, with one ReLU used twice, in place."""

    def __init__(self, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(width, width, 1, stride) if stride > 1 else nn.Identity()
        for bn in (self.bn1, self.bn2):
            nn.init.normal_(bn.weight, 1, 0.2)
            nn.init.normal_(bn.bias, 0, 0.3)
            bn.running_mean.normal_(0, 0.3)
            bn.running_var.uniform_(0.5, 2)

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(identity)
        return self.relu(out)


def fusion(sizes=(5, 3), dtype=torch.float64, seed=1):
    torch.manual_seed(seed)
    return Fusion(sizes).to(dtype).eval()


def sensors(sizes=(5, 3), dtype=torch.float64, seed=2, batch=2, size=8):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, size, size, dtype=dtype, generator=generator) for c in sizes]


def fusion_seeds(names=('camera', 'radar')):
    return [Seed('', path=str(i), modality=name) for i, name in enumerate(names)]
