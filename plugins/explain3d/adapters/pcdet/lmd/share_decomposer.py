"""From a batch to the sensor shares of the detections of each of its frames, in OpenPCDet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ....core.errors import NotApplicableError
from ....core.override import override
from ....core.session import overridden
from ....core.structures import Detections
from ....lmd import Decomposition, Rules, Seed
from ....lmd.detections import Effect, Reading, SensorShares, read_out, read_values
from ....lmd.frame import frame_of
from ...common.candidates import identify
from ...common.query_readings import QueryMaps, cells_of
from ...common.shares import ShareReader, effect_of, kept_outputs
from ..detector import forgotten
from ..frames import detections_of, frames_of
from ..heads import TransFusionCandidates, candidates_class
from .blanks import without
from .proposals import seeds_of

HEAD = 'dense_head'
#: The dense heat map, and the raw outputs of the prediction head: the decomposition ends there.
_HEAT, _PREDICTIONS = f'{HEAD}.heatmap_head', f'{HEAD}.prediction_head'
_QUERIES = f'{HEAD}.decoder'


class ShareDecomposer(ShareReader):
    """Decomposes the detections that a BevFusion finds, and finds them again without each sensor.

    Args:
        model: A detector with a ``TransFusionHead``, without wrappers, in eval mode.
        seeds: As in ``proposals.seeds_of``.
        rules: The rules, or a dict of them.
        mode: 'production', or 'check', which measures the residual.
        blank: Modalities to be blanked, one after the other, each in a further pass; None: all.
        score_thr: Least score of detections that are read out, and that count as still found.
        overlap: Overlap in the bird's-eye view above which a box counts as the same one.

    Raises:
        UnknownNameError: If a module, rule, mode or modality is unknown.
        NotApplicableError: If the head is another, or the model is no BevFusion.
    """

    def __init__(
        self,
        model: nn.Module,
        seeds: str | Sequence[Seed | Mapping[str, Any]] | None = None,
        rules: Rules | Mapping[str, Any] | None = None,
        mode: str = 'production',
        blank: Sequence[str] | None = None,
        score_thr: float = 0.2,
        overlap: float = 0.1,
    ) -> None:
        self.head = getattr(model, HEAD, None)
        if candidates_class(self.head) is not TransFusionCandidates:
            raise NotApplicableError(
                f'Which outputs of {type(self.head).__name__} make a detection is not known: '
                'expected a TransFusionHead, the head of BevFusion.'
            )
        super().__init__(
            model,
            seeds_of(model, seeds),
            Rules.from_config(rules),
            mode,
            blank,
            score_thr,
            overlap,
            getattr(model, 'class_names', ()),
            ('pcdet',),
        )

    @override
    def run(self) -> Decomposition:
        """Returns a decomposition to be entered."""
        return Decomposition(
            self.model, self.seeds, [_HEAT, _PREDICTIONS], self.rules, self.mode, [_QUERIES]
        )

    @override
    def detections_of(self, output: Mapping[str, Tensor], frame_id: str) -> Detections:
        """Returns the detections of a frame of OpenPCDet's predictions."""
        return detections_of(output, self.class_names, frame_id)

    def decompose(self, batch: Mapping[str, Any]) -> tuple[list[dict], list[SensorShares]]:
        """Predicts on a batch, decomposes that very pass, and predicts without each sensor.

        Args:
            batch: OpenPCDet's ``batch_dict``, on the model's device; it is not changed.

        Returns:
            What the detector predicts, and each frame's shares on the CPU.

        Raises:
            InputError: If a detection does not come from these outputs, or a sensor is missing.
            NotApplicableError: If the pass does not reach a seed.
        """
        with torch.no_grad(), forgotten(self.model):
            with self.predictions() as kept, self.run() as run:
                predicted = self.model(dict(batch))[0]
            results, readings = self.read(run, kept, predicted, batch)
            for name in self.blank:
                other = without(self.model, batch, name)
                self._add(name, self._effects(other, predicted, results, readings), results)
        return predicted, results

    def read(
        self,
        run: Decomposition,
        kept: Mapping[str, Tensor],
        predicted: Sequence[Mapping[str, Tensor]],
        batch: Mapping[str, Any],
    ) -> tuple[list[SensorShares], list[list[Reading]]]:
        """Reads the detections out of the decomposition of the pass that found them.

        Args:
            run: Of ``run()``.
            kept: The head's outputs in that pass, before they were decoded.
            predicted: What the detector returned.
            batch: The batch.

        Returns:
            Each frame's shares on the CPU, and where they were read.
        """
        results, readings = [], []
        for i, frame in enumerate(frames_of(batch)):
            outputs = {
                n: frame_of(found, i) for n, found in {**run.outputs, **run.captured}.items()
            }
            every, index = self._selected(predicted[i], frame.frame_id)
            maps = self._maps(kept, {n: found.value for n, found in outputs.items()}, i)
            queries = self._queries(kept, every[index], frame.frame_id, i)
            rows = torch.arange(len(queries), device=queries.device)
            readings.append(maps.read(rows, queries, every.labels[index]))
            results.append(
                SensorShares(
                    frame.frame_id,
                    every[index].to('cpu'),
                    read_out(outputs, readings[-1], len(index)).to('cpu'),
                    detection_indices=index.cpu(),
                    settings=self.settings,
                    versions=self.versions,
                    points=frame.points[:, :3].cpu(),
                )
            )
        return results, readings

    @contextmanager
    def predictions(self) -> Iterator[dict[str, Tensor]]:
        """Keeps the head's outputs of one pass, whose decoding may work in place."""
        kept: dict[str, Tensor] = {}
        decode = self.head.get_bboxes

        def keep(outputs: dict[str, Tensor]) -> Any:
            kept.update({name: value.detach().clone() for name, value in outputs.items()})
            kept['query_labels'] = self.head.query_labels.clone()
            return decode(outputs)

        with overridden(self.head, 'get_bboxes', keep):
            yield kept

    def _queries(
        self, kept: Mapping[str, Tensor], found: Detections, frame_id: str, index: int
    ) -> Tensor:
        """(K,) the queries that the detections of a frame were made of."""
        one = {name: value[index : index + 1] for name, value in kept.items()}
        with overridden(self.head, 'query_labels', one['query_labels']):
            return identify(TransFusionCandidates(self.head, {}, one), found, frame_id)

    def _maps(
        self, kept: Mapping[str, Tensor], maps: Mapping[str, Tensor], index: int
    ) -> QueryMaps:
        """Returns a frame's maps; the head gives centres as offset plus place, x before y."""
        places = (kept['center'][index] - maps[f'{_PREDICTIONS}.center']).T
        cells = cells_of(places, self.head.bev_pos[0].flip(1), maps[_HEAT].shape[-1])
        return QueryMaps(maps, _PREDICTIONS, _HEAT, _QUERIES, cells)

    def _effects(
        self,
        batch: Mapping[str, Any],
        predicted: Sequence[Mapping[str, Tensor]],
        results: Sequence[SensorShares],
        readings: Sequence[Sequence[Reading]],
    ) -> Iterator[Effect]:
        paths = (_HEAT, _PREDICTIONS, _QUERIES)
        with self.predictions() as kept, kept_outputs(self.model, paths) as found:
            predicted = self.model(dict(batch))[0]
        for i, (result, places) in enumerate(zip(results, readings, strict=True)):
            maps = self._maps(kept, {name: value[i] for name, value in found.items()}, i)
            labels = result.detections.labels.to(places[0].detections.device)
            again = maps.again(places, labels, kept['query_labels'][i])
            raw = read_values(maps.maps, again, result.parts.attributes, len(result.parts))
            every, index = self._selected(predicted[i], result.frame_id)
            yield effect_of(result.detections, every[index].to('cpu'), raw.cpu(), self.overlap)
