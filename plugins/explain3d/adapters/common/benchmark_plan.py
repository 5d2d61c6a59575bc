"""What a benchmark runs, as plain data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...core.checks import require_dict, require_names, require_text, require_whole, suggestion
from ...core.devices import default_device
from ...core.errors import InputError, UnknownNameError
from ...core.results_settings import plain
from ...core.targets import parse_targets
from ...methods import EXPLAINERS
from ...metrics.protocol import Protocol
from ...metrics.saliency import METRICS
from .frame_explainer import selection_of

#: Metrics that run methods again, and all that can be asked for.
SANITY = ('stability', 'randomisation')
ALL_METRICS = (*METRICS, *SANITY)


@dataclass(frozen=True)
class BenchmarkPlan:
    """What a benchmark runs.

    Attributes:
        config: File of the detector and data set.
        checkpoint: File of the weights; None: the configuration's ``load_from``.
        methods: Configuration of each method by the name it gets in tables.
        targets: What of a detection is explained.
        metrics: Some of ``ALL_METRICS``.
        protocol: Arguments of ``metrics.protocol.Protocol``.
        select: Which detections, arguments of ``core.selection.Selection``. Those without an
            object cannot be measured: unless it says otherwise, only those that match one by the
            protocol are explained.
        frames: Number of frames, the first of the test set; None: all.
        device: Where the detector runs; by default GPUs where there are any. Of several processes
            each has its own GPU if it is ``'cuda'``.
        batch_size: Clouds that go through the detector at a time.
        reference: Method that the others are compared with; None: the first.
        options: Entries of the configuration to replace, by their dotted names.
        tracing: How the detector is traced: of OpenPCDet ``head`` and ``through_proposals``, as in
            its ``FrameExplainer``; MMDetection3D has no such arguments.

    Raises:
        InputError: If there is no method or frame to run, or a value is of the wrong kind or out of
            its range.
        UnknownNameError: If a method, a target, a metric, the reference or an argument of one of
            them is unknown.
    """

    config: str
    checkpoint: str | None
    methods: Mapping[str, Mapping[str, Any]]
    targets: Sequence[Any] = ('all',)
    metrics: Sequence[str] = tuple(METRICS)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    select: Mapping[str, Any] = field(default_factory=lambda: dict(score_thr=0.3))
    frames: int | None = None
    device: str = field(default_factory=default_device)
    batch_size: int = 4
    reference: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tracing: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_values()
        if not self.methods or not self.metrics or not self.targets:
            raise InputError(
                'Expected at least one method, metric and target, received '
                f'{len(self.methods)}, {len(self.metrics)} and {len(self.targets)}.'
            )
        unknown = [name for name in self.metrics if name not in ALL_METRICS]
        if unknown:
            raise UnknownNameError(
                f'Unknown metrics {unknown}: expected some of {list(ALL_METRICS)}.'
                f'{suggestion(unknown[0], ALL_METRICS)}'
            )
        if self.reference is not None and self.reference not in self.methods:
            raise UnknownNameError(
                f'Unknown reference {self.reference!r}: expected one of {list(self.methods)}.'
            )
        if self.batch_size < 1 or (self.frames is not None and self.frames < 1):
            raise InputError(
                f'Expected batch_size and frames of at least 1, received {self.batch_size} and '
                f'{self.frames}.'
            )

    def _check_values(self) -> None:
        require_text('config', self.config, 'configs/benchmark/plan.py', optional=False)
        require_text('checkpoint', self.checkpoint, 'checkpoint.pth')
        require_text('device', self.device, 'cuda:0', optional=False)
        methods = require_dict('methods', self.methods, "{'FFAM': dict(type='FFAM')}")
        for name, method in methods.items():
            EXPLAINERS.build(require_dict(f'methods[{name!r}]', method, "dict(type='FFAM')"))
        if not isinstance(self.targets, (list, tuple)):
            raise InputError(
                f'Expected targets as a list, received {self.targets!r}: write [{self.targets!r}].'
            )
        if self.targets:
            parse_targets(self.targets)
        require_names('metrics', self.metrics, 'deletion', optional=False)
        Protocol.from_dict(self.protocol)
        selection_of(self.select)
        require_whole('frames', self.frames, least=None, optional=True)
        require_whole('batch_size', self.batch_size, least=None)
        require_text('reference', self.reference, next(iter(methods), 'FFAM'))
        require_dict('options', self.options, "{'test_dataloader.batch_size': 1}")
        require_dict('tracing', self.tracing, "{'head': 'CenterHead'}")

    @classmethod
    def of(cls, settings: Mapping[str, Any], **given: Any) -> BenchmarkPlan:
        """Returns a plan from a configuration's ``benchmark`` and what stands beside it.

        Args:
            settings: Some of the attributes.
            given: Attributes that win, unless they are None.

        Raises:
            UnknownNameError: If an entry of ``settings`` is no attribute.
            InputError: As the class.
        """
        known = [f.name for f in fields(cls)]
        unknown = [name for name in settings if name not in known]
        if unknown:
            raise UnknownNameError(
                f'Unknown entries {unknown} of benchmark: expected {known}.'
                f'{suggestion(unknown[0], known)}'
            )
        given = {name: value for name, value in given.items() if value is not None}
        return cls(**{'checkpoint': None, 'methods': {}, **settings, **given})

    def as_json(self) -> str:
        """Returns the plan as JSON, to be written beside the results."""
        return json.dumps(plain(asdict(self), 'plan'), indent=2)


def data_settings(data: Any) -> dict[str, Any]:
    """Returns a data set's configuration as plain data, its folder as an absolute path."""
    found = dict(data.to_dict() if hasattr(data, 'to_dict') else data)
    if found.get('data_root'):
        found['data_root'] = os.path.realpath(found['data_root'])
    return found
