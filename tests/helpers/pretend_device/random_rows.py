"""Strided sparse convolutions that give their voxels in an order of chance, as on a GPU.

spconv's maintainer, issue 592: "the order of out inds of regular conv is undefined".
"""

from contextlib import contextmanager
from unittest import mock

import torch


@contextmanager
def random_rows(seed=0):
    """Each call of a strided convolution, also the same one again, has an order of its own."""
    import spconv.pytorch.ops as ops

    stock, chance = ops.get_indice_pairs, torch.Generator().manual_seed(seed)

    def shuffled(*args, **kwargs):
        out, pairs, counts = stock(*args, **kwargs)
        # Arguments are indices, batch_size, spatial_shape, algo, ksize, stride, padding, dilation,
        # out_padding, subm.
        if kwargs.get('subm', len(args) > 9 and args[9]) or len(out) < 2:
            return out, pairs, counts
        order = torch.randperm(len(out), generator=chance).to(out.device)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(out), device=out.device)
        pairs = pairs.clone()
        for offset, count in enumerate(counts.tolist()):
            pairs[1, offset, :count] = place[pairs[1, offset, :count].long()].to(pairs)
        return out[order].contiguous(), pairs, counts

    with mock.patch.object(ops, 'get_indice_pairs', shuffled):
        yield
