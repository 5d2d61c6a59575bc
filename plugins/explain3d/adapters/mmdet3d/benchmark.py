"""Methods x metrics on the frames of a data set: what ``tools/benchmark.py`` runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from ...core.errors import InputError, NotApplicableError
from ...core.results_settings import fingerprint
from ...core.structures import Explanation, Maps, Trace
from ...metrics.protocol import Protocol
from ...metrics.saliency import METRICS, ObjectRecord, SaliencyEvaluator
from ...metrics.saliency_table import load_records, save_records
from ...metrics.sanity import jittered, randomisation, stability
from ..common.frame_explainer import on_cpu
from .black_box import MMDet3DBlackBox
from .detector import backbone_of, head_of
from .frame_explainer import FrameExplainer

#: Metrics that run methods again, and those that every run gives.
SANITY = ('stability', 'randomisation')
ALL_METRICS = (*METRICS, *SANITY)


@dataclass(frozen=True)
class BenchmarkPlan:
    """What a benchmark runs, as plain data.

    Attributes:
        config: File of the detector and data set.
        checkpoint: File of the weights; None: the configuration's ``load_from``.
        methods: Configuration of each method by the name it gets in tables.
        targets: What of a detection is explained.
        metrics: Some of ``ALL_METRICS``.
        protocol: Arguments of ``Protocol``.
        select: Which detections; those without an object are not measured.
        frames: Number of frames, the first of the test set; None: all.
        device: Where the detector runs.
        batch_size: Clouds that go through the detector at a time.
    """

    config: str
    checkpoint: str | None
    methods: Mapping[str, Mapping[str, Any]]
    targets: Sequence[Any] = ('all',)
    metrics: Sequence[str] = tuple(METRICS)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    select: Mapping[str, Any] = field(default_factory=lambda: dict(score_thr=0.3))
    frames: int | None = None
    device: str = 'cpu'
    batch_size: int = 4

    def fingerprint(self, model: str) -> str:
        """Returns what tells results of this plan from others'; frames and device do not count."""
        plain = dict(
            methods={name: dict(method) for name, method in self.methods.items()},
            targets=list(self.targets),
            metrics=list(self.metrics),
            protocol=dict(self.protocol),
            select=dict(self.select),
            model=model,
        )
        return fingerprint(plain)


