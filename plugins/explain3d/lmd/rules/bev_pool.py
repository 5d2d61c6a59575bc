"""Pooling of lifted image features into the bird's eye, by a compiled extension (BEVFusion)."""

from __future__ import annotations

from torch import Tensor, nn

from ..call import Call
from ..registry import method_rule
from ..twin import plain
from .views import by_row


def _is_view_transform(module: nn.Module) -> bool:
    return hasattr(type(module), 'bev_pool') and hasattr(type(module), 'get_geometry')


@method_rule('bev_pool', _is_view_transform)
def _bev_pool(call: Call, module: nn.Module, geom_feats: Tensor, x: Tensor) -> Tensor:
    """Sums the features of each cell: the host's own method, on each component by itself.

    The positions (B, N, D, H, W, 3) say which cell a feature (B, N, D, H, W, C) falls into, which
    is a selection: they are constants.
    """
    geometry = call.constants('geometry', plain(geom_feats))
    rows = call.rows(x)
    out = call.plain(plain(geom_feats), plain(x))
    return call.carry(out, by_row(lambda row: call.func(geometry, row), rows, out))
