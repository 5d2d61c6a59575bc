"""The section ``EXPLAINER`` of a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ...core.errors import InputError, UnknownNameError
from ..common.measuring import ExplanationMeasure

SECTION = 'EXPLAINER'


@dataclass(frozen=True)
class ExplainerSettings:
    """What a test run explains, and where it goes.

    In YAML the keys are in capitals::

        EXPLAINER:
            METHOD: FFAM
            ARGS: {LAYER: stride4, RANK: 16}
            TARGETS: [all, score]
            SELECT: {SCORE_THR: 0.3, TOP_N: 20}
            OUTPUTS: {PICTURES: True}
            METRICS: [deletion, vea, pg]

    Attributes:
        method: A registered explainer.
        args: Its settings.
        targets: What of a detection to explain, see ``core.targets.parse_targets``.
        select: Arguments of ``core.selection.Selection``.
        outputs: ``dir`` (by default ``explanations`` in OpenPCDet's folder of results), ``save``
            and ``pictures``, see ``adapters.common.recorder.Recorder``.
        resume: Whether frames whose result is there, made with the same settings, weights, points
            and detections, are taken from their file.
        on_error: ``'raise'``, or ``'skip'`` for runs that shall not end at a bad frame.
        interval: Frames from one line of the log to the next.
        check_checkpoint: Whether to refuse a checkpoint that lacks parameters of the model.
        head: Family of heads that the detector's is taken for, see ``heads.HEADS``.
        through_proposals: Of a two-stage detector: whether the path through the proposal is
            explained beside the refinement.
        metrics: How good the maps are is measured by these, some of ``metrics.saliency.METRICS``.
        protocol: Arguments of ``metrics.protocol.Protocol``.
    """

    method: str = 'FFAM'
    args: Mapping[str, Any] = field(default_factory=dict)
    targets: Any = 'all'
    select: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = True
    on_error: str = 'raise'
    interval: int = 10
    check_checkpoint: bool = True
    head: str | None = None
    through_proposals: bool = False
    metrics: Sequence[str] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def explainer(self) -> dict[str, Any]:
        """The explainer's configuration."""
        return {'type': self.method, **self.args}

    def measure(self) -> ExplanationMeasure | None:
        """Returns what measures the maps, or None if no metric is asked for."""
        return ExplanationMeasure(self.metrics, self.protocol) if self.metrics else None


def settings_of(config: Mapping[str, Any]) -> ExplainerSettings:
    """Reads the section ``EXPLAINER``; the letter case of its keys does not matter.

    Args:
        config: The whole configuration.

    Raises:
        InputError: If there is no such section, it is no mapping, or the protocol is out of range.
        UnknownNameError: If a key or a metric is unknown; the message lists the candidates.
    """
    section = config.get(SECTION)
    if not isinstance(section, Mapping):
        raise InputError(
            f'The configuration has no section {SECTION}: expected one, for example in a file of '
            f'its own with "_BASE_CONFIG_: cfgs/kitti_models/second.yaml" and "{SECTION}: '
            '{METHOD: FFAM}". (--no-explainer runs the test alone.)'
        )
    values = lowered(section)
    known = [f.name for f in fields(ExplainerSettings)]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f' Did you mean {close[0].upper()}?' if close else ''
            raise UnknownNameError(
                f'Unknown key {key.upper()} in the section {SECTION}: expected some of '
                f'{[name.upper() for name in known]}.{hint}'
            )
    for name in ('args', 'select', 'outputs', 'protocol'):
        if values.get(name) is None:
            values.pop(name, None)
        elif not isinstance(values[name], dict):
            raise InputError(
                f'{SECTION}.{name.upper()} is {values[name]!r}: expected a mapping, such as '
                '{SCORE_THR: 0.3}.'
            )
    names = values.get('metrics')
    values['metrics'] = [names] if isinstance(names, str) else list(names or ())
    settings = ExplainerSettings(**values)
    settings.measure()  # What is wrong with it is told here.
    return settings


def lowered(value: Any) -> Any:
    """Returns plain data with keys in small letters."""
    if isinstance(value, Mapping):
        return {str(key).lower(): lowered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [lowered(item) for item in value]
    return value
