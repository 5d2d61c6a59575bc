"""What of a detection is explained (Eq. 5 of FFAM), apart from how.

A target names one attribute or a group of them. A group is combined in one of two ways:

* ``sum``: the gradient of the sum of the absolute values, the paper's L1 distance to a baseline of
  zeros. As coordinates are signed, it depends on where the object stands: where y < 0 the gradient
  of y enters with its sign turned. Where an attribute is exactly 0 its absolute value has no slope,
  and it does not contribute.
* ``abs``: each attribute's own gradient is reduced to a map first, and the maps are summed. This
  does not depend on signs, hence not on where the object stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checks import require_choice, require_names, require_text
from .errors import InputError
from .structures import ATTRIBUTES, BOX_ATTRIBUTES

COMBINATIONS = ('sum', 'abs')


def _refuse_duplicates(names: Sequence[str], prefix: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f'{prefix} {twice[0]!r} twice: name each once.')


@dataclass(frozen=True)
class Target:
    """A named scalar of a detection.

    Attributes:
        name: Key of the target's maps in ``Maps.saliency``.
        attributes: Names out of ``ATTRIBUTES``, each once.
        combine: ``'sum'`` or ``'abs'``, see the module's documentation. A single attribute is
            explained by its own gradient either way, except that ``'sum'`` has none where the
            attribute is exactly 0.

    Raises:
        UnknownNameError: If an attribute or combination is unknown.
        InputError: If there is no attribute, or one comes twice.
    """

    name: str
    attributes: tuple[str, ...]
    combine: str = 'sum'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'attributes', tuple(self.attributes))
        if not self.attributes:
            raise InputError(
                f'Target {self.name!r} has no attributes: expected some of {list(ATTRIBUTES)}.'
            )
        for attribute in self.attributes:
            require_choice(f'attribute of target {self.name!r}', attribute, sorted(ATTRIBUTES))
        of = f'combination of target {self.name!r}'
        require_choice(of, self.combine, sorted(COMBINATIONS))
        _refuse_duplicates(self.attributes, f'Target {self.name!r} has the attribute')


def _group(name: str, attributes: Iterable[str], combine: str = 'sum') -> Target:
    return Target(name, tuple(attributes), combine)


#: The targets that are known by name. ``all`` is Eq. 5: the label and a velocity are not part.
PREDEFINED: dict[str, Target] = {
    target.name: target
    for target in (
        _group('all', (*BOX_ATTRIBUTES, 'score')),
        _group('all_abs', (*BOX_ATTRIBUTES, 'score'), 'abs'),
        _group('box', BOX_ATTRIBUTES),
        _group('center', ('x', 'y', 'z')),
        _group('size', ('l', 'w', 'h')),
        # A single attribute's gradient is taken as it is, so that a yaw of exactly 0 has one.
        *(_group(attribute, (attribute,), 'abs') for attribute in ATTRIBUTES),
    )
}

TargetSpec = str | Target | Mapping[str, Any] | Sequence[str]


def parse_targets(spec: TargetSpec | Sequence[TargetSpec]) -> tuple[Target, ...]:
    """Reads targets from a configuration.

    Args:
        spec: One target or a list of them. Each is a name (``'all'``, ``'all_abs'``, ``'box'``,
            ``'center'``, ``'size'`` or an attribute), a ``dict(attributes=[...], name=...,
            combine='sum' | 'abs')`` whose name defaults to the attributes joined by ``+``, or a
            ``Target``. *Inside* a list, a list of attributes is a group: ``['x', 'y']`` is two
            targets and ``[['x', 'y']]`` one.

    Returns:
        The targets, in the order asked for.

    Raises:
        UnknownNameError: If a name is unknown; the message lists the candidates.
        InputError: If there is no target, two have the same name, or ``spec`` is of another type.

    Examples:
        >>> [t.name for t in parse_targets(['all', 'yaw', ['l', 'w']])]
        ['all', 'yaw', 'l+w']
    """
    single = isinstance(spec, (str, Target, Mapping))
    targets = tuple(_parse_one(item) for item in ([spec] if single else _as_list(spec)))
    if not targets:
        raise InputError(f'Expected at least one target, received none: try one of {_names()}.')
    _refuse_duplicates([target.name for target in targets], 'The list of targets has')
    return targets


def _parse_one(item: TargetSpec) -> Target:
    if isinstance(item, Target):
        return item
    if isinstance(item, str):
        require_choice('target', item, _names())
        return PREDEFINED[item]
    if isinstance(item, Mapping):
        return _parse_mapping(item)
    return _parse_mapping({'attributes': _as_list(item)})


def _parse_mapping(item: Mapping[str, Any]) -> Target:
    for key in item:
        require_choice('key of a target', key, ('attributes', 'combine', 'name'))
    attributes = item.get('attributes', ())
    attributes = (attributes,) if isinstance(attributes, str) else attributes
    attributes = tuple(require_names('attributes of a target', attributes, 'x', optional=False))
    name = require_text('name of a target', item.get('name'), 'extent')
    name = name or '+'.join(attributes)
    return Target(name, attributes, item.get('combine', 'sum'))


def _as_list(spec: Any) -> list:
    if isinstance(spec, Sequence):
        return list(spec)
    raise InputError(
        f'Expected a target as a name, a dict(attributes=[...]) or a list of names, received '
        f'{spec!r} of type {type(spec).__name__}.'
    )


def _names() -> list[str]:
    return sorted(PREDEFINED)
