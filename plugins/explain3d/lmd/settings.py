"""Which rule each family of layers follows, for the whole network or for some of its modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from ..core.checks import suggestion
from ..core.errors import InputError, UnknownNameError

_NORM = ('ratio', 'identity', 'uniform', 'none', 'separate')
_CHOICES = {
    'activation': ('identity', 'none', 'separate'),
    'bias_split': ('identity', 'uniform', 'sum', 'ratio'),
    'batch_norm': ('identity', 'uniform'),
    'instance_norm': _NORM,
    'layer_norm': _NORM,
    'group_norm': _NORM,
    'product': ('gate', 'first', 'second', 'symmetric'),
    'module': ('decompose', 'constant'),
    'exports': ('refuse', 'warn', 'allow'),
}


@dataclass(frozen=True)
class Rules:
    """The rule of each family of layers; the defaults are the paper's identity-ratio rules.

    Attributes:
        activation: 'identity', the slope through the origin's image and the operating point,
            c = (f(A) - f(0)) / A (Prop. 1). Ablations: 'none', the plain derivative f'(A), the
            rest of f(A) is the bias; 'separate', f of each component by itself, the rest is the
            bias. The paper does not define its own "no rule".
        bias_split: What an activation does with the bias component before the slope: 'identity',
            'uniform', 'sum' (Eq. 13) or 'ratio' (C.2).
        batch_norm: Where beta - mean * scale goes: 'identity', to the bias (Prop. 2), or
            'uniform', in equal parts to all M + 1 components.
        instance_norm: Who loses the mean: 'ratio', each component its own (Prop. 3), 'identity',
            the bias all of it, or 'uniform', all M + 1 components equally. Ablations: 'none', the
            plain Jacobian with the standard deviation not frozen, and 'separate', each component
            normalised by its own statistics; the bias takes the rest.
        layer_norm: As ``instance_norm``.
        group_norm: As ``instance_norm``.
        product: Which factor of two decomposed ones is frozen: 'gate', the one that came out of a
            sigmoid, softmax or the like, or else the one with fewer elements, or else the second;
            'first'; 'second'; 'symmetric', half of the product by either.
        module: 'decompose', or 'constant': everything that the module gives belongs to the bias.
            Only useful in ``per_module``.
        exports: What happens where decomposed values leave torch (``numpy()``, ``tolist()``,
            DLPack) and lose their components: 'refuse', 'warn' once for a line of code, or 'allow'.
            Single numbers (``item()``) are warned of, and follow this rule where they come back as
            anything but a factor. See ``Decomposition.exports``.
        per_module: Overrides by the module's path, a pattern as in ``fnmatch``; later ones win:
            ``{'decoder.*': dict(instance_norm='identity')}``.

    Raises:
        UnknownNameError: If a family or a rule is unknown.
    """

    activation: str = 'identity'
    bias_split: str = 'identity'
    batch_norm: str = 'identity'
    instance_norm: str = 'ratio'
    layer_norm: str = 'ratio'
    group_norm: str = 'ratio'
    product: str = 'gate'
    module: str = 'decompose'
    exports: str = 'refuse'
    per_module: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for family, choices in _CHOICES.items():
            if getattr(self, family) not in choices:
                hint = ''
                if family == 'activation' and self.activation in _CHOICES['bias_split']:
                    hint = f' The splitting of the bias is bias_split={self.activation!r}.'
                raise UnknownNameError(
                    f'Unknown rule {family}={getattr(self, family)!r}: expected one of '
                    f'{list(choices)}.{hint}'
                )
        for overrides in self.per_module.values():
            _check_families(overrides)
            replace(self, **overrides, per_module={})

    @classmethod
    def from_config(cls, rules: Rules | Mapping[str, Any] | None) -> Rules:
        """Returns ``rules`` itself, or the rules that a configuration's dict says.

        Raises:
            UnknownNameError: If a family or a rule is unknown.
        """
        if isinstance(rules, Rules):
            return rules
        arguments = dict(rules or {})
        _check_families(arguments, also=('per_module',))
        return cls(**arguments)

    def at(self, module: str) -> Rules:
        """Returns the rules for the module at a path, without further overrides."""
        found = replace(self, per_module={})
        for pattern, overrides in self.per_module.items():
            if fnmatchcase(module, pattern):
                found = replace(found, **overrides)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Returns the rules as a configuration has them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, 'per_module': {k: dict(v) for k, v in self.per_module.items()}}


def _check_families(given: Mapping[str, Any], also: tuple[str, ...] = ()) -> None:
    known = [*_CHOICES, *also]
    for name in given:
        if name not in known:
            raise UnknownNameError(
                f'Unknown family of rules {name!r}: expected one of {known}.'
                f'{suggestion(name, known)}'
            )


def check_modalities(names: tuple[str, ...], least: int = 2) -> None:
    """Raises InputError unless there are ``least`` modalities, none of them called 'bias'."""
    if len(names) < least or 'bias' in names:
        raise InputError(
            f"Expected seeds of two or more modalities, none called 'bias', received {list(names)}."
        )
