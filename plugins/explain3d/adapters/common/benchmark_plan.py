"""What a benchmark runs, as plain data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ...core.devices import default_device
from ...core.errors import InputError, UnknownNameError
from ...core.results_settings import plain
from ...metrics.saliency import METRICS

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

    Raises:
        InputError: If there is no method or frame to run, or a number is out of its range.
        UnknownNameError: If a metric or the reference is unknown.
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

    def __post_init__(self) -> None:
        if not self.methods or not self.metrics or not self.targets:
            raise InputError(
                'Expected at least one method, metric and target, received '
                f'{len(self.methods)}, {len(self.metrics)} and {len(self.targets)}.'
            )
        unknown = [name for name in self.metrics if name not in ALL_METRICS]
        if unknown:
            raise UnknownNameError(
                f'Unknown metrics {unknown}: expected some of {list(ALL_METRICS)}.'
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
            raise UnknownNameError(f'Unknown entries {unknown} of benchmark: expected {known}.')
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
