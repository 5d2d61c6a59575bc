"""Sparse convolution on a CPU with several threads, without spconv's data race.

spconv 2.3's own CPU kernels add partial results to shared rows from several OpenMP threads without
a lock: with more than one thread, values and gradients come out wrong, some of them by half the
largest value, differently at each call, and nothing is said. (One thread is right; but numba, which
MMDetection3D's metrics use, raises the number of threads in passing.) The functions here take the
place of ``spconv.pytorch.ops.indice_conv`` and ``indice_conv_backward`` for tensors on the CPU:
gather, matrix product, ``index_add_``, in the order of the kernel's offsets, which is deterministic
and equal to what spconv computes with one thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def offsets(
    indice_pairs: Tensor, indice_pair_num: Tensor, inverse: bool, subm: bool
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields each kernel offset that connects voxels: its index, input rows, output rows.

    Args:
        indice_pairs: (2, V, M) rows of inputs and outputs for each of V offsets.
        indice_pair_num: (V,) how many of the M are in use.
        inverse: Whether inputs and outputs change places.
        subm: Submanifold: the centre is left out, and counts are stored for one half only.
    """
    counts = indice_pair_num.tolist()
    center = len(counts) // 2
    for i, count in enumerate(counts):
        if subm and i == center:
            continue
        if subm and i > center:
            count = counts[len(counts) - 1 - i]
        if count > 0:
            rows_in, rows_out = indice_pairs[int(inverse), i], indice_pairs[int(not inverse), i]
            yield i, rows_in[:count].long(), rows_out[:count].long()


def kernels(filters: Tensor) -> Tensor:
    """(V, C, K) matrices of V offsets out of (K, ..., C) filters."""
    return filters.reshape(filters.shape[0], -1, filters.shape[-1]).permute(1, 2, 0).contiguous()


def _forward(
    features: Tensor,
    filters: Tensor,
    indice_pairs: Tensor,
    indice_pair_num: Tensor,
    num_activate_out: int,
    inverse: bool = False,
    subm: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolves (N, C) features with (K, ..., C) filters to (num_activate_out, K)."""
    weight = kernels(filters)
    if subm:
        out = features @ weight[len(weight) // 2]
    else:
        out = features.new_zeros(num_activate_out, weight.shape[2])
    for i, rows_in, rows_out in offsets(indice_pairs, indice_pair_num, inverse, subm):
        out.index_add_(0, rows_out, features.index_select(0, rows_in) @ weight[i])
    return out if bias is None else out.add_(bias)


def _backward(
    features: Tensor,
    filters: Tensor,
    out_bp: Tensor,
    indice_pairs: Tensor,
    indice_pair_num: Tensor,
    inverse: bool = False,
    subm: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Returns the gradients of (N, C) features and (K, ..., C) filters.

    Filters that require none, as those of a frozen network, get None: about half of the work.
    """
    weight = filters.reshape(filters.shape[0], -1, filters.shape[-1])
    wanted = filters.requires_grad
    weight_gradient = torch.zeros_like(weight) if wanted else None
    if subm:
        center = weight.shape[1] // 2
        gradient = out_bp @ weight[:, center]
        if wanted:
            weight_gradient[:, center] = out_bp.T @ features
    else:
        gradient = torch.zeros_like(features)
    for i, rows_in, rows_out in offsets(indice_pairs, indice_pair_num, inverse, subm):
        part = out_bp.index_select(0, rows_out)
        if wanted:
            weight_gradient[:, i] = part.T @ features.index_select(0, rows_in)
        gradient.index_add_(0, rows_in, part @ weight[:, i])
    return gradient, weight_gradient.reshape(filters.shape) if wanted else None


def _on_cpu(ours: Callable, stock: Callable, ignored: tuple[str, ...]) -> Callable:
    """Returns a function that calls ``ours`` for CPU tensors, and ``stock`` for all others."""

    @functools.wraps(stock)
    def choose(features: Tensor, *args: Any, **kwargs: Any) -> Any:
        fused = kwargs.get('act_type')
        # An activation fused into the convolution is asked for by nobody on a CPU.
        if features.is_cuda or (fused is not None and int(fused) != 0):
            return stock(features, *args, **kwargs)
        return ours(features, *args, **{k: v for k, v in kwargs.items() if k not in ignored})

    choose.explain3d_stock = stock
    return choose


def replace_cpu_kernels(ops: Any) -> None:
    """Puts race-free functions in the place of two of ``spconv.pytorch.ops``; once only.

    Args:
        ops: The module ``spconv.pytorch.ops``. Nothing is done where its filters are not laid out
            as (K, ..., C), which is every version's default from 2.2 on.
    """
    if not getattr(ops, 'ALL_WEIGHT_IS_KRSC', False):
        return
    ignored = ('algo', 'timer', 'act_alpha', 'act_beta', 'act_type')
    for name, ours in (('indice_conv', _forward), ('indice_conv_backward', _backward)):
        stock = getattr(ops, name)
        if not hasattr(stock, 'explain3d_stock'):
            setattr(ops, name, _on_cpu(ours, stock, ignored))
