"""The separation test of a data set, as a test loop of MMEngine."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import dist
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader, Dataset

from ....core.errors import InputError
from ....metrics.moments import SampleAccumulator
from ....metrics.separation import PAPER_SHIFTS, Pairing
from ....registry import LOOPS
from ...common.frame_explainer import package_versions, weights_digest
from ..attachment import attachable
from ..checkpoints import check_checkpoint
from ..frame_explainer import PACKAGES
from .separation import MODES, SeparationTest
from .separation_table import FROZEN_NOTE, scalars, table_of, text_of, write


@LOOPS.register_module()
class SeparationTestLoop(BaseLoop):
    """Runs the separation test of LMD (Eq. 14-15) over the test data set.

    Any number of processes gives the same figures.

    For each sample k and each partner j = (k + stride m) mod N one modality of k is replaced by
    j's, with its calibration; all rule sets and modes are decomposed, and each component is
    compared with the clean sample's. The table is printed and written with its protocol as JSON.
    The test evaluator measures the clean predictions on the side.

    Args:
        runner: The runner.
        dataloader: Its test data loader; batch size and sampler are this loop's own.
        evaluator: Its test evaluator.
        rules: Rule sets by name, see ``lmd.Rules``.
        modes: 'relinearized', 'frozen' or both.
        blanked: Whether blanked input stands in the table, see ``SeparationTest``.
        stride: Distance of partners; None: the paper's 500 of 6019 samples, scaled.
        shifts: Partners of each sample, at most; the paper's 12.
        samples: How many samples, evenly spread; None: all. Partners come from all.
        seeds: As in ``LMDHook``.
        outputs: As in ``LMDHook``; the first one is compared.
        sensors: As in ``SeparationTest``.
        memoize: As in ``SeparationTest``.
        channel: As in ``SeparationTest``.
        file: Where the table goes; default ``{work_dir}/separation.json``.
        evaluate: Whether to run the evaluator.
        interval: Samples from one line of the log to the next.

    Raises:
        InputError: If there are fewer than two samples.
        UnknownNameError: If a rule, mode or module is unknown.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        rules: Mapping[str, Mapping[str, Any]],
        modes: Sequence[str] = MODES,
        blanked: bool = True,
        stride: int | None = None,
        shifts: int = PAPER_SHIFTS,
        samples: int | None = None,
        seeds: Any = None,
        outputs: Any = None,
        sensors: Mapping[str, Mapping[str, Any]] | None = None,
        memoize: Sequence[str] = (),
        channel: int = 0,
        file: str | None = None,
        evaluate: bool = True,
        interval: int = 5,
    ) -> None:
        super().__init__(runner, dataloader)
        if isinstance(evaluator, (dict, list)):
            evaluator = runner.build_evaluator(evaluator)
        self.evaluator = evaluator
        self.evaluator.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self.settings = dict(
            rules=rules, modes=modes, blanked=blanked, seeds=seeds, outputs=outputs,
            sensors=sensors, memoize=memoize, channel=channel,
        )  # fmt: skip
        count = len(self.dataloader.dataset)
        self.pairing = Pairing.of(count, stride, shifts)
        if samples is not None and not 1 <= samples <= count:
            raise InputError(f'Expected 1 <= samples <= {count}, received {samples}.')
        size = count if samples is None else samples
        self.indices = [i * count // size for i in range(size)]
        self.file, self.evaluate, self.interval = file, evaluate, interval

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
        figures, started = SampleAccumulator(test.columns), time.monotonic()
        mine = _share(self.indices, dist.get_rank(), dist.get_world_size())
        # The data set is loaded by whichever worker comes next: item and partners are one.
        loader = DataLoader(
            _Pairs(self.dataloader.dataset, self.pairing),
            batch_size=None,
            sampler=mine,
            num_workers=self.dataloader.num_workers,
            collate_fn=_as_it_is,
        )
        for done, (index, item, partners) in enumerate(loader, 1):
            figures.add(index, test.measure(item, partners))
            if self.evaluate:
                self.evaluator.process(data_samples=test.predictions, data_batch=item)
            if done % self.interval == 0 or done == len(mine):
                seconds = (time.monotonic() - started) / done
                self.runner.logger.info(
                    f'Separation: {done} of {len(mine)} samples ({seconds:.1f} s a sample)'
                )
        for other in dist.all_gather_object(figures):
            figures.merge(other)
        return figures

    def _report(
        self, table: list[dict[str, Any]], test: SeparationTest, metrics: Mapping[str, float]
    ) -> None:
        protocol = self._protocol(test, metrics)
        text = text_of(table, test.figures, test.modalities)
        path = self.file or os.path.join(self.runner.work_dir, 'separation.json')
        write(path, table, protocol)
        pairs = len(self.indices) * self.pairing.shifts
        self.runner.logger.info(
            f'Separation (Eq. 14-15 of LMD): X_p/Y is the change of component Y when modality X '
            f'is replaced. Mean ± standard deviation over {pairs} pairs ({len(self.indices)} '
            f'samples x {self.pairing.shifts} partners, stride {self.pairing.stride}). Note: '
            f'{FROZEN_NOTE}.\n{text}\nWritten to {path}'
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
            'rules': {name: rules.as_dict() for name, rules in test.rules.items()},
            'model': type(test.model).__name__,
            'weights': weights_digest(test.model),
            'metrics_of_the_clean_samples': dict(metrics),
            'versions': package_versions(PACKAGES),
        }


class _Pairs(Dataset):
    """Items with their partners."""

    def __init__(self, dataset: Dataset, pairing: Pairing) -> None:
        self.dataset, self.pairing = dataset, pairing

    def __len__(self) -> int:
        return self.pairing.count

    def __getitem__(self, index: int) -> tuple[int, Any, list[Any]]:
        """Returns the index, the item and its partners."""
        partners = [self.dataset[j] for j in self.pairing.partners(index)]
        return index, self.dataset[index], partners


def _as_it_is(value: Any) -> Any:
    return value


def _share(indices: Sequence[int], rank: int, world: int) -> list[int]:
    """Every ``world``-th sample, some repeated so that all processes have equally many."""
    rounds = -(-len(indices) // world)
    return [indices[(rank + i * world) % len(indices)] for i in range(rounds)]


def _scenes(dataset: Any) -> list[str] | None:
    """The scene of each sample, where the data set knows them without loading the data."""
    if not hasattr(dataset, 'get_data_info'):
        return None
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    names = [info.get('scene') or info.get('scene_token') for info in infos]
    return None if None in names else [str(name) for name in names]
