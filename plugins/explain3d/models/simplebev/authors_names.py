"""Parameter names of SimpleBEV's authors, and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from ...core.errors import CheckpointMismatchError

#: Beginnings of names: the authors' and ours. One to one; the first that fits counts.
_PREFIXES = (
    ('ce_weight', 'heads.segmentation.log_variance'),
    ('center_weight', 'heads.center.log_variance'),
    ('offset_weight', 'heads.offset.log_variance'),
    ('encoder.backbone.0.', 'img_encoder.backbone.conv1.'),
    ('encoder.backbone.1.', 'img_encoder.backbone.bn1.'),
    ('encoder.backbone.4.', 'img_encoder.backbone.layer1.'),
    ('encoder.backbone.5.', 'img_encoder.backbone.layer2.'),
    ('encoder.layer3.', 'img_encoder.backbone.layer3.'),
    ('encoder.upsampling_layer.', 'img_encoder.upsampling.'),
    ('encoder.depth_layer.', 'img_encoder.depth_layer.'),
    ('bev_compressor.0.', 'fuser.conv.'),
    *(
        (f'decoder.up{level}_skip.upsample_layer.1.', f'decoder.up{level}_skip.conv.')
        for level in (1, 2, 3)
    ),
    *(
        (f'decoder.{theirs}_head.{layer}.', f'heads.{ours}.{part}.')
        for theirs, ours in (
            ('segmentation', 'segmentation'),
            ('instance_center', 'center'),
            ('instance_offset', 'offset'),
            ('feat', 'feature'),
        )
        for layer, part in ((0, 'conv'), (3, 'predictor'))
    ),
    *(
        (f'decoder.{part}.', f'decoder.{part}.')
        for part in ('first_conv', 'bn1', 'layer1', 'layer2', 'layer3')
    ),
)


def ours(name: str) -> str | None:
    """Returns our name of a parameter or buffer of theirs; None if we have no such part."""
    for old, new in _PREFIXES:
        if name.startswith(old):
            return new + name[len(old) :]
    return None


def theirs(name: str) -> str | None:
    """Returns the authors' name of a parameter or buffer of ours; None if they have none."""
    for old, new in _PREFIXES:
        if name.startswith(new):
            return old + name[len(new) :]
    return None


def convert(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Returns the authors' weights under the names of our model.

    Args:
        state: The authors' ``model_state_dict``; a leading ``module.`` is ignored.
        model: A SimpleBEV that is configured as theirs.

    Returns:
        All that ``model.load_state_dict(..., strict=True)`` needs.

    Raises:
        CheckpointMismatchError: If a name has no counterpart, on either side, or shapes differ.
    """
    wanted = model.state_dict()
    names = {name: ours(name.removeprefix('module.')) for name in state}
    unknown = [name for name, new in names.items() if new not in wanted]
    given = {new for new in names.values() if new in wanted}
    missing = [theirs(name) or f'(ours) {name}' for name in wanted if name not in given]
    differing = [
        f'{name} {tuple(state[name].shape)} for {tuple(wanted[new].shape)}'
        for name, new in names.items()
        if new in wanted and state[name].shape != wanted[new].shape
    ]
    if unknown or missing or differing:
        raise CheckpointMismatchError(
            'The checkpoint does not fit the configuration: expected the same parameters, '
            f'received {_some("not in the model", unknown)}{_some("not in the file", missing)}'
            f'{_some("of another shape", differing)}choose the configuration with the same '
            'encoder, sensors and heads.'
        )
    return {new: state[name] for name, new in names.items()}


def _some(what: str, names: Iterable[str]) -> str:
    names = list(names)
    if not names:
        return ''
    more = ', ...' if len(names) > 5 else ''
    return f'{len(names)} {what} ({", ".join(names[:5])}{more}); '
