"""What passes between adapters, methods, metrics and files.

Coordinates everywhere: LiDAR frame, metres, x forward, y left, z up. Boxes are
(x, y, z, l, w, h, yaw) with the *geometric* centre and yaw counter-clockwise about z from x, in
radians. Voxel indices are (batch, z, y, x). Adapters convert at their edge, nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from .transfer import constant

if TYPE_CHECKING:
    from .black_box import BlackBox
    from .gradients import GradientSource

#: Attributes of a detection that can be explained alone, in the order of the box vector.
BOX_ATTRIBUTES = ('x', 'y', 'z', 'l', 'w', 'h', 'yaw')
ATTRIBUTES = (*BOX_ATTRIBUTES, 'score', 'logit')


@dataclass(frozen=True)
class Detections:
    """Boxes of one frame.

    Attributes:
        boxes: (K, 7) x, y, z, l, w, h, yaw; metres and radians, LiDAR frame, geometric centre.
        scores: (K,) in [0, 1].
        labels: (K,) int64, an index into ``class_names``.
        class_names: Names of the classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __getitem__(self, index: Tensor | Sequence[int] | slice) -> Detections:
        """Returns the detections that ``index`` (indices, mask or slice) selects."""
        if not isinstance(index, (Tensor, slice)):
            index = torch.as_tensor(index, dtype=torch.long, device=self.boxes.device)
        return replace(
            self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index]
        )

    def to(self, device: torch.device | str) -> Detections:
        """Returns a copy on ``device``."""
        return replace(
            self,
            boxes=self.boxes.to(device),
            scores=self.scores.to(device),
            labels=self.labels.to(device),
        )

    def names(self) -> list[str]:
        """Returns the class name of each detection ("class 3" where the name is not known)."""
        known = self.class_names
        return [known[i] if 0 <= i < len(known) else f'class {i}' for i in self.labels.tolist()]


