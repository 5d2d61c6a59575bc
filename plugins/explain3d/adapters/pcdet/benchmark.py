"""Methods x metrics on the frames of a data set of OpenPCDet: what ``tools/benchmark.py`` runs."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.structures import Detections, Trace
from ..common import benchmark_frames as common
from ..common.benchmark_plan import BenchmarkPlan
from ..common.benchmark_run import log_to_stderr, on_own_device, run_frames
from ..common.frames import Frame
from ..common.spconv_compat import ensure_cpu_backward
from .api import on_device
from .black_box import PcdetBlackBox
from .checkpoints import checked_loading
from .config import data_path, read_config
from .cpu import cpu_mode
from .detector import backbone_of, head_of
from .frame_explainer import FrameExplainer
from .frames import frames_of
from .host import HostError, find_script, import_host, replaced, require_device
from .settings import lowered, settings_of

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

    box: PcdetBlackBox

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
        data = config['DATA_CONFIG']
        data['DATA_PATH'] = data_path(data['DATA_PATH'], self._tools)
        self._data_config = {**data, 'DATA_PATH': os.path.realpath(data['DATA_PATH'])}
        host = importlib.import_module('pcdet.config').EasyDict(config)
        build_dataloader = importlib.import_module('pcdet.datasets').build_dataloader
        build_network = importlib.import_module('pcdet.models').build_network
        dataset, _, _ = build_dataloader(
            dataset_cfg=host.DATA_CONFIG, class_names=host.CLASS_NAMES, batch_size=1, dist=False,
            workers=0, logger=_LOG, training=False,
        )  # fmt: skip
        model = build_network(
            model_cfg=host.MODEL, num_class=len(host.CLASS_NAMES), dataset=dataset
        )
        loading = checked_loading(self._template._load_state_dict, lambda: True)
        with replaced(self._template, '_load_state_dict', loading):
            model.load_params_from_file(filename=plan.checkpoint, logger=_LOG, to_cpu=True)
        return model.to(plan.device).eval(), dataset

    def _data(self) -> dict[str, Any]:
        return self._data_config

    def _explainer(self, method: dict[str, Any], select: dict[str, Any]) -> FrameExplainer:
        return FrameExplainer(self.model, method, self.plan.targets, select)

    def _black_box(self) -> PcdetBlackBox:
        return PcdetBlackBox(self.model, batch_size=self.plan.batch_size)

    def _parts(self) -> list[tuple[str, nn.Module]]:
        parts = [head_of(self.model), *reversed(backbone_of(self.model).items())]
        return [(name, part) for name, part in parts if next(part.parameters(), None) is not None]

    def _batch(self, index: int) -> dict[str, Any]:
        batch = self.dataset.collate_batch([self.dataset[index]])
        return on_device(batch, next(self.model.parameters()).device)

    def _moved(self, batch: dict[str, Any], move: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        (frame,) = frames_of(batch)
        return {**batch, **self.box.batch([move(frame.points)])}

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
    require_device(plan.device)
    script = find_script()
    ensure_cpu_backward()
    path = sys.path[:]
    with ExitStack() as stack:
        stack.callback(sys.path.__setitem__, slice(None), path)
        if plan.device == 'cpu':
            stack.enter_context(cpu_mode())
        template = import_host(script, plan.device == 'cpu')
        yield FrameBenchmark(plan, folder, template, script.parent)


def run_share(
    plan: BenchmarkPlan, folder: str, indices: Sequence[int], rank: int, threads: int
) -> None:
    """Runs some frames: what one process does; as in ``adapters.mmdet3d.benchmark``."""
    log_to_stderr()
    torch.set_num_threads(threads)
    plan = on_own_device(plan, rank)
    with opened(plan, folder) as benchmark:
        run_frames(benchmark, indices, rank)


def configuration(
    path: str | os.PathLike, options: Mapping[str, Any], tools: Path | None
) -> dict[str, Any]:
    """Returns a configuration with its bases, and with entries replaced by their dotted names."""
    config = read_config(path, tools)
    for name, value in options.items():
        *sections, key = name.split('.')
        place = config
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f'{name!r}: expected {section} to be a section, it is {place!r}.')
        place[key] = value
    return config


def benchmark_settings(path: str | os.PathLike, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a configuration says of a benchmark, as arguments of ``BenchmarkPlan``.

    That is its section ``BENCHMARK``; without one, the method, targets, selection, metrics and
    protocol of the section ``EXPLAINER``.
    """
    try:
        tools = find_script().parent
    except HostError:
        tools = None  # Configurations of ours need none; others are told what is missing.
    config = configuration(path, options, tools)
    section = config.get('BENCHMARK')
    if section is None:
        settings = settings_of(config)
        targets = settings.targets
        found = {
            'methods': {settings.method: settings.explainer},
            'targets': [targets] if isinstance(targets, str) else targets,
            'metrics': settings.metrics,
            'protocol': settings.protocol,
            'select': settings.select,
        }
        return {name: value for name, value in found.items() if value}
    if not isinstance(section, Mapping):
        raise InputError(f'BENCHMARK is {section!r}: expected a mapping, such as {{METHODS: ...}}.')
    found = {str(key).lower(): value for key, value in section.items()}
    # Names of methods are kept as they are.
    methods = found.get('methods') or {}
    return {
        **{name: lowered(value) for name, value in found.items()},
        'methods': {name: lowered(method) for name, method in methods.items()},
    }


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


__all__ = ['FrameBenchmark', 'benchmark_settings', 'opened', 'options_of', 'run_share']
