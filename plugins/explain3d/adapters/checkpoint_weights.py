"""Where the same computation needs other numbers in the other toolbox.

All functions take a state dict under MMDetection3D's names without the ``pts_`` of CenterPoint
and change it in place. Each states what makes the two computations equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence

import torch
from torch import Tensor

from ..core.errors import CheckpointMismatchError, InputError

State = MutableMapping[str, Tensor]

#: Channels that both sparse backbones of OpenPCDet give out, whatever the configuration.
BACKBONE_CHANNELS = 128

_OUT = 'middle_encoder.conv_out'
_FIRST = 'backbone.blocks.0.0.weight'
_UPSAMPLING = r'neck\.deblocks\.\d+\.0\.weight'
_NORM = {'weight': 0.0, 'bias': 0.0, 'running_mean': 0.0, 'running_var': 1.0}


def kernels_first(state: State) -> None:
    """Brings sparse kernels to spconv 2's layout (output, z, y, x, input).

    spconv 1 has (z, y, x, input, output). The output channels are those of the norm that follows.

    Raises:
        CheckpointMismatchError: If a kernel has neither layout.
    """
    for name in [n for n, v in state.items() if n.startswith('middle_encoder.') and v.ndim == 5]:
        channels = len(state[f'{_norm_of(name.removesuffix(".weight"))}.weight'])
        if state[name].shape[0] == channels:
            continue
        if state[name].shape[-1] != channels:
            raise CheckpointMismatchError(
                f'Expected a sparse kernel for {channels} output channels as {name}, received '
                f'one of shape {tuple(state[name].shape)}: the file is damaged, or its layers '
                'are not those of a SECOND encoder.'
            )
        state[name] = state[name].permute(4, 0, 1, 2, 3).contiguous()


def _norm_of(convolution: str) -> str:
    """Name of the normalisation that follows a convolution."""
    head, dot, last = convolution.rpartition('.')
    return head + dot + ('1' if last == '0' else last.replace('conv', 'bn'))


def biased_layers(state: State) -> list[str]:
    """Convolutions before a norm that OpenPCDet may give a bias, MMDetection3D never does.

    ``USE_BIAS`` of the residual encoder (on unless it is switched off) and
    ``USE_BIAS_BEFORE_NORM`` of the centre head.
    """
    pattern = r'(middle_encoder\..*\.conv[12]|bbox_head\..*\.conv)\.weight'
    return [name.removesuffix('.weight') for name in state if re.fullmatch(pattern, name)]


def add_biases(state: State) -> None:
    """Gives those convolutions a bias of zero.

    Without it OpenPCDet would keep its random one; where the configuration has no bias,
    OpenPCDet ignores it.
    """
    for layer in biased_layers(state):
        weight = state[f'{layer}.weight']
        state[f'{layer}.bias'] = weight.new_zeros(weight.shape[0])


def fold_biases(state: State) -> bool:
    """Moves biases before a norm into its mean: norm(x + b; m) = norm(x; m - b).

    Returns:
        Whether a bias was not zero, so that the means were rounded anew.
    """
    changed = False
    for layer in biased_layers(state):
        bias = state.pop(f'{layer}.bias', None)
        if bias is not None and bias.any():
            mean = f'{_norm_of(layer)}.running_mean'
            state[mean] = (state[mean].double() - bias.double()).to(state[mean].dtype)
            changed = True
    return changed


def pad_encoder(state: State, channels: int = BACKBONE_CHANNELS) -> int:
    """Adds output channels that are zero to the encoder's last layer, as OpenPCDet has 128.

    The bird's-eye-view map has channel ``c * D + d`` for channel c and height d in both
    toolboxes, so the new ones come last, and the 2D backbone gets weights of zero for them.
    Outputs and gradients stay as they are.

    Returns:
        The channels there were.

    Raises:
        CheckpointMismatchError: If there are more than ``channels``.
    """
    kernel, first = state[f'{_OUT}.0.weight'], state[_FIRST]
    had = kernel.shape[0]
    if had > channels:
        raise CheckpointMismatchError(
            f'Expected at most {channels} output channels of the sparse encoder, received {had}: '
            "OpenPCDet's backbones have no more."
        )
    heights, rest = divmod(first.shape[1], had)
    if rest:
        raise CheckpointMismatchError(
            f'Expected the 2D backbone to take a multiple of {had} channels, received '
            f'{first.shape[1]}: encoder and backbone are of different models.'
        )
    extra = channels - had
    state[f'{_OUT}.0.weight'] = _pad(kernel, extra, 0, 0.0)
    for part, value in _NORM.items():
        state[f'{_OUT}.1.{part}'] = _pad(state[f'{_OUT}.1.{part}'], extra, 0, value)
    state[_FIRST] = _pad(first, extra * heights, 1, 0.0)
    return had


def trim_encoder(state: State, channels: int) -> None:
    """Takes away what ``pad_encoder`` added.

    Args:
        state: As for all functions here.
        channels: Output channels to keep.

    Raises:
        CheckpointMismatchError: If the others are not zero any more: it was trained since.
    """
    kernel, first = state[f'{_OUT}.0.weight'], state[_FIRST]
    kept = channels * (first.shape[1] // kernel.shape[0])
    parts = [state[f'{_OUT}.1.{part}'] for part in ('weight', 'bias')]
    if any(part[channels:].any() for part in (kernel, *parts)) or first[:, kept:].any():
        raise CheckpointMismatchError(
            f'Expected zeros in the encoder beyond channel {channels}, where an earlier '
            'conversion added them, received other weights: it was trained since. Take '
            "'encoder_channels' out of the note on the conversion in its 'meta' to keep all."
        )
    state[f'{_OUT}.0.weight'] = kernel[:channels].clone()
    for part in _NORM:
        state[f'{_OUT}.1.{part}'] = state[f'{_OUT}.1.{part}'][:channels].clone()
    state[_FIRST] = first[:, :kept].clone()


def _pad(tensor: Tensor, extra: int, dim: int, value: float) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = extra
    return torch.cat([tensor, tensor.new_full(shape, value)], dim)


def swap_sine_and_cosine(state: State) -> None:
    """Exchanges the two channels of CenterPoint's ``rot``: sine first, or cosine first."""
    for name, value in state.items():
        if re.fullmatch(r'bbox_head\.task_heads\.\d+\.rot\.\d+\.(weight|bias)', name):
            state[name] = value[[1, 0]]


