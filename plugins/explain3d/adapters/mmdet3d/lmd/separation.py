"""The separation test of one sample: replace a modality, decompose, compare (Appendix D.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from ....core.checks import require_dict, require_flag, require_names, require_whole, suggestion
from ....core.errors import InputError, UnknownNameError
from ....core.session import frozen_evaluation
from ....lmd import BIAS, Components, Decomposition, FrozenRecord, Rules
from ....lmd.seeds import declared_seeds
from ....metrics.separation import METRICS, Figure, figures
from ...common.weights import weights_digest
from .decomposer import OutputsSpec, SeedsSpec, check_finite, outputs_of, seeds_of
from .memo import Memo
from .perturb import Item, Sensor, check_sensors, only, sensors_of
from .settings import check_output_spec

#: 'relinearized': each input has its own slopes. 'frozen': the clean sample's are replayed.
MODES = ('relinearized', 'frozen')
#: What stands in the table where there are no rules: the input of all other sensors is blanked.
BLANKED = 'blanked input'


def check_test(
    rules: Mapping[str, Rules | Mapping[str, Any]],
    modes: Sequence[str] = MODES,
    blanked: bool = True,
    seeds: SeedsSpec = None,
    outputs: OutputsSpec = None,
    sensors: Mapping[str, Mapping[str, Any]] | None = None,
    memoize: Sequence[str] = (),
    once: Sequence[str] | None = None,
    channel: int = 0,
) -> None:
    """Refuses settings of a separation test that are wrong whatever the model.

    Args:
        rules: As in ``SeparationTest``.
        modes: As in ``SeparationTest``.
        blanked: As in ``SeparationTest``.
        seeds: As in ``SeparationTest``.
        outputs: As in ``SeparationTest``.
        sensors: As in ``SeparationTest``.
        memoize: As in ``SeparationTest``.
        once: As in ``SeparationTest``.
        channel: As in ``SeparationTest``.

    Raises:
        UnknownNameError: If a rule, a mode or a key of a seed is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """
    require_names('modes', modes, MODES[0], optional=False)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        hint = suggestion(unknown[0], MODES) if unknown else ''
        raise UnknownNameError(f'Unknown modes {unknown}: expected some of {list(MODES)}.{hint}')
    for rule in require_dict('rules', rules, "{'identity-ratio': dict()}").values():
        Rules.from_config(rule)
    require_flag('blanked', blanked)
    declared_seeds(seeds)
    check_output_spec(outputs)
    check_sensors(sensors)
    require_names('memoize', memoize, 'backbone', optional=False)
    require_names('once', once, 'backbone')
    require_whole('channel', channel, least=0)


class SeparationTest:
    """Measures X_p/Y of all modalities X and components Y, for rule sets and modes.

    Args:
        model: The model, without wrappers.
        rules: Rules or dicts of them, by the name of the table's row.
        modes: Of ``MODES``.
        blanked: Whether to measure ``BLANKED``, too: the component of Y is then what the model
            predicts with all other sensors blanked. It cannot change when another sensor is
            replaced: its cross terms are 1 and 0 by construction.
        seeds: As in ``FrameDecomposer``.
        outputs: As in ``FrameDecomposer``; the first one is compared.
        sensors: What belongs to each modality, ``{name: dict(inputs=[...], metainfo=[...])}``.
        memoize: Modules before the fusion that need not run twice on the same input.
        once: Modules and methods whose result depends on nothing but the model's input, and not
            on what is decomposed: what leads to the seeds, and other outputs than the one
            compared. They run once for each input. None: what the model says
            (``model.lmd_once(seeds)``), if it does.
        channel: Channel of the output that is compared.

    Raises:
        UnknownNameError: If a rule, mode or module is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Mapping[str, Rules | Mapping[str, Any]],
        modes: Sequence[str] = MODES,
        blanked: bool = True,
        seeds: SeedsSpec = None,
        outputs: OutputsSpec = None,
        sensors: Mapping[str, Mapping[str, Any]] | None = None,
        memoize: Sequence[str] = (),
        once: Sequence[str] | None = None,
        channel: int = 0,
    ) -> None:
        check_test(
            rules=rules, modes=modes, blanked=blanked, seeds=seeds, outputs=outputs,
            sensors=sensors, memoize=memoize, once=once, channel=channel,
        )  # fmt: skip
        self.model, self.modes, self.blanked = model, tuple(modes), blanked
        self.rules = {name: Rules.from_config(rule) for name, rule in rules.items()}
        self.seeds = seeds_of(model, seeds)
        name, output = next(iter(outputs_of(model, outputs).items()))
        self.outputs = {name: output}
        self.modalities = tuple(dict.fromkeys(m for s in self.seeds for m in s.modalities))
        self.memoize, self.channel, self._given = tuple(memoize), channel, sensors
        if once is None:
            once = model.lmd_once(self.seeds) if hasattr(model, 'lmd_once') else ()
        needed = [output.module, *(seed.module for seed in self.seeds)]
        self.once = tuple(p for p in once if not any(f'{n}.'.startswith(f'{p}.') for n in needed))
        paths = {path for path, _ in model.named_modules()}
        self._stop = [path for path in self.once if path in paths]
        self._memo = Memo(model, self.memoize, self.once, 0)
        self.figures = figures(self.modalities, (*self.modalities, BIAS, 'output'))
        self.predictions: list = []
        self._inputs: set[int] = set()
        self._last: list = []
        self._run(None)  # What does not fit is found now.

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(rules, mode) of each row of the table."""
        rows = [(name, mode) for name in self.rules for mode in self._modes_of(name)]
        return [*rows, (BLANKED, '-')] if self.blanked else rows

    def _modes_of(self, name: str) -> list[str]:
        """The modes of a row; rules 'separate' (ablations) are not linear: nothing to freeze."""
        rules = self.rules[name].as_dict()
        each = [rules, *rules.pop('per_module').values()]
        linear = not any('separate' in families.values() for families in each)
        return [mode for mode in self.modes if linear or mode != 'frozen']

    @property
    def settings(self) -> dict[str, Any]:
        """What decides a sample's figures, as plain data; a digest stands for the weights."""
        return {
            'rules': {name: rules.as_dict() for name, rules in self.rules.items()},
            'modes': list(self.modes),
            'blanked': self.blanked,
            'seeds': [asdict(seed) for seed in self.seeds],
            'outputs': {name: asdict(output) for name, output in self.outputs.items()},
            'sensors': self._given,
            'channel': self.channel,
            'model': type(self.model).__name__,
            'weights': weights_digest(self.model),
        }

    @property
    def columns(self) -> list[str]:
        """Names of all figures: row by row, ``figures`` in each."""
        return [f'{name} | {mode} | {f.name}' for name, mode in self.rows for f in self.figures]

    def measure(self, item: Item, partners: Sequence[Item]) -> np.ndarray:
        """Returns the figures of one sample.

        ``predictions`` holds afterwards what the model predicts for it, as the host gives it.

        Args:
            item: An item of the data set.
            partners: P items that lend their modalities.

        Returns:
            (P, C) float64 in the order of ``columns``; NaN where a correlation is not defined.

        Raises:
            InputError: If an output is not finite.
        """
        sensors = sensors_of(self.modalities, self._given, item)
        pairs = {
            name: [sensor.replace(item, partner) for partner in partners]
            for name, sensor in sensors.items()
        }
        size = len(partners) + len(sensors) + 2
        found = []
        self._memo = Memo(self.model, self.memoize, self.once, size)
        self._inputs = {id(item), *(id(other) for others in pairs.values() for other in others)}
        with frozen_evaluation(self.model), self._memo.attached():
            for name, rules in self.rules.items():
                modes = self._modes_of(name)
                clean, record = self._decompose(item, rules, record='frozen' in modes)
                self.predictions = self._last
                for mode in modes:
                    frozen = record if mode == 'frozen' else None
                    found.append(
                        self._compare(
                            clean,
                            pairs,
                            lambda other, _, r=rules, f=frozen: self._decompose(other, r, f)[0],
                        )
                    )
            if self.blanked:
                found.append(self._measure_blanked(item, partners, pairs, sensors))
        return np.concatenate(found, 1)

    def predict(self, item: Item) -> list:
        """Returns what the model predicts for a sample, as ``predictions`` after ``measure``."""
        with frozen_evaluation(self.model), torch.no_grad():
            return self.model.test_step(pseudo_collate([item | _fresh(item)]))

    def _measure_blanked(
        self,
        item: Item,
        partners: Sequence[Item],
        pairs: Mapping[str, Sequence[Item]],
        sensors: Mapping[str, Sensor],
    ) -> np.ndarray:
        clean = {name: self._predict(only(sensors, name, item)) for name in sensors}
        clean |= {BIAS: None, 'output': self._predict(item)}
        donors = {id(p): d for name in pairs for p, d in zip(pairs[name], partners, strict=True)}

        def perturbed(other: Item, replaced: str) -> dict[str, Tensor | None]:
            donor = donors[id(other)]
            alone = sensors[replaced].replace(only(sensors, replaced, item), donor)
            return {**clean, replaced: self._predict(alone), 'output': self._predict(other)}

        return self._compare(clean, pairs, perturbed)

    def _compare(
        self,
        clean: Mapping[str, Tensor | None],
        pairs: Mapping[str, Sequence[Item]],
        perturbed: Callable[[Item, str], Mapping[str, Tensor | None]],
    ) -> np.ndarray:
        """(P, figures) of one row of the table; a component of None has none."""
        values: dict[Figure, list[float]] = {figure: [] for figure in self.figures}
        for replaced, others in pairs.items():
            for other in others:
                after = perturbed(other, replaced)
                for figure, column in values.items():
                    if figure.replaced == replaced:
                        pair = clean[figure.component], after[figure.component]
                        defined = pair[0] is not None
                        value = METRICS[figure.metric](*pair) if defined else torch.nan
                        column.append(float(value))
        return np.array(list(values.values())).T

    def _run(self, rules: Rules | None, **options: Any) -> Decomposition:
        return Decomposition(
            self.model, self.seeds, self.outputs, rules, stop=self._stop, **options
        )

    def _test_step(self, item: Item) -> list:
        """What the model predicts; an input of this sample is known again by its identity."""
        with self._memo.input(id(item) if id(item) in self._inputs else None):
            return self.model.test_step(pseudo_collate([item | _fresh(item)]))

    def _decompose(
        self, item: Item, rules: Rules, frozen: FrozenRecord | None = None, record: bool = False
    ) -> tuple[dict[str, Tensor], FrozenRecord | None]:
        """Returns the (1, Z, X) components and output of a sample by name."""
        given = None if frozen is not None else rules
        with torch.no_grad(), self._run(given, frozen=frozen, record=record) as run:
            self._last = self._test_step(item)
        found: Components = next(iter(run.raw_outputs.values()))
        check_finite(found, next(iter(self.outputs)), str(_name(item)))
        run.verification.check()
        parts = {name: found[name][:, self.channel] for name in found.names}
        return {**parts, 'output': found.value[:, self.channel]}, run.record

    def _predict(self, item: Item) -> Tensor:
        """Returns the (1, Z, X) output of the network as it is."""
        kept: list[Tensor] = []
        output = next(iter(self.outputs.values()))
        if output.path or output.call:
            raise InputError(
                f"{BLANKED!r} needs an output that is a module's only tensor, received {output}: "
                'set blanked=False.'
            )
        module = self.model.get_submodule(output.module)
        hook = module.register_forward_hook(lambda _m, _i, out: kept.append(out.detach()))
        try:
            with torch.no_grad():
                self._test_step(item)
        finally:
            hook.remove()
        return kept[0][:, self.channel]


def _fresh(item: Item) -> dict[str, Any]:
    """A copy of the data sample: the host adds its predictions to it."""
    return {'data_samples': item['data_samples'].clone()}


def _name(item: Item) -> Any:
    meta = item['data_samples'].metainfo
    return meta.get('token', meta.get('sample_idx', 'without a name'))
