"""From a batch to the sensor shares of the detections of each of its frames."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from ....core.override import override
from ....core.results import plain
from ....core.structures import Detections
from ....lmd import Decomposition, Output, Rules
from ....lmd.detections import Effect, Reading, SensorShares, read_out, read_values
from ....lmd.frame import frame_of
from ...common.frame_names import FrameNames
from ...common.shares import ShareReader, effect_of, kept_outputs
from ..detector import head_of
from ..frame_explainer import PACKAGES
from ..frames import detections_of
from .batch import BatchFrame, copied, frames_of
from .decomposer import SeedsSpec, check_finite, meta_of, seeds_of
from .perturb import sensors_of
from .proposals import proposed_sensors
from .readings import readings_class, readings_of


class ShareDecomposer(ShareReader):
    """Decomposes the detections that one model finds, and finds them again without each sensor.

    Args:
        model: A detector with a head of ``readings.FAMILIES``, without wrappers.
        seeds: As in ``FrameDecomposer``.
        rules: The rules, or a dict of them.
        mode: 'production', or 'check', which measures the residual.
        blank: Modalities to be blanked, one after the other, each in a further pass; None: all.
        sensors: What belongs to a modality, if it is none that is known: see ``perturb.Sensor``.
        score_thr: Least score of detections that are read out, and that count as still found.
        overlap: Overlap in the bird's-eye view above which a box counts as the same one.
        class_names: Names of the classes; None: those of the model's ``dataset_meta``.
        frame_id: Entry of the meta information that names a frame.

    Attributes:
        names: Makes the names of a run's frames unique; None: they are as the samples have them.

    Raises:
        UnknownNameError: If a module, rule, mode or modality is unknown.
        NotApplicableError: If the model has no head, or does not say where to begin.
    """

    def __init__(
        self,
        model: nn.Module,
        seeds: SeedsSpec = None,
        rules: Rules | Mapping[str, Any] | None = None,
        mode: str = 'production',
        blank: Sequence[str] | None = None,
        sensors: Mapping[str, Mapping[str, Any]] | None = None,
        score_thr: float = 0.2,
        overlap: float = 0.1,
        class_names: Sequence[str] | None = None,
        frame_id: str | None = None,
    ) -> None:
        self.frame_id = frame_id
        self.names: FrameNames | None = None
        begins, rules = seeds_of(model, seeds), Rules.from_config(rules)
        self.path, self.head = head_of(model)
        self.reader = readings_class(self.head)
        self.outputs = {self.path: Output(self.path)}
        self.layers = tuple(f'{self.path}.{layer}' for layer in self.reader.layers(self.head))
        self.sensors = {**proposed_sensors(model), **(sensors or {})}
        known = (getattr(model, 'dataset_meta', None) or {}).get('classes') or ()
        names = class_names or known
        super().__init__(model, begins, rules, mode, blank, score_thr, overlap, names, PACKAGES)

    @override
    def run(self) -> Decomposition:
        """Returns a decomposition to be entered."""
        return Decomposition(
            self.model, self.seeds, self.outputs, self.rules, self.mode, capture=self.layers
        )

    @override
    def detections_of(self, output: Any, frame_id: str) -> Detections:
        """Returns the detections of a data sample."""
        return detections_of(output, self.class_names, frame_id)

    @override
    def _own_settings(self) -> dict[str, Any]:
        return {'sensors': {name: dict(spec) for name, spec in self.sensors.items()}}

    def frames(self, data: Mapping[str, Any]) -> list[BatchFrame]:
        """Takes a batch apart; before the host's own pass, which may change it."""
        return frames_of(data, self.frame_id, self.names)

    def as_today(self, found: SensorShares, frame: BatchFrame) -> SensorShares:
        """Returns the shares of a file with what is known of their frame today.

        Args:
            found: From a file, of the same inputs.
            frame: The frame.

        Returns:
            ``found`` itself where nothing differs.
        """
        info = {**found.info, **meta_of(frame)}
        if found.detections.class_names == self.class_names and plain(info) == found.info:
            return found
        detections = replace(found.detections, class_names=self.class_names)
        return replace(found, detections=detections, info=info)

    def decompose(
        self, host: Callable[[Any], Any], data: Mapping[str, Any], frames: Sequence[BatchFrame]
    ) -> tuple[Any, list[SensorShares]]:
        """Predicts on a batch, decomposes that very pass, and predicts without each sensor.

        Args:
            host: The host's own ``test_step``.
            data: The batch.
            frames: Of ``frames(data)``.

        Returns:
            What the host predicts, and each frame's shares on the CPU.

        Raises:
            InputError: If an output is not finite, or a detection does not come from these maps.
            NotApplicableError: If the pass does not reach a seed, or the head is of another kind.
        """
        again = copied(data)  # Predictions are added to the samples.
        with torch.no_grad(), self.run() as run:
            samples = host(data)
        results, readings = self.read(run, samples, frames)
        for name in self.blank:
            effects = self._effects(host, self._without(again, name), frames, results, readings)
            self._add(name, effects, results)
        return samples, results

    def read(
        self, run: Decomposition, samples: Sequence[Any], frames: Sequence[BatchFrame]
    ) -> tuple[list[SensorShares], list[list[Reading]]]:
        """Reads the detections of a batch out of the decomposition of the pass that found them.

        Args:
            run: Of ``run()``.
            samples: What the host predicted in it.
            frames: Of ``frames(data)``.

        Returns:
            Each frame's shares on the CPU, and where they were read.

        Raises:
            InputError: As ``decompose``.
        """
        results, readings = [], []
        for i, (frame, sample) in enumerate(zip(frames, samples, strict=True)):
            found = {**run.raw_outputs, **run.raw_captured}
            outputs = {name: frame_of(each, i) for name, each in found.items()}
            for name, found in outputs.items():
                check_finite(found, name, frame.frame_id)
            every, index = self._selected(sample, frame.frame_id)
            maps = {name: found.value for name, found in outputs.items()}
            found = readings_of(self.head, self.path, maps, every[index], frame.frame_id)
            readings.append(found)
            results.append(
                SensorShares(
                    frame.frame_id,
                    every[index].to('cpu'),
                    read_out(outputs, found, len(index)).to('cpu'),
                    detection_indices=index.cpu(),
                    settings=self.settings,
                    versions=self.versions,
                    info={'inputs': frame.digest(), 'kernels': run.kernels, **meta_of(frame)},
                    points=frame.points().get('lidar'),
                )
            )
        run.verification.check()
        return results, readings

    def _without(self, data: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Returns a copy of the batch with a modality blanked in every frame."""
        items = []
        for i, sample in enumerate(data['data_samples']):
            item = {
                'inputs': {key: value[i] for key, value in data['inputs'].items()},
                'data_samples': sample.clone(),
            }
            items.append(sensors_of([name], self.sensors, item)[name].blank(item))
        return pseudo_collate(items)

    def _effects(
        self,
        host: Callable[[Any], Any],
        data: Mapping[str, Any],
        frames: Sequence[BatchFrame],
        results: Sequence[SensorShares],
        readings: Sequence[Sequence[Reading]],
    ) -> Iterator[Effect]:
        with torch.no_grad(), self._maps() as maps:
            samples = host(data)
        for i, sample in enumerate(samples):
            one = {name: found[i] for name, found in maps.items()}
            every, index = self._selected(sample, frames[i].frame_id)
            parts, reader = results[i].parts, self.reader(self.head, self.path, one)
            labels = results[i].detections.labels.to(readings[i][0].detections.device)
            raw = read_values(one, reader.again(readings[i], labels), parts.attributes, len(parts))
            yield effect_of(results[i].detections, every[index].to('cpu'), raw.cpu(), self.overlap)

    @contextmanager
    def _maps(self) -> Iterator[dict[str, Tensor]]:
        """Keeps what is read of the head's outputs of one pass."""

        def keep_state(*_: Any) -> None:
            state = self.reader.state(self.head)
            maps.update({f'{self.path}.{name}': each.clone() for name, each in state.items()})

        handle = self.head.register_forward_hook(keep_state)
        try:
            with kept_outputs(self.model, (self.path, *self.layers)) as maps:
                yield maps
        finally:
            handle.remove()


#: What of a hook's configuration is the decomposer's.
SHARE_SETTINGS = tuple(inspect.signature(ShareDecomposer).parameters)[1:]
