"""The section ``EXPLAINER`` of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ...core.checks import (
    require_choice,
    require_dict,
    require_flag,
    require_names,
    require_text,
    suggestion,
)
from ...core.errors import InputError, UnknownNameError
from ...core.selection import with_thresholds
from ..common.frame_explainer import checked_explaining
from ..common.measuring import ExplanationMeasure
from ..common.outputs import check_run, checked_outputs
from ..common.recorder import Recorder
from .heads import HEADS

SECTION = 'EXPLAINER'
#: Metrics that ask the detector about perturbed frames.
PERTURBING = frozenset({'deletion', 'insertion'})


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
        select: Arguments of ``core.selection.Selection``; with ``matched: tp`` or ``fp`` its
            thresholds are those of ``protocol``, unless it says otherwise.
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

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
        UnknownNameError: If the method, a target, a metric, a kind of picture, or an argument of
            one of them is unknown.
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

    def __post_init__(self) -> None:
        require_text('METHOD', self.method, 'FFAM', optional=False)
        require_dict('ARGS', self.args, '{LAYER: stride4}')
        check_run(self.resume, self.on_error, self.interval, self.check_checkpoint)
        _, targets, _ = checked_explaining(self.explainer, self.targets, self.select)
        checked_outputs('OUTPUTS', self.outputs, Recorder, [target.name for target in targets])
        require_choice('HEAD', self.head, HEADS, optional=True)
        require_flag('THROUGH_PROPOSALS', self.through_proposals)
        require_names('METRICS', self.metrics, 'deletion', optional=False)
        ExplanationMeasure(self.metrics, self.protocol)

    @property
    def explainer(self) -> dict[str, Any]:
        """The explainer's configuration."""
        return {'type': self.method, **self.args}

    @property
    def tracing(self) -> dict[str, Any]:
        """How the detector is traced, arguments of ``FrameExplainer``."""
        return {'head': self.head, 'through_proposals': self.through_proposals}

    def measure(self) -> ExplanationMeasure | None:
        """Returns what measures the maps, or None if no metric is asked for."""
        return ExplanationMeasure(self.metrics, self.protocol) if self.metrics else None


def settings_of(config: Mapping[str, Any]) -> ExplainerSettings:
    """Reads the section ``EXPLAINER``; the letter case of its keys does not matter.

    Args:
        config: The whole configuration.

    Raises:
        InputError: If there is no such section, it is no mapping, or a value is out of its range.
        UnknownNameError: If a key, a key of the outputs, the method, one of its settings, a
            target, an argument of the selection, a metric or the family of heads is unknown; the
            message lists the candidates.
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
            hint = suggestion(key.upper(), [name.upper() for name in known]).replace("'", '')
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
    select, protocol = (values.get(name) for name in ('select', 'protocol'))
    if isinstance(select, Mapping) and isinstance(protocol, Mapping):
        values['select'] = with_thresholds(select, protocol)
    return ExplainerSettings(**values)


def lowered(value: Any) -> Any:
    """Returns plain data with keys in small letters."""
    if isinstance(value, Mapping):
        return {str(key).lower(): lowered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [lowered(item) for item in value]
    return value