@dataclass(frozen=True)
class VoxelGeometry:
    """Where the voxels of a layer lie in space; all triples are in the order x, y, z.

    Attributes:
        range_min: Lower corner of the detector's point-cloud range, metres.
        base_voxel_size: Size of an input voxel, metres.
        stride: Input voxels per voxel of this layer.
        center_offset: Centre of voxel 0 in input voxels from ``range_min``. A chain of 3x3x3
            stride-2 padding-1 convolutions keeps it at 0.5: the receptive field of voxel i is
            centred on input voxel i * stride, so its centre is (i * stride + 0.5) voxels away.
    """

    range_min: tuple[float, float, float]
    base_voxel_size: tuple[float, float, float]
    stride: tuple[float, float, float]
    center_offset: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Size (x, y, z) of this layer's voxels, metres."""
        return tuple(s * v for s, v in zip(self.stride, self.base_voxel_size, strict=True))

    @property
    def origin(self) -> tuple[float, float, float]:
        """Lower corner (x, y, z) of the cell that surrounds the centre of voxel 0, metres."""
        return tuple(
            r + v * (c - s / 2)
            for r, v, c, s in zip(
                self.range_min, self.base_voxel_size, self.center_offset, self.stride, strict=True
            )
        )

    def naive(self) -> VoxelGeometry:
        """Returns the geometry with centres at (i + 0.5) * stride, as FFAM's code has them."""
        return replace(self, center_offset=tuple(s / 2 for s in self.stride))

    def centers(self, coords: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns voxel centres in metres.

        Args:
            coords: (M, 4) batch, z, y, x or (M, 3) z, y, x.
            dtype: Floating type of the result.

        Returns:
            (M, 3) x, y, z.
        """
        xyz = coords[:, -3:].flip(1).to(dtype)
        size = constant(self.voxel_size, coords.device, dtype)
        origin = constant(self.origin, coords.device, dtype)
        return (xyz + 0.5) * size + origin

    def cells(self, points: Tensor) -> Tensor:
        """Returns the cell of each point (Eq. 8 of FFAM, by floor), possibly outside the grid.

        Args:
            points: (N, >= 3) x, y, z, ..., metres.

        Returns:
            (N, 3) int64 z, y, x.
        """
        xyz = points[:, :3]
        size = constant(self.voxel_size, xyz.device, xyz.dtype)
        origin = constant(self.origin, xyz.device, xyz.dtype)
        return ((xyz - origin) / size).floor().long().flip(1)


@dataclass(frozen=True)
class LayerFeatures:
    """The features of one layer of one frame as rows, whether the layer is sparse or dense.

    Attributes:
        values: (M, C) features, without a graph.
        coords: (M, 3) int64 z, y, x voxel index of each row (z = 0 for bird's-eye-view layers).
        spatial_shape: (D, H, W) grid size in z, y, x.
        geometry: Where the voxels lie.
        name: The layer's module path.
    """

    values: Tensor
    coords: Tensor
    spatial_shape: tuple[int, int, int]
    geometry: VoxelGeometry
    name: str = ''


@dataclass
class Trace:
    """One graph-keeping pass of a detector over one frame: all that a method needs.

    An adapter makes it. The graph starts at ``leaf``: nothing below the layer is in it, and no
    parameter requires a gradient.

    Attributes:
        points: (N, P) the frame's points as the detector received them, x, y, z first.
        features: The layer's features as rows.
        detections: K detections to explain.
        attributes: Each of ``ATTRIBUTES`` that the head has, as a (K,) tensor with a graph.
        leaf: The tensor at which the graph starts (any shape).
        rows: Maps a gradient of the shape of ``leaf`` to the (M, C) rows of ``features``.
        frame_id: Names the frame in files and messages.
        replay: Runs the frame again with other features at the layer: takes a tensor of the shape
            of ``leaf``, or None for those that the network gives with the weights that it has
            then; returns the leaf that the new graph starts at and the attributes of the same
            detections (the same anchors or cells). None where the adapter cannot.
        black_box: The detector as a function of the cloud. None where the adapter has none.
        gradients: A faster way to the gradients of ``attributes`` at ``leaf``, if the adapter has
            one; it counts for these two only, see ``core.gradients.GradientSource``.
        further: The same frame and detections at the method's other layers, in their order.
    """

    points: Tensor
    features: LayerFeatures
    detections: Detections
    attributes: dict[str, Tensor]
    leaf: Tensor
    rows: Callable[[Tensor], Tensor]
    frame_id: str = ''
    replay: Callable[[Tensor | None], tuple[Tensor, dict[str, Tensor]]] | None = None
    black_box: BlackBox | None = None
    gradients: GradientSource | None = None
    further: tuple[Trace, ...] = ()


@dataclass
class Maps:
    """What a method returns for one frame.

    Attributes:
        saliency: For each target's name, in the order asked for, (K, N) a value >= 0 per point.
        global_map: (N,) the object-independent map, if the method has one (Eq. 4 of FFAM).
        concepts: (R, N) a map per concept, if the method has them.
        info: Plain numbers and strings: iterations, residual, settings that were in force.
    """

    saliency: dict[str, Tensor]
    global_map: Tensor | None = None
    concepts: Tensor | None = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Explanation:
    """The explanation of one frame: what is written to disk and handed to metrics and pictures.

    Attributes:
        frame_id: Names the frame; also the file's stem.
        points: (N, P) points, x, y, z first, metres.
        detections: The K detections that are explained.
        maps: The method's result.
        method: The method's registered name.
        ground_truth: Annotated boxes (scores 1) where the data has them.
        detection_indices: (K,) int64 index of each detection among the frame's predictions.
        settings: The configuration of method and selection, as plain data.
        versions: Names and versions of the software that made it.
        black_box: The detector, for metrics that ask it more; not part of a file.
    """

    #: Tells results of different families apart.
    kind: ClassVar[str] = 'explanation'

    frame_id: str
    points: Tensor
    detections: Detections
    maps: Maps
    method: str
    ground_truth: Detections | None = None
    detection_indices: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    black_box: BlackBox | None = field(default=None, compare=False, repr=False)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, in the order in which they were asked for."""
        return tuple(self.maps.saliency)

    @property
    def saliency(self) -> Tensor:
        """(K, N) the first target's saliency."""
        return next(iter(self.maps.saliency.values()))
