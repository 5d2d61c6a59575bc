"""From a batch to the decomposition of each of its frames."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from ....core.checks import require_dict
from ....core.errors import InputError, NotApplicableError
from ....core.results import plain
from ....lmd import Decomposition, Output, Rules, Seed
from ....lmd.components import Components
from ....lmd.frame import FrameDecomposition, frame_of
from ....lmd.gradcam import WHOLE, class_activation_map, layer_gradients, modality_gradcams
from ....lmd.seeds import declared_seeds
from ....lmd.shares import energy, mean_parts, shares
from ...common.frame_explainer import package_versions
from ...common.frame_names import FrameNames
from ...common.weights import weights_digest
from ..frame_explainer import PACKAGES
from .batch import BatchFrame, copied, frames_of
from .proposals import proposed_seeds
from .references import Reference
from .settings import REFERENCES, OutputsSpec, SeedsSpec, check_settings, gradcam_of


class FrameDecomposer:
    """Decomposes the batches that one model predicts on.

    Args:
        model: The model, without wrappers.
        seeds: Seeds or their dicts; a word that ``model.lmd_seeds`` or ``proposals`` know
            ('sensors', 'cameras', 'branches'); None: what these propose.
        outputs: Paths of modules, or names with ``Output``s, their dicts or paths; None:
            ``model.lmd_outputs``.
        rules: The rules, or a dict of them.
        mode: 'production', or 'check', which measures the residual.
        capture: Paths of modules whose layers are looked at, too.
        keep: What is kept of them: 'shares', 'maps' or 'full'.
        stop: As in ``Decomposition``.
        gradcam: ``dict(layers=[...], modalities=None, region='predicted', whole=True)``: Radar-
            GradCAM of these modalities (None: all) at these layers for the first output in its
            region, and with ``whole`` Seg-Grad-CAM beside it.
        references: Models whose predictions are shown beside the decomposition (Appendix E.2):
            ``{'camera only': dict(config=..., checkpoint=...)}``.
        frame_id: Entry of the meta information that names a frame.

    Attributes:
        names: Makes the names of a run's frames unique; None: they are as the samples have them.

    Raises:
        UnknownNameError: If a module, rule, mode or word is unknown.
        NotApplicableError: If the model does not say where to begin or to end, and nobody else.
    """

    def __init__(
        self,
        model: nn.Module,
        seeds: SeedsSpec = None,
        outputs: OutputsSpec = None,
        rules: Rules | Mapping[str, Any] | None = None,
        mode: str = 'production',
        capture: Sequence[str] = (),
        keep: str = 'maps',
        stop: Sequence[str] = (),
        gradcam: Mapping[str, Any] | None = None,
        references: Mapping[str, Mapping[str, Any]] | None = None,
        frame_id: str | None = None,
    ) -> None:
        check_settings(keep=keep, mode=mode, capture=capture, stop=stop, frame_id=frame_id)
        references = require_dict('references', references, REFERENCES)
        self.model, self.mode, self.keep, self.frame_id = model, mode, keep, frame_id
        self.seeds, self.outputs = seeds_of(model, seeds), outputs_of(model, outputs)
        self.rules = Rules.from_config(rules)
        self.gradcam = gradcam_of(gradcam)
        layers = self.gradcam.layers if self.gradcam else ()
        self.capture, self.stop = tuple(dict.fromkeys((*capture, *layers))), tuple(stop)
        self.references = {
            name: Reference(**spec).build(next(model.parameters()).device)
            for name, spec in references.items()
        }
        self.versions = package_versions(PACKAGES)
        self.names: FrameNames | None = None
        self.run()  # What does not fit is found now.
        self._settings: dict[str, Any] | None = None

    def run(self, **options: Any) -> Decomposition:
        """Returns a decomposition to be entered."""
        arguments = {'rules': self.rules, 'mode': self.mode, 'capture': self.capture, **options}
        return Decomposition(self.model, self.seeds, self.outputs, stop=self.stop, **arguments)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides a decomposition, as plain data; digests stand for weights."""
        if self._settings is None:
            self._settings = {
                'method': 'LMD',
                'seeds': [asdict(seed) for seed in self.seeds],
                'outputs': {name: asdict(output) for name, output in self.outputs.items()},
                'rules': self.rules.as_dict(),
                'mode': self.mode,
                'capture': list(self.capture),
                'keep': self.keep,
                'stop': list(self.stop),
                'gradcam': None if self.gradcam is None else vars(self.gradcam),
                'references': {n: weights_digest(r.model) for n, r in self.references.items()},
                'model': weights_digest(self.model),
            }
        return self._settings

    def frames(self, data: Mapping[str, Any]) -> list[BatchFrame]:
        """Takes a batch apart; before the host's own pass, which may change it."""
        return frames_of(data, self.frame_id, self.names)

    def as_today(self, found: FrameDecomposition, frame: BatchFrame) -> FrameDecomposition | None:
        """Returns a decomposition of a file with what is known of its frame today.

        Args:
            found: From a file, of the same inputs.
            frame: The frame.

        Returns:
            ``found`` itself where nothing differs; None where what differs decided the result:
            Grad-CAM of the annotated region.
        """
        truth, valid = frame.truth()
        same = _equal(found.ground_truth, truth) and _equal(found.ground_truth_valid, valid)
        if not same and self.gradcam is not None and self.gradcam.region == 'annotated':
            return None
        info, area = {**found.info, **meta_of(frame)}, frame.area(self.model)
        if same and plain(info) == found.info and area == found.area:
            return found
        truths = dict(ground_truth=truth, ground_truth_valid=valid)
        truths = {name: None if each is None else each.cpu() for name, each in truths.items()}
        return replace(found, **truths, area=area, info=info)

    def decompose(
        self, host: Callable[[Any], Any], data: Mapping[str, Any], frames: Sequence[BatchFrame]
    ) -> tuple[Any, list[FrameDecomposition]]:
        """Predicts on a batch, and decomposes that very pass.

        Args:
            host: The host's own ``test_step``.
            data: The batch.
            frames: Of ``frames(data)``.

        Returns:
            What the host predicts, and each frame's decomposition on the CPU.

        Raises:
            InputError: If an output is not finite; the message names the frame.
            NotApplicableError: If the pass does not reach a seed or an output.
        """
        # Copies first: predictions are added to the samples.
        again = copied(data) if self.gradcam or self.references else None
        with torch.no_grad(), self.run() as run:
            samples = host(data)
        captured = dict(run.raw_captured)
        gradcams = {} if self.gradcam is None else self._gradcams(host, again, frames, captured)
        references = {n: r.predict(copied(again)) for n, r in self.references.items()}
        results = [
            self._frame(i, frame, run, captured, gradcams, references)
            for i, frame in enumerate(frames)
        ]
        run.verification.check()
        return samples, results

    def _frame(
        self,
        index: int,
        frame: BatchFrame,
        run: Decomposition,
        captured: Mapping[str, Components],
        gradcams: Mapping[str, Tensor],
        references: Mapping[str, Sequence[Tensor]],
    ) -> FrameDecomposition:
        outputs = {name: frame_of(found, index) for name, found in run.raw_outputs.items()}
        layers = {name: frame_of(found, index) for name, found in captured.items()}
        for name, found in outputs.items():
            check_finite(found, name, frame.frame_id)
        maps = {} if self.keep == 'shares' else {n: energy(found) for n, found in layers.items()}
        truth, valid = frame.truth()
        return FrameDecomposition(
            frame.frame_id,
            outputs,
            captured=layers if self.keep == 'full' else {},
            shares={name: shares(found).cpu() for name, found in {**layers, **outputs}.items()},
            energies={name: found for name, found in maps.items() if found is not None},
            gradcams={name: found[index] for name, found in gradcams.items()},
            references={name: found[index] for name, found in references.items()},
            points=frame.points(),
            ground_truth=truth,
            ground_truth_valid=valid,
            area=frame.area(self.model),
            settings=self.settings,
            versions=self.versions,
            info={
                'inputs': frame.digest(),
                'kernels': run.kernels,
                'predicted': _means(outputs),
                **meta_of(frame),
            },
        ).to('cpu')

    def _gradcams(
        self,
        host: Callable[[Any], Any],
        data: Mapping[str, Any],
        frames: Sequence[BatchFrame],
        captured: Mapping[str, Components],
    ) -> dict[str, Tensor]:
        spec, output = self.gradcam, next(iter(self.outputs.values())).module

        def gradients(linearized: bool) -> dict[str, Tensor]:
            region = spec.region_of(frames)
            forward = lambda: host(copied(data))  # noqa: E731
            return layer_gradients(
                self.model, forward, spec.layers, output, region,
                linearized=linearized, rules=self.rules, seeds=self.seeds,
            )  # fmt: skip

        found = modality_gradcams(captured, gradients(True), spec.modalities)
        if spec.whole:
            for layer, gradient in gradients(False).items():
                value = class_activation_map(captured[layer].value, gradient)
                found[f'{WHOLE} @ {layer}'] = value
        return found