def one_cell_upsampling(state: State) -> list[int]:
    """Levels of the neck that neither enlarge nor shrink: kernel and stride 1."""
    levels = range(sum(bool(re.fullmatch(_UPSAMPLING, name)) for name in state))
    return [i for i in levels if state[f'neck.deblocks.{i}.0.weight'].shape[2:] == (1, 1)]


def plain_upsampling(state: State, square_is_plain: bool) -> list[int]:
    """Those of them that are plain convolutions, not transposed ones.

    The weight is (output, input) of a plain one and (input, output) of a transposed one.

    Args:
        state: As for all functions here.
        square_is_plain: What a level with as many inputs as outputs is, which cannot be seen.
    """
    levels = []
    for level in one_cell_upsampling(state):
        inputs = _block_channels(state, level)
        outputs = len(state[f'neck.deblocks.{level}.1.weight'])
        shape = tuple(state[f'neck.deblocks.{level}.0.weight'].shape[:2])
        if square_is_plain if inputs == outputs else shape == (outputs, inputs):
            levels.append(level)
    return levels


def transpose_upsampling(state: State, levels: Iterable[int]) -> None:
    """Makes plain upsampling transposed, or the other way round, at one-cell levels.

    A transposed convolution with kernel and stride 1 is a plain one with inputs and outputs of
    the weight exchanged.
    """
    for level in levels:
        name = f'neck.deblocks.{level}.0.weight'
        state[name] = state[name].transpose(0, 1).contiguous()


def _block_channels(state: State, level: int) -> int:
    pattern = rf'backbone\.blocks\.{level}\.\d+\.running_mean'
    return next(len(value) for name, value in state.items() if re.fullmatch(pattern, name))


def reorder_classes(state: State, source: Sequence[str], target: Sequence[str]) -> None:
    """Brings the anchor head's classes into another order.

    Both toolboxes have, at a location, the anchors of the first class with all their rotations,
    then those of the second, and a score for every class for each of them. So class c stands in
    two places: which anchors, and which score.

    Args:
        state: As for all functions here.
        source: Class names in the order of the state dict.
        target: The same names in the wanted order.

    Raises:
        InputError: If the names differ, or are not those of this head.
    """
    if sorted(source) != sorted(target) or len(set(source)) != len(source):
        raise InputError(
            f'Expected the same class names in another order, received {list(target)} for '
            f'{list(source)}.'
        )
    count = len(source)
    anchors, rest = divmod(state['bbox_head.conv_cls.bias'].shape[0], count)
    if rest or anchors % count:
        raise InputError(
            f'Expected {count} classes {list(source)} with as many anchors each, received an '
            f'anchor head with {anchors * count + rest} scores a cell: give the classes that it '
            'was trained with.'
        )
    order = torch.tensor([list(source).index(name) for name in target])
    for layer in ('conv_cls', 'conv_reg', 'conv_dir_cls'):
        for part in ('weight', 'bias'):
            name = f'bbox_head.{layer}.{part}'
            if name not in state:
                continue
            value = state[name]
            last = count if layer == 'conv_cls' else value.shape[0] // anchors
            grid = value.reshape(count, anchors // count, last, *value.shape[1:])[order]
            if layer == 'conv_cls':
                grid = grid[:, :, order]
            state[name] = grid.reshape(value.shape)
