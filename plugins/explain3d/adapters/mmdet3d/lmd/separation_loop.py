"""The separation test of a data set, as a test loop of MMEngine."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.config import ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader, Dataset

from ....core.checks import (
    require_dict,
    require_flag,
    require_names,
    require_text,
    require_whole,
    suggestion,
)
from ....core.errors import UnknownNameError
from ....metrics.moments import SampleAccumulator
from ....metrics.separation import PAPER_SHIFTS, Pairing
from ....registry import LOOPS
from ...common.frame_explainer import package_versions
from ...common.outputs import check_run
from ..attachment import attachable
from ..checkpoints import check_checkpoint
from ..data_facts import annotation_digest
from ..frame_explainer import PACKAGES
from .separation import MODES, SeparationTest, check_test
from .separation_state import SeparationState
from .separation_table import FROZEN_NOTE, scalars, table_of, text_of, write


@LOOPS.register_module()
class SeparationTestLoop(BaseLoop):
    """Runs the separation test of LMD (Eq. 14-15) over the test data set.

    Any number of processes gives the same figures. Each sample's are written as soon as it is
    done: a run that was killed goes on, to the same figures to the last bit.

    For each sample k and each partner j = (k + stride m) mod N one modality of k is replaced by
    j's, with its calibration; all rule sets and modes are decomposed, and each component is
    compared with the clean sample's. The table is printed and written with its protocol as JSON.
    The test evaluator measures the clean predictions on the side.

    Args:
        runner: The runner.
        dataloader: Its test data loader; batch size and sampler are this loop's own.
        evaluator: Its test evaluator.
        rules: Rule sets by name, see ``lmd.Rules``.
        rows: Names or patterns (as in ``fnmatch``) of the rule sets to measure; None: all.
        modes: 'relinearized', 'frozen' or both.
        blanked: Whether blanked input stands in the table, see ``SeparationTest``.
        stride: Distance of partners; None: the paper's 500 of 6019 samples, scaled.
        shifts: Partners of each sample, at most; the paper's 12.
        samples: How many samples, evenly spread; None: all. Partners come from all.
        seeds: As in ``LMDHook``.
        outputs: As in ``LMDHook``; the first one is compared.
        sensors: As in ``SeparationTest``.
        memoize: As in ``SeparationTest``.
        once: As in ``SeparationTest``.
        channel: As in ``SeparationTest``.
        file: Where the table goes; default ``{work_dir}/separation.json``.
        evaluate: Whether to run the evaluator.
        interval: Samples from one line of the log to the next.
        resume: Whether samples that are done, with the same settings, weights, data set and
            versions, are taken from their files in ``{file without suffix}_samples``.

    Raises:
        ResultFileError: If that folder cannot be written to.
        InputError: If there are fewer than two samples, or a setting is of the wrong kind or out
            of its range.
        UnknownNameError: If a rule, mode or module is unknown, or none is named as ``rows`` says.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        rules: Mapping[str, Mapping[str, Any]],
        rows: Sequence[str] | None = None,
        modes: Sequence[str] = MODES,
        blanked: bool = True,
        stride: int | None = None,
        shifts: int = PAPER_SHIFTS,
        samples: int | None = None,
        seeds: Any = None,
        outputs: Any = None,
        sensors: Mapping[str, Mapping[str, Any]] | None = None,
        memoize: Sequence[str] = (),
        once: Sequence[str] | None = None,
        channel: int = 0,
        file: str | None = None,
        evaluate: bool = True,
        interval: int = 5,
        resume: bool = True,
    ) -> None:
        rules = require_dict('rules', rules, "{'identity-ratio': dict()}")
        settings = dict(
            rules=_named(rules, rows), modes=modes, blanked=blanked, seeds=seeds, outputs=outputs,
            sensors=sensors, memoize=memoize, once=once, channel=channel,
        )  # fmt: skip
        # Before the data set is loaded.
        check_test(**settings)
        self._check_run(stride, shifts, file, evaluate, interval, resume)
        super().__init__(runner, dataloader)
        if isinstance(evaluator, (dict, list)):
            evaluator = runner.build_evaluator(evaluator)
        self.evaluator = evaluator
        self.evaluator.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self.settings = settings
        count = len(self.dataloader.dataset)
        self.pairing = Pairing.of(count, stride, shifts)
        require_whole('samples', samples, 1, count, optional=True)
        size = count if samples is None else samples
        self.indices = [i * count // size for i in range(size)]
        self.file = Path(file or os.path.join(runner.work_dir, 'separation.json'))
        self.evaluate, self.interval, self.resume = evaluate, interval, resume

    @staticmethod
    def _check_run(
        stride: Any, shifts: Any, file: Any, evaluate: Any, interval: Any, resume: Any
    ) -> None:
        require_whole('stride', stride, optional=True)
        require_whole('shifts', shifts)
        require_text('file', file, 'work_dirs/separation.json')
        require_flag('evaluate', evaluate)
        check_run(resume, interval=interval)

    def run(self) -> dict[str, float]:
        """Runs the test; returns the means, and the evaluator's figures."""
        runner = self.runner
        runner.call_hook('before_test')
        check_checkpoint(runner)
        runner.model.eval()
        runner.call_hook('before_test_epoch')
        test = SeparationTest(attachable(runner.model), **self.settings)
        figures = self._collect(test)
        metrics = self.evaluator.evaluate(len(self.indices)) if self.evaluate else {}
        table = table_of(figures.result(), test.rows, test.figures)
        if dist.is_main_process():
            self._report(table, test, metrics)
        metrics = {**metrics, **scalars(table)}
        runner.call_hook('after_test_epoch', metrics=metrics)
        runner.call_hook('after_test')
        return metrics

    def _collect(self, test: SeparationTest) -> SampleAccumulator:
        """The figures of all samples, those of other processes included."""
        figures, state = SampleAccumulator(test.columns), self._state(test)
        done = self._resumed(figures, state)
        # Those that are done only have to be predicted, for the evaluator.
        order = [*(done if self.evaluate else ()), *(i for i in self.indices if i not in done)]
        mine = _share(order, dist.get_rank(), dist.get_world_size())
        progress = _Progress(self.runner.logger, mine, done, self.interval)
        # The data set is loaded by whichever worker comes next: item and partners are one.
        loader = DataLoader(
            _Pairs(self.dataloader.dataset, self.pairing, done),
            batch_size=None,
            sampler=mine,
            num_workers=self.dataloader.num_workers,
            collate_fn=_as_it_is,
        )
        for index, item, partners in loader:
            if index in done:
                predictions = test.predict(item)
            else:
                figures.add(index, test.measure(item, partners))
                state.save(index, figures.samples[index])
                predictions = test.predictions
            if self.evaluate:
                self.evaluator.process(data_samples=predictions, data_batch=item)
            progress.step(index)
        for other in dist.all_gather_object(figures):
            figures.merge(other)
        return figures

    def _resumed(self, figures: SampleAccumulator, state: SeparationState) -> frozenset[int]:
        """Takes over what is on the disk, as the first process sees it: all share out alike."""
        found = {i: state.load(i) for i in self.indices} if self.resume else {}
        found = dist.all_gather_object({i: f for i, f in found.items() if f is not None})[0]
        for index, moments in found.items():
            figures.put(index, moments)
        return frozenset(found)

    def _state(self, test: SeparationTest) -> SeparationState:
        """Where the figures of each sample are kept, with all that decides them."""
        folder = self.file.with_name(f'{self.file.stem}_samples')
        config = getattr(self.runner, 'cfg', {}).get('test_dataloader', {}).get('dataset')
        decides = {
            'test': test.settings,
            'pairing': asdict(self.pairing),
            'dataset': config.to_dict() if isinstance(config, ConfigDict) else config,
            'annotations': annotation_digest(self.dataloader.dataset),
            'versions': package_versions(PACKAGES),
        }
        state = SeparationState(folder, decides, test.columns)
        state.prepare()
        return state

    def _report(
        self, table: list[dict[str, Any]], test: SeparationTest, metrics: Mapping[str, float]
    ) -> None:
        protocol = self._protocol(test, metrics)
        text = text_of(table, test.figures, test.modalities)
        write(self.file, table, protocol)
        pairs = len(self.indices) * self.pairing.shifts
        self.runner.logger.info(
            f'Separation (Eq. 14-15 of LMD): X_p/Y is the change of component Y when modality X '
            f'is replaced. Mean ± standard deviation over {pairs} pairs ({len(self.indices)} '
            f'samples x {self.pairing.shifts} partners, stride {self.pairing.stride}). Note: '
            f'{FROZEN_NOTE}.\n{text}\nWritten to {self.file}'
        )

    def _protocol(self, test: SeparationTest, metrics: Mapping[str, float]) -> dict[str, Any]:
        scenes = _scenes(self.dataloader.dataset)
        within = [
            scenes[k] == scenes[j] for k in self.indices for j in self.pairing.partners(k) if scenes
        ]
        return {
            'quantity': f'raw output {next(iter(test.outputs))!r}, channel {test.channel}',
            'modalities': test.modalities,
            'pairing': 'partner m of sample k is (k + stride m) mod count',
            'count': self.pairing.count,
            'stride': self.pairing.stride,
            'shifts': self.pairing.shifts,
            'samples': len(self.indices),
            'pairs_within_a_scene': sum(within) if scenes else None,
            'replaced': 'inputs of the modality and the calibration that belongs to them',
            'average': 'mean and standard deviation (divisor: count) over pairs of a sample and '
            'a partner; float64; a correlation with a constant map is undefined and left out',
            'modes': list(test.modes),
            'frozen': FROZEN_NOTE,
            'rules': test.settings['rules'],
            'model': test.settings['model'],
            'weights': test.settings['weights'],
            'metrics_of_the_clean_samples': dict(metrics),
            'versions': package_versions(PACKAGES),
        }


class _Pairs(Dataset):
    """Items with their partners; those that are done need none."""

    def __init__(self, dataset: Dataset, pairing: Pairing, done: frozenset[int]) -> None:
        self.dataset, self.pairing, self.done = dataset, pairing, done

    def __len__(self) -> int:
        return self.pairing.count

    def __getitem__(self, index: int) -> tuple[int, Any, list[Any]]:
        """Returns the index, the item and its partners."""
        others = () if index in self.done else self.pairing.partners(index)
        return index, self.dataset[index], [self.dataset[j] for j in others]


class _Progress:
    """Lines of the log about a process's samples."""

    def __init__(
        self, logger: Any, mine: Sequence[int], done: frozenset[int], interval: int
    ) -> None:
        self.logger, self.done, self.interval = logger, done, interval
        self.total, self.count = sum(i not in done for i in mine), 0
        self.started = time.monotonic()
        if done:
            logger.info(f'Separation: {len(done)} samples are taken from files')

    def step(self, index: int) -> None:
        if index in self.done:
            return
        self.count += 1
        if self.count % self.interval == 0 or self.count == self.total:
            seconds = (time.monotonic() - self.started) / self.count
            self.logger.info(
                f'Separation: {self.count} of {self.total} samples ({seconds:.1f} s a sample)'
            )


def _named(rules: Mapping[str, Any], rows: Sequence[str] | None) -> dict[str, Any]:
    """The rule sets that ``rows`` asks for, in their own order."""
    if rows is None:
        return dict(rules)
    for row in require_names('rows', rows, next(iter(rules), ''), optional=False):
        if not any(fnmatchcase(name, row) for name in rules):
            raise UnknownNameError(
                f'rows: no rule set is named as {row!r}; expected one of {list(rules)}, or a '
                f"pattern of them such as '*identity-ratio'.{suggestion(row, rules)}"
            )
    return {n: rule for n, rule in rules.items() if any(fnmatchcase(n, row) for row in rows)}


def _as_it_is(value: Any) -> Any:
    return value


def _share(indices: Sequence[int], rank: int, world: int) -> list[int]:
    """Every ``world``-th sample, some repeated so that all processes have equally many."""
    rounds = -(-len(indices) // world)  # None of none.
    return [indices[(rank + i * world) % len(indices)] for i in range(rounds)]


def _scenes(dataset: Any) -> list[str] | None:
    """The scene of each sample, where the data set knows them without loading the data."""
    if not hasattr(dataset, 'get_data_info'):
        return None
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    names = [info.get('scene') or info.get('scene_token') for info in infos]
    return None if None in names else [str(name) for name in names]