class FrameBenchmark:
    """Runs a plan frame by frame.

    Args:
        plan: What to run.
        folder: Where each frame's records go; frames that are there, made by the same plan, are
            not run again.

    Raises:
        UnknownNameError: If a method, metric, target or layer is unknown.
        NotApplicableError: If the detector cannot be asked about perturbed frames.
    """

    def __init__(self, plan: BenchmarkPlan, folder: str | os.PathLike) -> None:
        from mmdet3d.apis import init_model
        from mmdet3d.registry import DATASETS

        unknown = [name for name in plan.metrics if name not in ALL_METRICS]
        if unknown:
            raise InputError(f'Unknown metrics {unknown}: expected some of {list(ALL_METRICS)}.')
        self.plan, self.folder = plan, Path(folder)
        config = Config.fromfile(plan.config)
        init_default_scope(config.get('default_scope', 'mmdet3d'))
        self.model = init_model(config, plan.checkpoint or config.load_from, device=plan.device)
        self.dataset = DATASETS.build(config.test_dataloader.dataset)
        self.explainers = {
            name: FrameExplainer(self.model, dict(method), plan.targets, dict(plan.select))
            for name, method in plan.methods.items()
        }
        first = next(iter(self.explainers.values()))
        digest = first.settings['model']
        self.stamp = plan.fingerprint(digest)
        self.box = MMDet3DBlackBox(self.model, batch_size=plan.batch_size)
        measured = [name for name in plan.metrics if name in METRICS]
        protocol = Protocol(**{**plan.protocol, 'detector': digest})
        self.evaluator = SaliencyEvaluator(protocol, measured)

    def indices(self) -> range:
        """Returns the indices of the frames to run."""
        count = len(self.dataset)
        return range(count if self.plan.frames is None else min(self.plan.frames, count))

    def path(self, index: int) -> Path:
        """Returns the file of a frame's records."""
        return self.folder / f'{self.stamp[:12]}_{index:06d}.json'

    def done(self, index: int) -> bool:
        """Whether a frame's records are there; a damaged file is removed."""
        try:
            load_records(self.path(index))
        except FileNotFoundError:
            return False
        except InputError:
            self.path(index).unlink()
            return False
        return True

    def run(self, index: int) -> list[ObjectRecord]:
        """Runs one frame and writes its records; a frame without matched objects has none."""
        records = self._measure(pseudo_collate([self.dataset[index]]))
        save_records(records, self.path(index))
        return records

    def _measure(self, batch: dict) -> list[ObjectRecord]:
        results, frame_of = self._predict(batch)
        explanations, traces, seconds = {}, {}, {}
        shared: dict[str, tuple[Trace, float]] = {}
        for name, explainer in self.explainers.items():
            frame, plan = frame_of(explainer)
            if len(plan.detections) == 0:
                return []
            layer = explainer.tracer.layer.name
            if layer not in shared:
                shared[layer] = _timed(
                    lambda e=explainer, f=frame, p=plan: e.tracer.trace(
                        self.model.predict, f.inputs, results[0], p.detections, f.frame_id
                    )
                )
            trace, traced = shared[layer]
            with torch.enable_grad():
                maps, spent = _timed(lambda e=explainer, t=trace: e.explainer.explain(t, e.targets))
            plan.maps = maps
            explanations[name], traces[name] = on_cpu(plan), trace
            seconds[name] = (traced + spent) / len(plan.detections)
        records = self.evaluator.evaluate(explanations, self.box)
        for record in records:
            record.figures['seconds'] = seconds[record.method]
        if records and 'randomisation' in self.plan.metrics:
            self._add_randomisation(records, explanations, traces)
        if records and 'stability' in self.plan.metrics:
            self._add_stability(records, explanations, batch)
        return records

    def _predict(self, batch: dict) -> tuple[list, Any]:
        with torch.no_grad():
            results = self.model.test_step(batch)
            data = self.model.data_preprocessor(batch, False)

        def frame_of(explainer: FrameExplainer) -> tuple[Any, Explanation]:
            frame = explainer.frames(data['inputs'], data['data_samples'])[0]
            frame.check()
            return frame, explainer.select(frame, results[0])

        return results, frame_of

    def _add_randomisation(
        self,
        records: Sequence[ObjectRecord],
        explanations: Mapping[str, Explanation],
        traces: Mapping[str, Trace],
    ) -> None:
        """Adds ``randomisation``, all weights shuffled, and ``randomisation_<part>`` on the way."""
        parts = _parts_from_the_top(self.model)
        for name, explainer in self.explainers.items():
            targets, maps = explainer.targets, explanations[name].maps
            here = Maps({k: v.to(traces[name].points.device) for k, v in maps.saliency.items()})
            try:
                found = randomisation(
                    explainer.explainer,
                    traces[name],
                    targets,
                    here,
                    parts,
                    self.evaluator.protocol.seed,
                )
            except NotApplicableError:
                continue
            last = list(found)[-1]
            for record in _of(records, name):
                row = _row(explanations[name], record)
                for part, by_target in found.items():
                    value = float(by_target[record.target][row])
                    key = 'randomisation' if part == last else f'randomisation_{part}'
                    record.figures[key] = value

    def _add_stability(
        self, records: Sequence[ObjectRecord], explanations: Mapping[str, Explanation], batch: dict
    ) -> None:
        protocol = self.evaluator.protocol
        points = batch['inputs']['points'][0]
        moved = jittered(points, protocol.jitter, protocol.seed)
        again = {**batch, 'inputs': {**batch['inputs'], 'points': [moved]}}
        results, frame_of = self._predict(again)
        for name, explainer in self.explainers.items():
            frame, plan = frame_of(explainer)
            if len(frame.points) != explanations[name].points.shape[0]:
                raise InputError('Jitter changed the number of points: expected it kept.')
            plan = explainer.explain(self.model.predict, frame, results[0], plan)
            for target in explainer.targets:
                values = stability(
                    explanations[name].maps.saliency[target.name],
                    explanations[name].detections,
                    plan.maps.saliency[target.name],
                    plan.detections,
                )
                for record in _of(records, name):
                    if record.target == target.name:
                        row = _row(explanations[name], record)
                        record.figures['stability'] = float(values[row])


def _of(records: Sequence[ObjectRecord], method: str) -> list[ObjectRecord]:
    return [record for record in records if record.method == method]


def _row(explanation: Explanation, record: ObjectRecord) -> int:
    """Returns which of the explained detections a record is about."""
    return explanation.detection_indices.tolist().index(record.detection)


def _timed(step: Any) -> tuple[Any, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    value = step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return value, time.perf_counter() - started


def _parts_from_the_top(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    path, head = head_of(model)
    parts = [(path, head), *reversed(backbone_of(model).parts)]
    return [(name, part) for name, part in parts if next(part.parameters(), None) is not None]


def collect(benchmark: FrameBenchmark) -> list[ObjectRecord]:
    """Returns the records of all frames of a finished run, in the order of the frames."""
    return [r for i in benchmark.indices() for r in load_records(benchmark.path(i))]


def run_share(plan: BenchmarkPlan, folder: str, rank: int, world: int, threads: int) -> None:
    """Runs every ``world``-th frame from ``rank`` on: what one process does."""
    torch.set_num_threads(threads)
    benchmark = FrameBenchmark(plan, folder)
    mine = [i for i in benchmark.indices() if i % world == rank]
    for number, index in enumerate(mine, 1):
        if benchmark.done(index):
            print(f'[{rank}] {number}/{len(mine)}: frame {index} is there', flush=True)
            continue
        started = time.monotonic()
        records = benchmark.run(index)
        objects = len({record.name for record in records})
        seconds = time.monotonic() - started
        print(f'[{rank}] {number}/{len(mine)}: frame {index}, {objects} objects, {seconds:.1f} s',
              flush=True)  # fmt: skip


def plan_digest(plan: BenchmarkPlan) -> str:
    """Returns the plan as JSON, to be written beside the results."""
    return json.dumps(
        {**replace(plan).__dict__, 'methods': {k: dict(v) for k, v in plan.methods.items()}},
        indent=2, default=str,
    )  # fmt: skip


__all__ = [
    'ALL_METRICS',
    'BenchmarkPlan',
    'FrameBenchmark',
    'collect',
    'plan_digest',
    'run_share',
]
