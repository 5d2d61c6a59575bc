"""Attention: the weights are frozen, the way of the values is linear. Softmax: a constant."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import NotApplicableError
from ..call import Call
from ..registry import forms, rule
from ..rows import Rows
from .sums import operand

_LOG = logging.getLogger('explain3d')
_SAID: set[str] = set()


@rule(*forms('softmax', 'log_softmax', 'softmin'), F.gumbel_softmax)
def _softmax(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if 'softmax' not in _SAID:
        _SAID.add('softmax')
        _LOG.info(
            'Softmax in module %r is decomposed as a constant: all of it is the bias (said once).',
            call.module,
        )
    return call.carry_constant(call.plain(), gate=True)


@rule(F.scaled_dot_product_attention)
def _scaled_dot_product_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if dropout_p > 0:
        _refuse_dropout(call)

    def weights() -> Tensor:
        q, k = query.detach(), key.detach()
        if enable_gqa:
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        scores = (q @ k.mT) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if is_causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        if attn_mask is not None:
            mask = attn_mask.detach()
            scores = (
                scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
            )
        # A row that may attend to nothing attends to nothing, as in torch.
        return torch.softmax(scores, -1).nan_to_num()

    weights = call.at_operating_point('attention', weights)
    rows = operand(call, 'value', value)
    stack = rows.lifted(query.dim())
    if enable_gqa:
        stack = stack.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return call.carry(call.plain(), Rows(rows.ids, weights @ stack))


def _refuse_dropout(call: Call) -> None:
    raise NotApplicableError(
        f'Attention in module {call.module!r} drops weights at random: expected a model in eval '
        'mode. Call model.eval().'
    )


@rule(F.multi_head_attention_forward)
def _multi_head_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    if training and dropout_p > 0:
        _refuse_dropout(call)
    if static_k is not None or static_v is not None:
        raise NotApplicableError(
            f'Attention in module {call.module!r} has static keys or values: LMD has no rule.'
        )

    def weights() -> Tensor:
        own = F.multi_head_attention_forward(
            query.detach(), key.detach(), value.detach(), embed_dim_to_check, num_heads,
            in_proj_weight, in_proj_bias, bias_k, bias_v, add_zero_attn, 0.0, out_proj_weight,
            out_proj_bias, False, key_padding_mask, True, attn_mask, use_separate_proj_weight,
            q_proj_weight, k_proj_weight, v_proj_weight, average_attn_weights=False,
            # Without weights torch lets the hint replace the mask; with them it is the mask.
            is_causal=is_causal and attn_mask is not None,
        )[1]  # fmt: skip
        return own if query.dim() == 3 else own[None]

    attention = call.at_operating_point('attention', weights)  # (B, heads, L, S + extra)
    width = embed_dim_to_check
    weight = v_proj_weight if use_separate_proj_weight else in_proj_weight[2 * width :]
    shift = None if in_proj_bias is None else in_proj_bias[2 * width :]
    rows = operand(call, 'value', value)
    stack = rows.stack if value.dim() == 3 else rows.stack.unsqueeze(2)

    def attended(values: Tensor, weights: Tensor) -> Tensor:
        """Maps (n, S, B, E) projected values to (n, L, B, E)."""
        heads = values.unflatten(-1, (num_heads, -1)).permute(0, 2, 3, 1, 4)
        return (weights @ heads.to(weights.dtype)).permute(0, 3, 1, 2, 4).flatten(-2)

    length = stack.shape[1]
    mixed = attended(F.linear(stack, weight), attention[..., :length])
    rows = Rows(rows.ids, F.linear(mixed, out_proj_weight))

    def constant() -> Tensor | None:
        """What the attention gives for values of zero."""
        out = 0.0 if out_proj_bias is None else out_proj_bias
        fixed = attention.new_zeros(1, attention.shape[-1], attention.shape[0], width)
        if shift is not None:
            fixed[:, :length] = shift
        if bias_v is not None:
            fixed[:, length] = bias_v[0]
        return F.linear(attended(fixed, attention), out_proj_weight)[0] + out

    rows = call.constant(rows, constant)
    if query.dim() == 2:
        rows = Rows(rows.ids, rows.stack.squeeze(2))
    out, plain_weights = call.plain()
    return call.carry(out, rows), plain_weights
