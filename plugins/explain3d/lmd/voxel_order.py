"""The order of sparse tensors' rows: a frozen network's voxels stand as they were recorded.

On a GPU, strided sparse convolutions list their voxels in an order of chance. What a record keeps
of the operations behind them (slopes, selections) has one entry for each row: a replay puts the
rows back into the order of the record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.capture import cell_order, with_features
from ..core.errors import InputError
from .frozen import kept

if TYPE_CHECKING:
    from .decomposition import Decomposition


class InRecordedOrder:
    """The forward function of a sparse convolution, whose voxels it notes or puts in order.

    Those of convolutions that nothing decomposed goes into are noted too, for seeds may come behind
    them; where they are others, such a convolution is left as it is.

    Args:
        run: The decomposition, which makes a record or follows one.
        module: The convolution.
        forward: Its forward function.
        strict: Whether other voxels are refused: the linear network has none there.
    """

    def __init__(
        self, run: Decomposition, module: nn.Module, forward: Callable, strict: bool
    ) -> None:
        self._run, self._module, self._forward = run, module, forward
        self._path, self._strict = run.module, strict
        self._wanted: Tensor | None = None
        self._has_run = False

    def __call__(self, sparse: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs the convolution: the first time on the network's values, then on components.

        Args:
            sparse: The sparse tensor that goes in.
            args: The other positional arguments of the convolution.
            kwargs: The keyword arguments of the convolution.

        Raises:
            InputError: If its voxels are others than those of the record, or if those that go in
                stand in another order, which the operations before have not known.
        """
        replays = self._run.frozen is not None
        out = self._forward(
            _as_in_table(self._module, sparse) if replays else sparse, *args, **kwargs
        )
        if not self._has_run:
            self._has_run = True
            noted = self._run.noted_voxels(
                self._path, lambda: kept(dict(input=sparse.indices, output=out.indices))
            )
            if replays:
                self._wanted = self._fitting(noted, sparse, out)
        return out if self._wanted is None else reordered(out, self._wanted)

    def _fitting(self, noted: dict[str, Tensor] | None, sparse: Any, out: Any) -> Tensor | None:
        """Returns the voxels in the recorded order, or None where others are let pass."""
        same = noted is not None and all(
            same_cells(now, noted[name])
            for name, now in (('input', sparse.indices), ('output', out.indices))
        )
        if not same:
            if self._strict:
                raise self._misfit('the voxels', 'are others')
            return None
        if self._strict and not torch.equal(sparse.indices, noted['input']):
            raise self._misfit('the input voxels', 'come in another order')
        return noted['output']

    def _misfit(self, what: str, how: str) -> InputError:
        return InputError(
            f'The frozen record does not fit: {what} of module {self._path!r} {how}. Record the '
            'same network on a cloud of the same voxels.'
        )


def same_cells(found: Tensor, wanted: Tensor) -> bool:
    """Whether the (N, D) cells are the same, in whatever order."""
    if found.shape != wanted.shape:
        return False
    return torch.equal(found, wanted) or torch.equal(
        found[cell_order(found)], wanted[cell_order(wanted)]
    )


def reordered(sparse: Any, wanted: Tensor) -> Any:
    """Returns the sparse tensor with its rows in the order of ``wanted``.

    Args:
        sparse: The sparse tensor.
        wanted: (N, D) its indices in another order.
    """
    if torch.equal(sparse.indices, wanted):
        return sparse
    order = torch.empty(len(wanted), dtype=torch.long, device=wanted.device)
    order[cell_order(wanted)] = cell_order(sparse.indices)
    out = with_features(sparse, sparse.features[order])
    out.indices = sparse.indices[order]
    return out


def _as_in_table(module: nn.Module, sparse: Any) -> Any:
    """Returns an inverse convolution's input in the order that its table of neighbours counts in.

    The table is that of the convolution on the way down, whose voxels have been put in order since.
    """
    table = sparse.find_indice_pair(module.indice_key) if module.inverse else None
    if table is None:
        return sparse
    # mmcv's copy of spconv has a tuple.
    voxels = table[0] if isinstance(table, tuple) else table.out_indices
    return reordered(sparse, voxels) if same_cells(voxels, sparse.indices) else sparse
