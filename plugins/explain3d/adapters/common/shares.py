"""What the hosts' adapters share for reading sensor shares of detections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ...core.checks import (
    require_choice,
    require_dict,
    require_names,
    require_number,
    require_text,
)
from ...core.errors import InputError, UnknownNameError
from ...core.matching import match
from ...core.structures import Detections
from ...lmd import Decomposition, Rules, Seed
from ...lmd.decomposition import MODES
from ...lmd.detections import Effect, SensorShares
from ...lmd.nested import tensors
from ...lmd.seeds import declared_seeds
from .frame_explainer import package_versions
from .weights import weights_digest


class ShareReader(ABC):
    """What decides the sensor shares of a detector, in either host.

    A subclass knows the host. What its ``run`` needs has to be there before this is initialised.

    Args:
        model: The detector, without wrappers.
        seeds: Where the modalities begin.
        rules: The rules.
        mode: 'production', or 'check', which measures the residual.
        blank: Modalities to be blanked, one after the other, each in a further pass; None: all.
        score_thr: Least score of detections that are read out, and that count as still found.
        overlap: Overlap in the bird's-eye view above which a box counts as the same one.
        class_names: Names of the classes.
        packages: Those whose versions stand in a result.

    Raises:
        UnknownNameError: If a module, rule, mode or modality is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        seeds: tuple[Seed, ...],
        rules: Rules,
        mode: str,
        blank: Sequence[str] | None,
        score_thr: float,
        overlap: float,
        class_names: Iterable[str],
        packages: Sequence[str],
    ) -> None:
        check_share_settings(
            mode=mode, blank=blank, score_thr=score_thr, overlap=overlap, class_names=class_names
        )
        self.model, self.seeds, self.rules, self.mode = model, seeds, rules, mode
        self.modalities = self.run().modalities  # What does not fit is found now.
        self.blank = self.modalities if blank is None else tuple(blank)
        unknown = [name for name in self.blank if name not in self.modalities]
        if unknown:
            raise UnknownNameError(
                f'Unknown modalities {unknown} to blank: expected among {list(self.modalities)}.'
            )
        self.score_thr, self.overlap = score_thr, overlap
        self.class_names = tuple(class_names)
        self.versions = package_versions(packages)

    @abstractmethod
    def run(self) -> Decomposition:
        """Returns a decomposition to be entered."""

    @abstractmethod
    def detections_of(self, output: Any, frame_id: str) -> Detections:
        """Returns all detections among what the host predicts for a frame."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides a result, as plain data; a digest stands for the weights.

        Names of classes decide nothing: a result has them beside its detections.
        """
        return {
            'method': 'LMD of detections',
            'seeds': [asdict(seed) for seed in self.seeds],
            'rules': self.rules.as_dict(),
            'mode': self.mode,
            'blank': list(self.blank),
            **self._own_settings(),
            'score_thr': self.score_thr,
            'overlap': self.overlap,
            'model': weights_digest(self.model),
        }

    def _own_settings(self) -> dict[str, Any]:
        """Returns what only this host's reader can be told."""
        return {}

    def _selected(self, output: Any, frame_id: str) -> tuple[Detections, Tensor]:
        """Returns all detections of a frame, and which of them have the score."""
        found = self.detections_of(output, frame_id)
        return found, (found.scores >= self.score_thr).nonzero().flatten()

    @staticmethod
    def _add(name: str, effects: Iterable[Effect], results: Sequence[SensorShares]) -> None:
        """Adds to each frame's result what became of its detections without a sensor."""
        for result, effect in zip(results, effects, strict=True):
            result.effects[name] = effect


def check_share_settings(
    mode: str = 'production',
    blank: Sequence[str] | None = None,
    score_thr: float = 0.2,
    overlap: float = 0.1,
    class_names: Iterable[str] | None = None,
    frame_id: str | None = None,
    **others: Any,
) -> None:
    """Refuses settings of sensor shares that are wrong whatever the model.

    Args:
        mode: As in ``ShareReader``.
        blank: As in ``ShareReader``.
        score_thr: As in ``ShareReader``.
        overlap: As in ``ShareReader``.
        class_names: As in ``ShareReader``; None: those of the model or its data set.
        frame_id: Entry of the meta information that names a frame.
        others: Settings ``seeds``, ``rules`` and ``sensors``.

    Raises:
        UnknownNameError: If a word or a key is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """
    require_choice('mode', mode, MODES)
    require_names('blank', blank, 'camera')
    require_number('score_thr', score_thr)
    require_number('overlap', overlap, least=0, below=1)
    require_names('class_names', class_names, 'car')
    require_text('frame_id', frame_id, 'token')
    Rules.from_config(others.get('rules'))
    declared_seeds(others.get('seeds'))
    require_dict('sensors', others.get('sensors'), "dict(lidar=dict(inputs=['points']))")


def effect_of(before: Detections, after: Detections, raw: Tensor, overlap: float) -> Effect:
    """Returns what became of K detections.

    Args:
        before: The K detections.
        after: Those of the run without a sensor.
        raw: (K, A) raw attributes at the places of the K detections in that run.
        overlap: In the bird's-eye view, above which a box of the same class is the same one.
    """
    names = [
        f'class {i}' for i in range(1 + max([0, *before.labels.tolist(), *after.labels.tolist()]))
    ]
    # Numbers tell classes apart where their names are not known.
    before, after = (replace(each, class_names=tuple(names)) for each in (before, after))
    matches = match(before, after, overlap, 'bev')
    found = matches.true_positives
    scores = before.scores.new_zeros(len(before))
    scores[found] = after.scores[matches.indices[found]].to(scores.dtype)
    return Effect(found, scores, matches.overlaps, raw)


@contextmanager
def kept_outputs(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keeps what modules give in one pass, by the names that a decomposition has for it.

    Args:
        model: The model.
        paths: Of modules that run once.

    Yields:
        Copies of all tensors (B, ...) by 'path.position', empty until the pass.

    Raises:
        InputError: From the pass, if a module runs more than once.
    """
    maps: dict[str, Tensor] = {}

    def keep(path: str, out: Any) -> None:
        found = {
            f'{path}.{name}' if name else path: each.detach().clone() for name, each in tensors(out)
        }
        if not maps.keys().isdisjoint(found):
            raise InputError(f'{path!r} ran more than once in a pass: expected one run.')
        maps.update(found)

    with ExitStack() as stack:
        for path in paths:
            hook = lambda _, __, out, path=path: keep(path, out)  # noqa: E731
            stack.callback(model.get_submodule(path).register_forward_hook(hook).remove)
        yield maps
