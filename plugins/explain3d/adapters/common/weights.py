"""A digest of a detector's weights, to tell results of different checkpoints apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...core.transfer import to_cpu

#: Digests of weights on devices by their fingerprints, so that they come to the CPU once.
_KNOWN: dict[tuple, str] = {}
_MOST = 64
#: Odd numbers whose multiples are spread over 64 bits.
_SPREAD = (-7046029254386353131, -4417276706812531889)


def weights_digest(model: nn.Module) -> str:
    """Returns a digest of the weights.

    Weights on a GPU come to the CPU where they are not known yet, in one wait; others are told by
    a fingerprint that is made where they are.
    """
    state = {n: v for n, v in sorted(model.state_dict().items()) if isinstance(v, Tensor)}
    if all(value.device.type == 'cpu' for value in state.values()):
        return _digest(state)
    found = _fingerprint(state)
    if found not in _KNOWN:
        with to_cpu() as cpu:
            copies = {name: cpu(value) for name, value in state.items()}
        while len(_KNOWN) >= _MOST:
            del _KNOWN[next(iter(_KNOWN))]
        _KNOWN[found] = _digest(copies)
    return _KNOWN[found]


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in state.items():
        digest.update(name.encode())
        digest.update(_bytes(value).numpy())
    return digest.hexdigest()


def _bytes(value: Tensor) -> Tensor:
    return value.detach().contiguous().view(-1).view(torch.uint8)


@torch.no_grad()
def _fingerprint(state: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """Returns names, shapes and two sums of 64 bits over the weights, exact whatever their order.

    Each 4 bytes are mixed with their place; integers add up to the same in any order.
    """
    names = tuple((name, tuple(v.shape), v.dtype, str(v.device)) for name, v in state.items())
    sums = []
    for number, value in enumerate(state.values()):
        words = _words(value)
        place = torch.arange(1, len(words) + 1, device=value.device) + (number << 40)
        mixed = (words ^ (place * _SPREAD[0])) * _SPREAD[1]
        mixed = (mixed ^ (mixed >> 29)) * _SPREAD[0]
        sums.append(torch.stack([mixed.sum(), (mixed ^ (mixed >> 32)).mul(place).sum()]))
    by_device: dict[torch.device, list[Tensor]] = {}
    for one in sums:
        by_device.setdefault(one.device, []).append(one)
    return names, tuple(tuple(torch.stack(s).sum(0).tolist()) for s in by_device.values())


def _words(value: Tensor) -> Tensor:
    """Returns a tensor's memory as int64, 4 bytes each, or 1 where they do not come by fours."""
    content = _bytes(value)
    return (content if len(content) % 4 else content.view(torch.int32)).long()
