"""Methods x metrics on the frames of a data set: what ``tools/benchmark.py`` runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from ...core.errors import InputError
from ...core.results_settings import fingerprint
from ...core.session import overridden
from ...core.structures import Explanation, Trace
from ...metrics.protocol import Protocol
from ...metrics.saliency import (
    METRICS,
    ObjectRecord,
    SaliencyEvaluator,
    require_finite_maps,
)
from ...metrics.sanity import jittered
from ..common.benchmark_plan import ALL_METRICS, BenchmarkPlan, data_settings
from ..common.benchmark_records import Collected, RecordStore
from ..common.benchmark_run import catching, run_frames
from ..common.benchmark_sanity import add_randomisation, add_stability
from ..common.costs import explained, timed
from ..common.frame_explainer import on_cpu, selection_of
from .black_box import MMDet3DBlackBox
from .detector import backbone_of, head_of
from .frame_explainer import FrameExplainer

_LOG = logging.getLogger('explain3d')


class FrameBenchmark:
    """Runs a plan frame by frame.

    Args:
        plan: What to run.
        folder: Where each frame's records go. What is there, made with the same settings, is not
            run again; interrupted methods keep what they have in ``unfinished`` below it.

    Raises:
        UnknownNameError: If a method, target, layer or an argument is unknown.
        NotApplicableError: If the detector cannot be asked about perturbed frames.
        InputError: If there is no checkpoint, or a value is out of its range.
    """

    def __init__(self, plan: BenchmarkPlan, folder: str | os.PathLike) -> None:
        from mmdet3d.apis import init_model
        from mmdet3d.registry import DATASETS

        self.plan, self.folder = plan, Path(folder)
        config = Config.fromfile(plan.config)
        config.merge_from_dict(dict(plan.options))
        checkpoint = plan.checkpoint or config.get('load_from')
        if not checkpoint:
            raise InputError(
                f'{plan.config} has no load_from: expected weights, received none. Name a '
                'checkpoint; random weights would be measured otherwise.'
            )
        init_default_scope(config.get('default_scope', 'mmdet3d'))
        self.model = init_model(config, checkpoint, device=plan.device)
        data = config.test_dataloader.dataset
        self.dataset = DATASETS.build(data)
        protocol = Protocol(**plan.protocol)
        # Jittered frames are searched for the same detections by their overlap with those.
        self._all = selection_of(dict(plan.select))
        only = dict(matched=protocol.iou_thr, iou=protocol.iou)
        select = {**only, **plan.select}
        self.explainers = {
            name: FrameExplainer(self.model, dict(method), plan.targets, select)
            for name, method in plan.methods.items()
        }
        for explainer in self._resumable():
            explainer.checkpoint = explainer.checkpoint or str(self.folder / 'unfinished')
        settings = {name: explainer.settings for name, explainer in self.explainers.items()}
        self.box = MMDet3DBlackBox(self.model, batch_size=plan.batch_size)
        measured = [name for name in ALL_METRICS if name in plan.metrics and name in METRICS]
        self.evaluator = SaliencyEvaluator(
            Protocol(**{**plan.protocol, 'detector': next(iter(settings.values()))['model']}),
            measured,
        )
        common = dict(
            data=data_settings(data),
            metrics=sorted(plan.metrics),
            protocol=self.evaluator.protocol.as_dict(),
        )
        self.store = RecordStore(
            self.folder, {name: fingerprint({**some, **common}) for name, some in settings.items()}
        )

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
        wanted, failed = self.store.missing(index), {}
        try:
            records = self._measure(pseudo_collate([self.dataset[index]]), wanted, failed)
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
        batch = pseudo_collate([self.dataset[index]])
        return self._explain(batch, list(self.explainers), {})[0]

    def _measure(
        self, batch: dict, wanted: Sequence[str], failed: dict[str, Exception]
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
            predicted = self._predict_jittered(batch)
            for name in explanations:
                with catching(failed, name, records[0].frame):
                    self._jitter(_of(records, name), explanations[name], *predicted)
        return records

    def _explain(
        self, batch: dict, wanted: Sequence[str], failed: dict[str, Exception]
    ) -> tuple[dict[str, Explanation], dict[str, Trace], dict[str, dict[str, float]]]:
        """Returns explanations, traces and costs by method; nothing where no object matches."""
        results, frame_of = self._predict(batch)
        explanations, traces, costs = {}, {}, {}
        for name in wanted:
            explainer = self.explainers[name]
            frame, plan = frame_of(explainer)
            if len(plan.detections) == 0:
                return {}, {}, {}
            with catching(failed, name, frame.frame_id):
                # A trace of its own for each: what one has computed would be free for the next.
                trace, traced = timed(
                    lambda e=explainer, f=frame, p=plan: e.tracer.trace(
                        self.model.predict, f.inputs, results[0], p.detections, f.frame_id
                    )
                )
                if trace.black_box is not None:
                    trace.black_box.batch_size = self.plan.batch_size
                plan.maps, costs[name] = explained(explainer, trace, traced)
                require_finite_maps(plan, name)
                explanations[name] = on_cpu(plan)
                # Without the graph, of which there would be one for each method.
                traces[name] = replace(trace, attributes={}, gradients=None)
        return explanations, traces, costs

    def _predict(self, batch: dict) -> tuple[list, Any]:
        with torch.no_grad():
            results = self.model.test_step(batch)
            data = self.model.data_preprocessor(batch, False)

        def frame_of(explainer: FrameExplainer) -> tuple[Any, Explanation]:
            frame = explainer.frames(data['inputs'], data['data_samples'])[0]
            frame.check()
            return frame, explainer.select(frame, results[0])

        return results, frame_of

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
            parts = _parts_from_the_top(self.model)
            add_randomisation(
                records, explanation, trace, explainer, parts, self.evaluator.protocol
            )

    def _predict_jittered(self, batch: dict) -> tuple[list, Any]:
        protocol = self.evaluator.protocol
        points = batch['inputs']['points'][0]
        moved = jittered(points, protocol.jitter, protocol.seed)
        return self._predict({**batch, 'inputs': {**batch['inputs'], 'points': [moved]}})

    def _jitter(
        self,
        records: Sequence[ObjectRecord],
        explanation: Explanation,
        results: list,
        frame_of: Callable,
    ) -> None:
        explainer = self.explainers[records[0].method]
        with overridden(explainer, 'selection', self._all):
            frame, plan = frame_of(explainer)
        if len(frame.points) != explanation.points.shape[0]:
            raise InputError(
                f'Frame {frame.frame_id!r}: expected {explanation.points.shape[0]} points after '
                f'jitter, received {len(frame.points)}: leave stability out, or make the '
                'pipeline keep all points.'
            )
        again = explainer.explain(self.model.predict, frame, results[0], plan)
        add_stability(records, explanation, again, self.evaluator.protocol)


def run_share(
    plan: BenchmarkPlan, folder: str, indices: Sequence[int], rank: int, threads: int
) -> None:
    """Runs some frames: what one process does.

    Args:
        plan: What to run.
        folder: Where the records go.
        indices: Which frames.
        rank: Number of the process, for its lines.
        threads: Of torch.
    """
    torch.set_num_threads(threads)
    run_frames(FrameBenchmark(plan, folder), indices, rank)


def _of(records: Sequence[ObjectRecord], method: str) -> list[ObjectRecord]:
    return [record for record in records if record.method == method]


def _parts_from_the_top(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    path, head = head_of(model)
    parts = [(path, head), *reversed(backbone_of(model).parts)]
    return [(name, part) for name, part in parts if next(part.parameters(), None) is not None]


__all__ = [
    'ALL_METRICS',
    'BenchmarkPlan',
    'FrameBenchmark',
    'run_frames',
    'run_share',
]