#: What of a hook's or a model's configuration is the decomposer's.
SETTINGS = tuple(inspect.signature(FrameDecomposer).parameters)[1:]


def seeds_of(model: nn.Module, seeds: SeedsSpec) -> tuple[Seed, ...]:
    """Returns the seeds that a configuration says, or those that are proposed for the model."""
    declared = declared_seeds(seeds)
    return proposed_seeds(model, seeds) if declared is None else declared


def outputs_of(model: nn.Module, outputs: OutputsSpec) -> dict[str, Output]:
    """Returns the outputs by name; without any, those that the model proposes."""
    if outputs is None:
        if not hasattr(model, 'lmd_outputs'):
            raise NotApplicableError(
                f'{type(model).__name__} does not propose where to end (lmd_outputs): expected '
                "outputs=['path.of.head', ...]."
            )
        outputs = model.lmd_outputs
    if isinstance(outputs, str):
        outputs = [outputs]
    if not isinstance(outputs, Mapping):
        outputs = {(o.module if isinstance(o, Output) else o): o for o in outputs}
    return {
        name: o if isinstance(o, Output) else Output(**o) if isinstance(o, Mapping) else Output(o)
        for name, o in outputs.items()
    }


def check_finite(found: Components, name: str, frame_id: str) -> None:
    """Raises if a value or a component of an output is not finite.

    Raises:
        InputError: The message names the frame and the component.
    """
    bad = [n for n, part in zip(found.names, found.parts, strict=True) if not _finite(part)]
    if bad or not _finite(found.value):
        raise InputError(
            f'Frame {frame_id!r}: the output {name!r} of the network is not finite (components '
            f"{bad}): expected finite values. Look at the frame's images, points and calibration."
        )


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and torch.equal(a, b.to(a))


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _means(outputs: Mapping[str, Components]) -> dict[str, Any]:
    """Mean of each component of the first output where it is positive, if it is a map."""
    found = next(iter(outputs.values()))
    if found.parts.dim() != 4:
        return {}
    region = found.value[0] > 0
    cells = int(region.sum())
    one = Components(found.value[:1], found.parts[:, :1], found.names)
    means = mean_parts(one, region).tolist() if cells else [None] * len(found.names)
    return {'cells': cells, **dict(zip(found.names, means, strict=True))}


def meta_of(frame: BatchFrame) -> dict[str, Any]:
    """Returns what a result keeps of a frame's meta information, as plain data."""
    meta = frame.sample.metainfo
    names = {'token': str, 'scene': str, 'cam_names': list, 'blanked': list}
    return {key: kind(meta[key]) for key, kind in names.items() if meta.get(key)}
