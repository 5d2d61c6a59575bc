"""Which modality made which part of a detection: the raw outputs at its cell or anchor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import InputError, UnknownNameError
from ..core.structures import Detections
from .components import BIAS, Components

#: The raw classification output, the first attribute of every detection.
LOGIT = 'logit'


@dataclass(frozen=True)
class Reading:
    """Where one raw attribute of n detections stands in a head's output.

    Attributes:
        attribute: Name of the attribute, as it is before decoding: 'logit', 'dx', 'log_l', ...
        output: Name of the output: a map (C, H, W), or queries (C, Q).
        detections: (n,) int64, which of the frame's detections.
        channels: (n,) int64 channel.
        cells: (n, 2) int64 row and column, or (n, 1) query.
    """

    attribute: str
    output: str
    detections: Tensor
    channels: Tensor | None
    cells: Tensor

    def of(self, values: Tensor) -> Tensor:
        """Returns the (n,) attribute out of the values (C, ...) of the output."""
        return values[(self.channels, *self.cells.unbind(1))]

    def parts_of(self, found: Components) -> Tensor:
        """Returns the (M + 1, n) parts that sum to it."""
        return found.parts[(slice(None), self.channels, *self.cells.unbind(1))]


@dataclass(frozen=True)
class Projection(Reading):
    """The length of a feature vector, and each component along the vector's own direction.

    |A| = sum_m <h_m, A> / |A|: one signed number a component, for features of many channels.
    ``channels`` is None.
    """

    def of(self, values: Tensor) -> Tensor:
        """Returns the (n,) lengths over the channels of values (C, ...)."""
        return self._vectors(values).norm(dim=0)

    def parts_of(self, found: Components) -> Tensor:
        """Returns the (M + 1, n) projections, zeros where the vector is zero."""
        vectors, parts = self._vectors(found.value), found.parts
        length = vectors.norm(dim=0)
        unit = torch.where(length > 0, vectors / length, 0)
        return (parts[(slice(None), slice(None), *self.cells.unbind(1))] * unit).sum(1)

    def _vectors(self, values: Tensor) -> Tensor:
        return values[(slice(None), *self.cells.unbind(1))]


@dataclass(frozen=True)
class DetectionParts:
    """K detections' raw attributes and their parts, which sum to them.

    Attributes:
        attributes: Names of the A attributes, the logit first.
        names: The M modalities, then 'bias'.
        value: (K, A) the head's own output, bit for bit.
        parts: (K, M + 1, A) the part of each component, signed.
        residual: As ``Components.residual``.

    Raises:
        InputError: If shapes and names do not fit each other.
    """

    attributes: tuple[str, ...]
    names: tuple[str, ...]
    value: Tensor
    parts: Tensor
    residual: float | None = None

    def __post_init__(self) -> None:
        count = len(self.value)
        expected = (count, len(self.names), len(self.attributes))
        if self.parts.shape != expected or self.value.shape != (count, len(self.attributes)):
            raise InputError(
                f'Expected parts {expected} of the components {self.names} and the attributes '
                f'{self.attributes}, received {tuple(self.parts.shape)} and values '
                f'{tuple(self.value.shape)}.'
            )
        if self.names[-1:] != (BIAS,):
            raise InputError(f'Expected {BIAS!r} as the last component, received {self.names}.')

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, attribute: str) -> Tensor:
        """Returns the (K, M + 1) parts of one attribute.

        Raises:
            UnknownNameError: If there is none of that name.
        """
        return self.parts[:, :, self._column(attribute)]

    def of_value(self, attribute: str) -> Tensor:
        """Returns the (K,) value of one attribute; raises as ``[]``."""
        return self.value[:, self._column(attribute)]

    def shares(self, attribute: str = LOGIT) -> Tensor:
        """Returns the (K, M + 1) shares |h_m| / sum |h|, bias included; NaN where all are zero.

        Raises:
            UnknownNameError: If there is no attribute of that name.
        """
        magnitude = self[attribute].double().abs()
        return magnitude / magnitude.sum(1, keepdim=True)

    def conservation_error(self) -> float:
        """Returns max |sum h - A| / max(|A|, sum |h|) of the worst attribute; 0 without any.

        The maxima are over the detections, as those of ``Components`` are over a tensor.
        """
        if not self.value.numel():
            return 0.0
        parts, value = self.parts.double(), self.value.double()
        scale = torch.maximum(value.abs(), parts.abs().sum(1)).amax(0).clamp_min(1e-300)
        return float(((parts.sum(1) - value).abs().amax(0) / scale).max())

    def to(self, device: torch.device | str) -> DetectionParts:
        """Returns a copy on ``device`` without a graph."""
        return replace(
            self, value=self.value.detach().to(device), parts=self.parts.detach().to(device)
        )

    def _column(self, attribute: str) -> int:
        if attribute not in self.attributes:
            raise UnknownNameError(
                f'Unknown attribute {attribute!r}: expected one of {list(self.attributes)}.'
            )
        return self.attributes.index(attribute)


@dataclass(frozen=True)
class Effect:
    """What became of K detections when one sensor was blanked.

    Attributes:
        found: (K,) bool, whether a box of the class is still where the detection was.
        scores: (K,) score of that box, 0 where there is none.
        overlaps: (K,) its overlap with the detection, likewise.
        raw: (K, A) the raw attributes at the detections' own cells or anchors in that run; NaN
            where it has none there: a cell that was a query is not one any more.
    """

    found: Tensor
    scores: Tensor
    overlaps: Tensor
    raw: Tensor


@dataclass
class SensorShares:
    """One frame's detections, which sensor made what of them, and what they are without it.

    Attributes:
        frame_id: Names the frame; also the file's stem.
        detections: K detections.
        parts: Their raw attributes in parts.
        effects: For each sensor that was blanked, what became of the detections.
        detection_indices: (K,) int64 index of each among the frame's predictions.
        settings: What decided the result, as plain data.
        versions: Names and versions of the software that made it.
        info: Plain numbers and text besides.
        points: (P, 3) the LiDAR's points for pictures, if there are any; not part of a file.

    Raises:
        InputError: If numbers of detections do not fit.
    """

    kind: ClassVar[str] = 'sensor_shares'

    frame_id: str
    detections: Detections
    parts: DetectionParts
    effects: dict[str, Effect] = field(default_factory=dict)
    detection_indices: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    points: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        counts = {
            len(self.detections),
            len(self.parts),
            *(len(e.raw) for e in self.effects.values()),
        }
        if len(counts) != 1:
            raise InputError(
                f'Frame {self.frame_id!r}: expected parts and effects of all '
                f'{len(self.detections)} detections, received {sorted(counts)}.'
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The M modalities, then 'bias'."""
        return self.parts.names


