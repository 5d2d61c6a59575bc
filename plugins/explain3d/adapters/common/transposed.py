"""Transposed convolutions whose kernels do not overlap, as what they are: a product for each cell.

On a CPU torch takes about three times as long for them (``ConvTranspose2d`` of a neck) as for a
convolution of one cell whose channels are then spread over the cells, which has the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ...core.session import overridden


@contextmanager
def spread_transposed(model: nn.Module) -> Iterator[None]:
    """Makes a model's transposed convolutions of maps, where kernel and stride agree, faster.

    Maps on another device than a CPU are left to the module's own ``forward``.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if _tiles(module):
                stack.enter_context(overridden(module, 'forward', _forward(module)))
        yield


def _tiles(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.ConvTranspose2d)
        and module.kernel_size == module.stride == (module.stride[0],) * 2
        and (module.padding, module.output_padding) == ((0, 0), (0, 0))
        and (module.dilation, module.groups) == ((1, 1), 1)
    )


def _forward(module: nn.ConvTranspose2d) -> Callable[..., Tensor]:
    stock, factor = module.forward, module.stride[0]

    def forward(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Subclasses have other arguments: mmcv's takes the input alone.
        if value.device.type != 'cpu' or args or kwargs:
            return stock(value, *args, **kwargs)
        # (C, K, s, s) to (K s s, C, 1, 1): the order in which pixel_shuffle takes channels apart.
        weight = module.weight.flatten(1).T[:, :, None, None]
        bias = None
        if module.bias is not None:
            bias = module.bias.repeat_interleave(factor * factor)
        return functional.pixel_shuffle(functional.conv2d(value, weight, bias), factor)

    return forward
