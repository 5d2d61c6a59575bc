"""Settings of a run that explains, checked before the run: what is written, drawn and resumed."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.checks import (
    require_choice,
    require_dict,
    require_flag,
    require_known,
    require_names,
    require_text,
    require_whole,
    suggestion,
)
from ...core.errors import UnknownNameError

#: What may happen when a frame cannot be explained.
ON_ERROR = ('raise', 'skip')
#: Arguments of recorders that the hosts' adapters give.
_HOSTS = ('data', 'remedy')


def check_run(
    resume: Any = True, on_error: Any = 'raise', interval: Any = 1, check_checkpoint: Any = True
) -> None:
    """Refuses settings of a run that are of the wrong kind or out of their range.

    Args:
        resume: Whether results are taken from files.
        on_error: What happens when a frame cannot be explained.
        interval: Frames from one line of the log to the next.
        check_checkpoint: Whether a checkpoint that does not fit is refused.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
        UnknownNameError: If ``on_error`` is unknown.
    """
    require_flag('resume', resume)
    require_choice('on_error', on_error, ON_ERROR)
    require_whole('interval', interval)
    require_flag('check_checkpoint', check_checkpoint)


def checked_outputs(
    name: str,
    outputs: Mapping[str, Any] | None,
    recorder: type,
    targets: Sequence[str] = (),
    given: Sequence[str] = ('settings', 'resume', 'interval', 'logger'),
) -> dict[str, Any]:
    """Returns a copy of the settings of what is written and drawn.

    Args:
        name: Of the setting, ``'outputs'`` or ``'results'``.
        outputs: Arguments of the recorder.
        recorder: The class of recorder that is given them.
        targets: Names of the targets that are explained; empty if they are not known.
        given: Arguments of the recorder that are not the user's, or have a setting of their own.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
        UnknownNameError: If a key, a kind of picture, a style or the target of pictures is unknown.
    """
    outputs = require_dict(name, outputs, "dict(dir='work_dirs/explanations', pictures=['sheet'])")
    given = (*given, *_HOSTS)
    require_known(name, outputs, [key for key in _parameters(recorder) if key not in given])
    require_text('dir', outputs.get('dir'), 'work_dirs/explanations')
    for key in ('save', 'background'):
        require_flag(key, outputs.get(key, True))
    require_whole('interval', outputs.get('interval', 1))
    pictures = picture_options(outputs.get('pictures', False), recorder)
    target = (pictures or {}).get('target')
    if target is not None and targets:
        require_choice('target of pictures', target, targets)
    return outputs


def picture_options(pictures: Any, recorder: type) -> dict[str, Any] | None:
    """Returns the arguments of what draws a frame; None if nothing is to be drawn.

    Args:
        pictures: False for none, True for the default kind, a kind, a list of kinds, or arguments
            of what draws.
        recorder: The class of recorder, whose ``kinds`` and ``picture_keys`` there are.

    Raises:
        InputError: If an argument is of the wrong kind or out of its range.
        UnknownNameError: If a kind of picture, a style or an argument is unknown.
    """
    if isinstance(pictures, bool) or pictures is None:
        return {} if pictures else None
    if isinstance(pictures, (Mapping, list, tuple)) and not pictures:
        return None
    if isinstance(pictures, Mapping):
        options = require_dict('pictures', pictures, "dict(kinds=['sheet'])")
    else:
        pictures = [pictures] if isinstance(pictures, str) else pictures
        options = {'kinds': list(require_names('pictures', pictures, 'sheet', optional=False))}
    require_known('pictures', options, recorder.picture_keys)
    kinds = recorder.kinds()
    unknown = [kind for kind in _listed(options.get('kinds', ())) if kind not in kinds]
    if unknown:
        raise UnknownNameError(
            f'Unknown kinds of pictures {unknown}: expected {list(kinds)}.'
            f'{suggestion(unknown[0], kinds)}'
        )
    # matplotlib is loaded by those alone who want pictures.
    from ...visualization.options import check_options

    check_options(options)
    return options


class WeightFolders:
    """Recorders of a model that may be trained in between: one for each weights it has had.

    The first weights have the folder that is set, later ones a folder inside it.

    Args:
        kind: The class of recorder.
        outputs: The user's arguments of the recorder.
    """

    def __init__(self, kind: type, outputs: Mapping[str, Any]) -> None:
        self._kind, self._outputs = kind, outputs
        self._first: str | None = None

    def recorder(self, settings: Mapping[str, Any], **options: Any) -> Any:
        """Returns a recorder for the weights that the model has now.

        Args:
            settings: The run's settings; ``model`` is a digest of the weights.
            options: Further arguments of the recorder; the user's come before them.
        """
        digest, outputs = settings['model'], dict(self._outputs)
        others = self._first not in (None, digest) and outputs.get('dir') is not None
        if others:
            outputs['dir'] = os.path.join(outputs['dir'], f'weights_{digest[:8]}')
        recorder = self._kind(settings, **{**options, **outputs})
        if others:
            recorder.logger.info(f'The model has other weights: results go to {outputs["dir"]}.')
        self._first = self._first or digest  # Not before: a folder may be refused.
        return recorder


def _parameters(recorder: type) -> list[str]:
    """Names of the arguments; a subclass that passes all of them on has those of its base."""
    for kind in recorder.__mro__:
        parameters = inspect.signature(kind).parameters
        if 'kwargs' not in parameters:
            return list(parameters)
    return []


def _listed(kinds: Any) -> Sequence[str]:
    return require_names('kinds', kinds, 'sheet', optional=False)
