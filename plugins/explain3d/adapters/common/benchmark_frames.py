"""Methods x metrics on the frames of a data set, whatever the host."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.results_settings import fingerprint
from ...core.selection import with_thresholds
from ...core.session import overridden
from ...core.structures import Detections, Explanation, Trace
from ...metrics.protocol import Protocol
from ...metrics.saliency import METRICS, ObjectRecord, SaliencyEvaluator, require_finite_maps
from ...metrics.sanity import jittered
from .benchmark_plan import ALL_METRICS, BenchmarkPlan
from .benchmark_records import Collected, RecordStore
from .benchmark_run import catching
from .benchmark_sanity import add_randomisation, add_stability
from .benchmark_start import Start, start
from .black_box import DetectorBlackBox
from .costs import MEANING, explained, timed
from .data_facts import DataFacts
from .frame_explainer import FrameExplainer, on_cpu, selection_of
from .frame_names import numbered
from .frames import Frame

_LOG = logging.getLogger('explain3d')


class FrameBenchmark(ABC):
    """Runs a plan frame by frame; a subclass knows the host.

    Args:
        plan: What to run.
        folder: Where each frame's records go. What is there, made with the same settings, is not
            run again; interrupted methods keep what they have in ``unfinished`` below it.

    Attributes:
        model: The detector with its weights.
        dataset: The frames.

    Raises:
        UnknownNameError: If a method, target, layer or an argument is unknown.
        NotApplicableError: If the detector cannot be asked about perturbed frames.
        InputError: If there is no checkpoint, a value is out of its range, or no frame of the
            data set has an annotated object.
    """

    def __init__(self, plan: BenchmarkPlan, folder: str | os.PathLike) -> None:
        self.plan, self.folder = plan, Path(folder)
        self.model, self.dataset = self._load()
        protocol = Protocol(**plan.protocol)
        # Jittered frames are searched for the same detections by their overlap with those.
        self._all = selection_of(dict(plan.select))
        only = dict(matched=protocol.iou_thr, iou=protocol.iou)
        select = {**only, **with_thresholds(plan.select, protocol.as_dict())}
        self.facts = self._facts()
        self.facts.require_annotation('A benchmark')
        self._index = 0
        self.explainers = {
            name: self._explainer(dict(method), select) for name, method in plan.methods.items()
        }
        for explainer in self._resumable():
            explainer.checkpoint = explainer.checkpoint or str(self.folder / 'unfinished')
        settings = {name: explainer.settings for name, explainer in self.explainers.items()}
        self._known: set[str] = set()
        self.box = self._black_box()
        measured = [name for name in ALL_METRICS if name in plan.metrics and name in METRICS]
        self.evaluator = SaliencyEvaluator(
            Protocol(**{**plan.protocol, 'detector': next(iter(settings.values()))['model']}),
            measured,
        )
        common = dict(
            data=self._data(),
            annotation=self._annotation(),
            classes=list(self.facts.classes),
            metrics=sorted(plan.metrics),
            protocol=self.evaluator.protocol.as_dict(),
            costs=MEANING,
        )
        self.store = RecordStore(
            self.folder, {name: fingerprint({**some, **common}) for name, some in settings.items()}
        )

    @abstractmethod
    def _load(self) -> tuple[nn.Module, Any]:
        """Returns the detector with its weights, in eval mode, and the data set."""

    @abstractmethod
    def _data(self) -> dict[str, Any]:
        """Returns what decides the frames, as plain data."""

    @abstractmethod
    def _facts(self) -> DataFacts:
        """Returns what the data set says of its frames."""

    @abstractmethod
    def _annotation(self) -> str | None:
        """Returns a digest of the data set's annotation, None where it is not known."""

    @abstractmethod
    def _explainer(self, method: dict[str, Any], select: dict[str, Any]) -> FrameExplainer:
        """Returns what explains frames with a method."""

    @abstractmethod
    def _black_box(self) -> DetectorBlackBox | None:
        """Returns the detector as a black box; None if it can be none, and no metric needs one."""

    @abstractmethod
    def _parts(self) -> list[tuple[str, nn.Module]]:
        """Returns the detector's parts with parameters, the head first."""

    @abstractmethod
    def _batch(self, index: int) -> Any:
        """Returns a batch of one frame."""

    @abstractmethod
    def _moved(self, batch: Any, move: Callable[[Tensor], Tensor]) -> Any:
        """Returns the batch of one frame with its points moved."""

    @abstractmethod
    def _frame(self, batch: Any) -> Frame:
        """Returns the frame of a batch of one."""

    @abstractmethod
    def _infer(self, batch: Any) -> Any:
        """Returns what the detector gives for the frame of a batch of one: the host's own pass."""

    @abstractmethod
    def _trace(
        self, explainer: FrameExplainer, frame: Frame, output: Any, detections: Detections
    ) -> Trace:
        """Makes a trace of the notes that the frame has, or by a second pass."""

    def indices(self) -> range:
        """Returns the indices of the frames to run."""
        count = len(self.dataset)
        return range(count if self.plan.frames is None else min(self.plan.frames, count))

    def pending(self) -> list[int]:
        """Returns the indices of the frames on which a method is missing."""
        return [index for index in self.indices() if self.store.missing(index)]

    def collect(self) -> Collected:
        """Returns the records of all frames, in the order of the frames."""
        return self.store.collect(self.indices())

    def run(self, index: int) -> list[ObjectRecord]:
        """Runs the methods that are missing on one frame and writes their records.

        A method that fails is written down as such and does not stop the others; an error of the
        whole frame counts for all of them. A frame without matched objects has no records.

        Raises:
            ResultFileError: If records cannot be written.
        """
        wanted, failed, self._index = self.store.missing(index), {}, index
        try:
            records = self._measure(self._batch(index), wanted, failed)
        except Exception as error:  # noqa: BLE001 - of one frame among many
            _LOG.exception('Frame number %d could not be measured', index)
            records, failed = [], dict.fromkeys(wanted, error)
        for name in wanted:
            if name in failed:
                self.store.fail(name, index, failed[name])
            else:
                self.store.save(name, index, _of(records, name))
        return [record for record in records if record.method not in failed]

    def explain(self, index: int) -> dict[str, Explanation]:
        """Returns what each method says of the matched detections of a frame, by its name.

        A method that fails is left out, and its error logged. Nothing is written.
        """
        self._index = index
        return self._explain(self._batch(index), list(self.explainers), {})[0]

    def _measure(
        self, batch: Any, wanted: Sequence[str], failed: dict[str, Exception]
    ) -> list[ObjectRecord]:
        """Measures a frame; errors of single methods go into ``failed``."""
        explanations, traces, costs = self._explain(batch, wanted, failed)
        records = self.evaluator.evaluate(explanations, self.box)
        for record in records:
            record.figures.update(costs[record.method])
        if records and 'randomisation' in self.plan.metrics:
            for name in explanations:
                with catching(failed, name, records[0].frame):
                    self._randomise(_of(records, name), explanations[name], traces[name])
        if records and 'stability' in self.plan.metrics:
            protocol = self.evaluator.protocol
            move = partial(jittered, deviation=protocol.jitter, seed=protocol.seed)
            jittered_start = self._start(self._moved(batch, move), list(explanations))
            for name in explanations:
                with catching(failed, name, records[0].frame):
                    self._jitter(_of(records, name), explanations[name], jittered_start)
        return records

    def _explain(
        self, batch: Any, wanted: Sequence[str], failed: dict[str, Exception]
    ) -> tuple[dict[str, Explanation], dict[str, Trace], dict[str, dict[str, float]]]:
        """Returns explanations, traces and costs by method; nothing where no object matches."""
        begun = self._start(batch, wanted)
        plans = {name: self.explainers[name].select(begun.frame, begun.output) for name in wanted}
        if not all(len(plan.detections) for plan in plans.values()):
            return {}, {}, {}
        if self._learnt(begun, plans, failed):
            begun = self._start(batch, wanted)
        explanations, traces, costs = {}, {}, {}
        for name, plan in plans.items():
            if name in failed:
                continue
            with catching(failed, name, begun.frame.frame_id):
                # A trace of its own for each: what one has computed would be free for the next.
                trace, spent = timed(
                    lambda n=name, p=plan: self._trace(
                        self.explainers[n], begun.of(n), begun.output, p.detections
                    ),
                    begun.frame.points.device,
                )
                if trace.black_box is not None:
                    trace.black_box.batch_size = self.plan.batch_size
                plan.maps, costs[name] = explained(
                    self.explainers[name], trace, begun.seconds + spent
                )
                require_finite_maps(plan, name)
                explanations[name] = on_cpu(plan)
                # Without the graph, of which there would be one for each method.
                traces[name] = replace(trace, attributes={}, gradients=None)
        return explanations, traces, costs

    def _start(self, batch: Any, names: Sequence[str]) -> Start:
        """Runs the host's own pass with notes for the methods ``names``."""
        frame = self._frame(batch)
        frame = replace(frame, frame_id=self._name(self._index, frame))
        frame.check()
        explainers = {name: self.explainers[name] for name in names}
        return start(frame, explainers, partial(self._infer, batch))

    def frame_name(self, index: int) -> str:
        """Returns the name of a frame, which is loaded where the data set does not tell it."""
        known = None if self.facts.names is None else self.facts.names[index]
        return self._name(index, None if known else self._frame(self._batch(index)))

    def _name(self, index: int, frame: Frame | None) -> str:
        """Returns a frame's name in the whole data set: its records are told apart by it."""
        known = None if self.facts.names is None else self.facts.names[index]
        if known in self.facts.repeated:
            return f'{known}+{index:06d}'
        if known is None and frame.frame_id.startswith('frame_'):
            return numbered(index)
        return known or frame.frame_id

    def _learnt(
        self, begun: Start, plans: Mapping[str, Explanation], failed: dict[str, Exception]
    ) -> bool:
        """Traces a process's first frame for the methods that are new; returns if there were any.

        That finds out how far the head looks, once in a run, and is part of no frame's costs.
        """
        new = [name for name in plans if name not in self._known]
        for name in new:
            with catching(failed, name, begun.frame.frame_id):
                detections = plans[name].detections
                self._trace(self.explainers[name], begun.frame, begun.output, detections)
                self._known.add(name)
        return bool(new)

    def _resumable(self) -> list[Any]:
        """Returns the methods that can go on in the middle of a frame."""
        methods = [explainer.explainer for explainer in self.explainers.values()]
        return [method for method in methods if hasattr(method, 'checkpoint')]

    def _randomise(
        self, records: Sequence[ObjectRecord], explanation: Explanation, trace: Trace
    ) -> None:
        explainer = self.explainers[records[0].method]
        with ExitStack() as stack:
            for method in self._resumable():
                # What is kept on the disk would be taken for that of the true weights.
                stack.enter_context(overridden(method, 'checkpoint', None))
            add_randomisation(
                records, explanation, trace, explainer, self._parts(), self.evaluator.protocol
            )

    def _jitter(
        self,
        records: Sequence[ObjectRecord],
        explanation: Explanation,
        begun: Start,
    ) -> None:
        name = records[0].method
        explainer, frame, output = self.explainers[name], begun.of(name), begun.output
        with overridden(explainer, 'selection', self._all):
            plan = explainer.select(frame, output)
        if len(frame.points) != explanation.points.shape[0]:
            raise InputError(
                f'Frame {frame.frame_id!r}: expected {explanation.points.shape[0]} points after '
                f'jitter, received {len(frame.points)}: leave stability out, or make the '
                'pipeline keep all points.'
            )
        if len(plan.detections):
            trace = self._trace(explainer, frame, output, plan.detections)
            with torch.enable_grad():
                plan.maps = explainer.explainer.explain(trace, explainer.targets)
        again = on_cpu(plan)
        add_stability(records, explanation, again, self.evaluator.protocol)


def _of(records: Sequence[ObjectRecord], method: str) -> list[ObjectRecord]:
    return [record for record in records if record.method == method]
