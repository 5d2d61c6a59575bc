"""Methods x metrics on the frames of a data set: what ``tools/benchmark.py`` runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.structures import Detections, Trace
from ..common import benchmark_frames as common
from ..common.benchmark_plan import BenchmarkPlan, data_settings
from ..common.benchmark_run import log_to_stderr, on_own_device, run_frames
from ..common.data_facts import DataFacts
from ..common.frames import Frame
from .black_box import MMDet3DBlackBox
from .data_facts import annotation_digest, facts_of
from .detector import backbone_of, head_of
from .frame_explainer import FrameExplainer


class FrameBenchmark(common.FrameBenchmark):
    """Runs a plan on the test frames of a configuration of MMDetection3D, frame by frame.

    Arguments and errors as in ``adapters.common.benchmark_frames.FrameBenchmark``.
    """

    def _load(self) -> tuple[nn.Module, Any]:
        from mmdet3d.apis import init_model
        from mmdet3d.registry import DATASETS

        plan = self.plan
        if plan.tracing:
            raise InputError(
                f'Received tracing={dict(plan.tracing)!r}: expected none, it is of detectors of '
                'OpenPCDet.'
            )
        config = Config.fromfile(plan.config)
        config.merge_from_dict(dict(plan.options))
        checkpoint = plan.checkpoint or config.get('load_from')
        if not checkpoint:
            raise InputError(
                f'{plan.config} has no load_from: expected weights, received none. Name a '
                'checkpoint; random weights would be measured otherwise.'
            )
        init_default_scope(config.get('default_scope', 'mmdet3d'))
        model = init_model(config, checkpoint, device=plan.device)
        self._data_config = config.test_dataloader.dataset
        return model, DATASETS.build(self._data_config)

    def _data(self) -> dict[str, Any]:
        return data_settings(self._data_config)

    def _facts(self) -> DataFacts:
        return facts_of(self.dataset)

    def _annotation(self) -> str | None:
        return annotation_digest(self.dataset)

    def _explainer(self, method: dict[str, Any], select: dict[str, Any]) -> FrameExplainer:
        return FrameExplainer(self.model, method, self.plan.targets, select, facts=self.facts)

    def _black_box(self) -> MMDet3DBlackBox:
        return MMDet3DBlackBox(self.model, batch_size=self.plan.batch_size)

    def _parts(self) -> list[tuple[str, nn.Module]]:
        path, head = head_of(self.model)
        parts = [(path, head), *reversed(backbone_of(self.model).parts)]
        return [(name, part) for name, part in parts if next(part.parameters(), None) is not None]

    def _batch(self, index: int) -> dict[str, Any]:
        return pseudo_collate([self.dataset[index]])

    def _moved(self, batch: dict[str, Any], move: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        points = batch['inputs']['points'][0]
        return {**batch, 'inputs': {**batch['inputs'], 'points': [move(points)]}}

    @torch.no_grad()
    def _frame(self, batch: dict[str, Any]) -> Frame:
        data = self.model.data_preprocessor(batch, False)
        explainer = next(iter(self.explainers.values()))
        return explainer.frames(data['inputs'], data['data_samples'])[0]

    @torch.no_grad()
    def _infer(self, batch: dict[str, Any]) -> Any:
        return self.model.test_step(batch)[0]

    def _trace(
        self, explainer: FrameExplainer, frame: Frame, output: Any, detections: Detections
    ) -> Trace:
        return explainer.trace(self.model.predict, frame, output, detections)


@contextmanager
def opened(plan: BenchmarkPlan, folder: str | os.PathLike) -> Iterator[FrameBenchmark]:
    """Makes a benchmark."""
    yield FrameBenchmark(plan, folder)


def benchmark_settings(path: str | os.PathLike, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration's ``benchmark``, arguments of ``BenchmarkPlan``."""
    config = Config.fromfile(path)
    config.merge_from_dict(dict(options))
    settings = config.get('benchmark') or {}
    return settings.to_dict() if hasattr(settings, 'to_dict') else dict(settings)


def clouds(
    path: str | os.PathLike, options: Mapping[str, Any], frames: int | None
) -> list[np.ndarray]:
    """Returns the (N, >= 3) points of each test frame as the detector gets them.

    Args:
        path: The configuration.
        options: Entries to replace, by their dotted names.
        frames: The first so many; None: all.
    """
    from mmdet3d.registry import DATASETS

    config = Config.fromfile(path)
    config.merge_from_dict(dict(options))
    init_default_scope(config.get('default_scope', 'mmdet3d'))
    dataset = DATASETS.build(config.test_dataloader.dataset)
    count = min(len(dataset), frames or len(dataset))
    return [dataset[i]['inputs']['points'].numpy() for i in range(count)]


def options_of(texts: Sequence[str]) -> dict[str, Any]:
    """Returns ``name.name=value`` as MMEngine's command lines read it."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction, default={})
    return parser.parse_args(['--options', *texts]).options if texts else {}


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
    log_to_stderr()
    torch.set_num_threads(threads)
    plan = on_own_device(plan, rank)
    run_frames(FrameBenchmark(plan, folder), indices, rank)