def read_out(
    outputs: Mapping[str, Components], readings: Sequence[Reading], count: int
) -> DetectionParts:
    """Reads the parts of detections out of the decomposition of a head's maps.

    Whatever lies between the maps and a detection selects cells; it does not mix them. The parts
    of an attribute are therefore those of the map at the detection's cell, and sum to it as there.

    Args:
        outputs: Values (C, ...) and parts (M + 1, C, ...) by name, of one frame.
        readings: Where each attribute stands; of an attribute several, each for some detections.
        count: K.

    Raises:
        UnknownNameError: If an output is missing.
        InputError: If an attribute of a detection is read never, or more than once.
    """
    names = next(iter(outputs.values())).names
    attributes = tuple(dict.fromkeys(reading.attribute for reading in readings))
    like = next(iter(outputs.values())).parts
    parts = like.new_zeros(count, len(names), len(attributes))
    value = like.new_zeros(count, len(attributes))
    seen = torch.zeros(count, len(attributes), dtype=torch.long, device=like.device)
    for reading in readings:
        if reading.output not in outputs:
            raise UnknownNameError(
                f'No output {reading.output!r} to read {reading.attribute!r} from: expected one of '
                f'{list(outputs)}.'
            )
        found, column = outputs[reading.output], attributes.index(reading.attribute)
        parts[reading.detections, :, column] = reading.parts_of(found).T
        value[reading.detections, column] = reading.of(found.value)
        seen[reading.detections, column] += 1
    if (seen != 1).any():
        row, column = (seen != 1).nonzero()[0].tolist()
        raise InputError(
            f'Attribute {attributes[column]!r} of detection {row} was read '
            f'{int(seen[row, column])} times: expected once.'
        )
    residuals = [o.residual for o in outputs.values() if o.residual is not None]
    return DetectionParts(attributes, names, value, parts, max(residuals) if residuals else None)


def read_values(
    maps: Mapping[str, Tensor], readings: Sequence[Reading], attributes: Sequence[str], count: int
) -> Tensor:
    """Returns the (K, A) entries of plain maps (C, ...) at the readings' places; NaN for none."""
    value = next(iter(maps.values())).new_full((count, len(attributes)), torch.nan)
    for reading in readings:
        column = list(attributes).index(reading.attribute)
        value[reading.detections, column] = reading.of(maps[reading.output])
    return value
