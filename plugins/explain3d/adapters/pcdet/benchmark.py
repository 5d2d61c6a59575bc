"""Methods x metrics on the frames of a data set of OpenPCDet: what ``tools/benchmark.py`` runs."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError, NotApplicableError
from ...core.structures import Detections, Trace
from ..common import benchmark_frames as common
from ..common.benchmark_plan import BenchmarkPlan
from ..common.benchmark_run import log_to_stderr, on_own_device, run_frames
from ..common.data_facts import DataFacts
from ..common.frames import Frame
from .api import on_device
from .black_box import PcdetBlackBox
from .checkpoints import checked_checkpoints
from .data_facts import annotation_digest, facts_of
from .dataset import build_test_data, clouds, configuration, opened_host
from .detector import backbone_of, head_of
from .frame_explainer import FrameExplainer
from .frames import frames_of
from .host import HostError, find_script
from .settings import PERTURBING, SECTION, ExplainerSettings, lowered, settings_of
from .voxels import VoxelSettings

_LOG = logging.getLogger('explain3d')


class FrameBenchmark(common.FrameBenchmark):
    """Runs a plan on the test frames of a configuration of OpenPCDet, frame by frame.

    Arguments and errors as in ``adapters.common.benchmark_frames.FrameBenchmark``. ``pcdet`` has
    to be importable: see ``opened``.

    Args:
        plan: What to run.
        folder: Where each frame's records go.
        template: OpenPCDet's ``Detector3DTemplate``.
        tools: Its folder ``tools``.
    """

    box: PcdetBlackBox | None

    def __init__(
        self, plan: BenchmarkPlan, folder: str | os.PathLike, template: type, tools: Path
    ) -> None:
        self._template, self._tools = template, tools
        super().__init__(plan, folder)

    def _load(self) -> tuple[nn.Module, Any]:
        plan = self.plan
        if plan.checkpoint is None or not Path(plan.checkpoint).is_file():
            raise InputError(
                f'Expected a checkpoint behind the configuration, received {plan.checkpoint!r}, '
                'which is no file. Random weights would be measured otherwise.'
            )
        config = configuration(plan.config, plan.options, self._tools)
        host, dataset = build_test_data(config, self._tools)
        data = config['DATA_CONFIG']
        self._data_config = {**data, 'DATA_PATH': os.path.realpath(data['DATA_PATH'])}
        build_network = importlib.import_module('pcdet.models').build_network
        model = build_network(
            model_cfg=host.MODEL, num_class=len(host.CLASS_NAMES), dataset=dataset
        )
        with checked_checkpoints(self._template, lambda: True):
            model.load_params_from_file(filename=plan.checkpoint, logger=_LOG, to_cpu=True)
        return model.to(plan.device).eval(), dataset

    def _data(self) -> dict[str, Any]:
        return self._data_config

    def _facts(self) -> DataFacts:
        return facts_of(self.dataset)

    def _annotation(self) -> str | None:
        return annotation_digest(self.dataset)

    def _explainer(self, method: dict[str, Any], select: dict[str, Any]) -> FrameExplainer:
        return FrameExplainer(
            self.model, method, self.plan.targets, select, facts=self.facts, **self.plan.tracing
        )

    def _black_box(self) -> PcdetBlackBox | None:
        family = self.plan.tracing.get('head')
        try:
            return PcdetBlackBox(self.model, family=family, batch_size=self.plan.batch_size)
        except NotApplicableError:
            if PERTURBING & set(self.plan.metrics):
                raise
            return None  # Two stages: the other metrics do without.

    def _parts(self) -> list[tuple[str, nn.Module]]:
        parts = [head_of(self.model), *reversed(backbone_of(self.model).items())]
        return [(name, part) for name, part in parts if next(part.parameters(), None) is not None]

    def _batch(self, index: int) -> dict[str, Any]:
        batch = self.dataset.collate_batch([self.dataset[index]])
        return on_device(batch, next(self.model.parameters()).device)

    def _moved(self, batch: dict[str, Any], move: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        (frame,) = frames_of(batch)
        return {**batch, **VoxelSettings.of(self.model).full_batch([move(frame.points)])}

    def _frame(self, batch: dict[str, Any]) -> Frame:
        return frames_of(batch)[0]

    @torch.no_grad()
    def _infer(self, batch: dict[str, Any]) -> Any:
        return self.model(dict(batch))[0][0]

    def _trace(
        self, explainer: FrameExplainer, frame: Frame, output: Any, detections: Detections
    ) -> Trace:
        return explainer.trace(self.model.forward, frame, detections)


@contextmanager
def opened(plan: BenchmarkPlan, folder: str | os.PathLike) -> Iterator[FrameBenchmark]:
    """Imports OpenPCDet, with stand-ins for its operators on a CPU, and makes a benchmark.

    Raises:
        HostError: As ``host.find_script``, ``host.import_host`` and ``host.require_device``.
    """
    with opened_host(plan.device) as (template, tools):
        yield FrameBenchmark(plan, folder, template, tools)


def run_share(
    plan: BenchmarkPlan, folder: str, indices: Sequence[int], rank: int, threads: int
) -> None:
    """Runs some frames: what one process does; as in ``adapters.mmdet3d.benchmark``."""
    log_to_stderr()
    torch.set_num_threads(threads)
    plan = on_own_device(plan, rank)
    with opened(plan, folder) as benchmark:
        run_frames(benchmark, indices, rank)


def benchmark_settings(path: str | os.PathLike, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a configuration says of a benchmark, as arguments of ``BenchmarkPlan``.

    That is its section ``BENCHMARK``; without one, the method, targets, selection, metrics and
    protocol of the section ``EXPLAINER``. ``HEAD`` and ``THROUGH_PROPOSALS``, which are of the
    detector, are taken from the section ``EXPLAINER`` where ``BENCHMARK`` does not have them.

    Args:
        path: The YAML file.
        options: Values by name, see ``entries.set_entry``.

    Raises:
        UnknownNameError: If an entry is unknown.
        InputError: If the file is not there, or a section is no mapping.
    """
    try:
        tools = find_script().parent
    except HostError:
        tools = None  # Configurations of ours need none; others are told what is missing.
    config = configuration(path, options, tools)
    section = config.get('BENCHMARK')
    settings = settings_of(config) if section is None or SECTION in config else None
    tracing = {} if settings is None else settings.tracing
    if section is None:
        return {**_of_explainer(settings), 'tracing': tracing}
    if not isinstance(section, Mapping):
        raise InputError(f'BENCHMARK is {section!r}: expected a mapping, such as {{METHODS: ...}}.')
    found = {str(key).lower(): value for key, value in section.items()}
    # Names of methods are kept as they are.
    methods = found.get('methods') or {}
    own = {name: found.pop(name) for name in ('head', 'through_proposals') if name in found}
    return {
        **{name: lowered(value) for name, value in found.items()},
        'methods': {name: lowered(method) for name, method in methods.items()},
        'tracing': {**tracing, **own},
    }


def _of_explainer(settings: ExplainerSettings) -> dict[str, Any]:
    targets = settings.targets
    found = {
        'methods': {settings.method: settings.explainer},
        'targets': [targets] if isinstance(targets, str) else targets,
        'metrics': settings.metrics,
        'protocol': settings.protocol,
        'select': settings.select,
    }
    return {name: value for name, value in found.items() if value}


def options_of(texts: Sequence[str]) -> dict[str, Any]:
    """Returns ``NAME.NAME=value`` as values by dotted names; values are YAML.

    Raises:
        InputError: If there is no ``=``.
    """
    import yaml

    found = {}
    for text in texts:
        name, equals, value = text.partition('=')
        if not equals:
            raise InputError(f'Expected NAME.NAME=value, received {text!r}.')
        found[name] = yaml.safe_load(value)
    return found


__all__ = ['FrameBenchmark', 'benchmark_settings', 'clouds', 'opened', 'options_of', 'run_share']
