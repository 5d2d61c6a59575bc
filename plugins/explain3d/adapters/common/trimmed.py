"""Convolutions of which a part of the output is wanted: the rest is zeros, and costs nothing."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .windows import Spans


def can_be_trimmed(module: nn.Module) -> bool:
    """Whether ``trimmed`` knows the module: a convolution of a map, or a transposed one."""
    if isinstance(module, nn.ConvTranspose2d):
        plain = module.padding == (0, 0) and module.output_padding == (0, 0)
        full = all(k >= s for k, s in zip(module.kernel_size, module.stride, strict=True))
        return plain and full and module.dilation == (1, 1)
    if not isinstance(module, nn.Conv2d) or isinstance(module.padding, str):
        return False
    return module.padding_mode == 'zeros'


def size_of(module: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """Returns the size of what ``module`` gives for a map of the size ``shape``."""
    arguments = zip(
        shape, module.kernel_size, module.stride, module.padding, module.dilation, strict=True
    )
    if isinstance(module, nn.ConvTranspose2d):
        return tuple((n - 1) * s + k for n, k, s, _, _ in arguments)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in arguments)


def trimmed(module: nn.Module, value: Tensor, wanted: Spans) -> Tensor:
    """Returns what ``module`` gives for a map, where it is wanted, and zeros elsewhere.

    Args:
        module: See ``can_be_trimmed``.
        value: (B, C, H, W).
        wanted: Rows and columns of the output.
    """
    size = size_of(module, tuple(value.shape[2:]))
    inner = _transposed if isinstance(module, nn.ConvTranspose2d) else _convolved
    found = inner(module, value, wanted)
    (y0, y1), (x0, x1) = wanted
    return functional.pad(found, (x0, size[1] - x1, y0, size[0] - y1))


def _convolved(module: nn.Conv2d, value: Tensor, wanted: Spans) -> Tensor:
    cut, padding = [], []
    for axis, (first, end) in enumerate(wanted):
        k, s = module.kernel_size[axis], module.stride[axis]
        p, d = module.padding[axis], module.dilation[axis]
        low, high = first * s - p, (end - 1) * s - p + d * (k - 1) + 1
        n = value.shape[2 + axis]
        cut.append(slice(max(low, 0), min(high, n)))
        padding = [max(-low, 0), max(high - n, 0), *padding]
    part = value[:, :, cut[0], cut[1]]
    if any(padding):
        part = functional.pad(part, padding)
    return functional.conv2d(
        part, module.weight, module.bias, module.stride, 0, module.dilation, module.groups
    )


def _transposed(module: nn.ConvTranspose2d, value: Tensor, wanted: Spans) -> Tensor:
    cut, keep = [], []
    for axis, (first, end) in enumerate(wanted):
        k, s = module.kernel_size[axis], module.stride[axis]
        low = max(-((k - 1 - first) // s), 0)  # The first cell whose kernel reaches ``first``.
        high = min((end - 1) // s + 1, value.shape[2 + axis])
        cut.append(slice(low, high))
        keep.append(slice(first - low * s, end - low * s))
    found = functional.conv_transpose2d(
        value[:, :, cut[0], cut[1]], module.weight, module.bias, module.stride, 0, 0,
        module.groups, module.dilation,
    )  # fmt: skip
    return found[:, :, keep[0], keep[1]]
