"""OpenPCDet's one-stage detectors as black boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...core.black_box import Region
from ...core.errors import NotApplicableError
from ...core.session import overridden
from ...core.structures import Detections
from ..common.black_box import DetectorBlackBox
from ..common.candidates import Candidates
from ..common.unchanged import Unchanged
from .detector import backbone_of, forgotten, head_of
from .head_pass import raw_outputs
from .heads import candidates_class
from .voxels import VoxelSettings


class PcdetBlackBox(DetectorBlackBox):
    """A detector up to its head's raw outputs, without NMS and without caps.

    Clouds are what the detector gets in ``batch_dict['points']``, after the data set's own steps.
    They become voxels with the settings of its data processor, but for the cap on their number.
    Where the head's candidates are voxels and not cells of a map (VoxelNeXt), clouds go through
    one by one and whole.

    Args:
        model: The detector, without wrappers.
        predict: The detector's own ``forward``, where something else stands in for it.
        family: Family of heads that the detector's is taken for, see ``heads.candidates_class``.
        class_names: Names of the classes, default those of the model.
        batch_size: As in ``BlackBox``.
        windows: As in ``DetectorBlackBox``.

    Raises:
        NotApplicableError: If the whole frame decides what becomes a candidate (two stages,
            TransFusion), there is no voxel grid, or frames are flipped and merged.
    """

    def __init__(
        self,
        model: nn.Module,
        predict: Callable[[dict], Any] | None = None,
        family: str | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int = 4,
        windows: bool = True,
    ) -> None:
        _, self.head = head_of(model)
        self._class = candidates_class(self.head, family)
        if self._class.chosen_by is not None:
            raise NotApplicableError(
                f'Of {type(model).__name__} the whole frame decides what becomes a candidate, by '
                f'{self._class.chosen_by}: expected a one-stage detector (SECOND, PointPillars, '
                'CenterPoint, PillarNet, VoxelNeXt).'
            )
        parts = backbone_of(model)
        self._to_bev = parts.get('map_to_bev_module')
        self._voxels = VoxelSettings.of(model)
        super().__init__(
            model,
            _Encoder([m for name, m in parts.items() if name != 'backbone_2d']),
            self._voxels.limits[:2],
            self._voxels.size[:2],
            class_names or getattr(model, 'class_names', ()),
            batch_size,
            windows,
        )
        self._predict = predict or model.forward
        #: The base without points outside of the grid, and what it was made of.
        self._cleaned: Tensor | None = None
        self._cleaned_from = Unchanged(())

    @property
    def num_classes(self) -> int:
        """How many classes the head knows."""
        return int(getattr(self.head, 'num_class', len(self.class_names)))

    def candidates(self, clouds: Sequence[Tensor], score_thr: float) -> list[Detections]:
        """As in ``BlackBox``."""
        return super().candidates([self._inside_grid(cloud) for cloud in clouds], score_thr)

    def candidates_in(
        self,
        clouds: Sequence[Tensor],
        regions: Sequence[Region],
        score_thr: float,
        base: Tensor | None = None,
        anywhere: bool = False,
    ) -> list[list[Detections]]:
        """As in ``BlackBox``."""
        base = self._base_inside_grid(base)
        clouds = [self._inside_grid(cloud) for cloud in clouds]
        return super().candidates_in(clouds, regions, score_thr, base, anywhere)

    def cost(self, regions: Sequence[Region], base: Tensor, anywhere: bool = False) -> float:
        """As in ``BlackBox``."""
        return super().cost(regions, self._base_inside_grid(base), anywhere)

    def _base_inside_grid(self, base: Tensor | None) -> Tensor | None:
        """The same tensor for the same base: the parent tells bases apart by identity."""
        if base is None:
            return None
        if not self._cleaned_from.holds_for([base]):
            self._cleaned = self._inside_grid(base)
            self._cleaned_from = Unchanged([base])
        return self._cleaned

    def _inside_grid(self, cloud: Tensor) -> Tensor:
        """Leaves out points above and below the grid: without others a cloud is an empty one.

        OpenPCDet's data processor only looks at x and y.
        """
        if self._cleaned_from.holds_for([cloud]):
            return self._cleaned
        return cloud[self._voxels.holds(cloud)]

    def candidates_of(self, raw: Any) -> Candidates:
        """As in ``DetectorBlackBox``."""
        return self._class.of_maps(self.head, raw) if self._class.dense else raw.candidates

    def _whole(self, clouds: Sequence[Tensor]) -> Iterator[Candidates | None]:
        for part in [clouds] if self._class.dense else [[cloud] for cloud in clouds]:
            yield from super()._whole(part)

    def raw(self, clouds: Sequence[Tensor]) -> Any:
        """As in ``DetectorBlackBox``."""
        batch = self.batch(clouds)
        with forgotten(self.model), self._tapped():
            args, kwargs, batch = raw_outputs(
                self.model, self.head, self._class, self._predict, batch
            )
            if self._class.dense:
                return self._class.maps_of(*args, **kwargs)
            return _Answer(self._class(self.head, batch, *args, **kwargs))

    @contextmanager
    def _tapped(self) -> Iterator[None]:
        """Shows the bird's-eye-view map to the encoder's hooks, which may exchange it."""
        if self._to_bev is None:
            self.encoder(None)
            yield
            return
        host = self._to_bev.forward

        def forward(batch: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            batch = host(batch, *args, **kwargs)
            batch['spatial_features'] = self.encoder(batch['spatial_features'])
            return batch

        with overridden(self._to_bev, 'forward', forward):
            yield

    def batch(self, clouds: Sequence[Tensor]) -> dict[str, Any]:
        """Returns OpenPCDet's batch of these clouds, on the model's device."""
        device = next(self.model.parameters()).device
        clouds = [cloud.to(device) for cloud in clouds]
        return self._voxels.full_batch(clouds)


class _Encoder(nn.Module):
    """Stands for the modules that make the map out of points; hands on what they made.

    OpenPCDet's own modules pass a dictionary, which hooks on tensors could not follow.
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, bev: Tensor | None) -> Tensor | None:
        return bev


@dataclass(frozen=True)
class _Answer:
    """The candidates of a frame whose head has no maps."""

    candidates: Candidates


def black_box_of(
    model: nn.Module,
    predict: Callable[[dict], Any] | None = None,
    family: str | None = None,
) -> PcdetBlackBox | None:
    """Returns the detector as a black box, or None for one that cannot be one."""
    try:
        return PcdetBlackBox(model, predict, family)
    except NotApplicableError:
        return None
