"""MMDetection3D's one-stage detectors as black boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ...core.errors import NotApplicableError
from ...core.override import override
from ...core.session import overridden
from ..common.black_box import DetectorBlackBox
from ..common.candidates import Candidates
from ..common.tail import Tail
from .detector import backbone_of, head_of, voxel_layer
from .heads import candidates_class
from .voxels import fast_layer


class _HeadReached(Exception):  # noqa: N818 - ends the pass, is no error
    pass


class MMDet3DBlackBox(DetectorBlackBox):
    """A detector up to ``head.predict_by_feat``, without NMS and without caps.

    Args:
        model: The detector, without wrappers.
        predict: The detector's own ``predict``, where something else stands in for it.
        class_names: Names of the classes, default those of ``model.dataset_meta``.
        batch_size: As in ``BlackBox``.
        windows: As in ``DetectorBlackBox``.
        fast_voxels: Whether ``voxels.hard_voxels`` stands in for the stock operator on a CPU.

    Raises:
        NotApplicableError: If the detector has two stages, or no voxel grid.
    """

    def __init__(
        self,
        model: nn.Module,
        predict: Callable[[dict, list], Any] | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int = 4,
        windows: bool = True,
        fast_voxels: bool = True,
    ) -> None:
        path, self.head = head_of(model)
        if path.startswith('roi_head'):
            raise NotApplicableError(
                f'{type(model).__name__} refines proposals, whose choice caps the frame: expected '
                'a one-stage detector (SECOND, PointPillars, CenterPoint).'
            )
        backbone = backbone_of(model)
        layer = voxel_layer(model)
        names = class_names or (getattr(model, 'dataset_meta', None) or {}).get('classes') or ()
        super().__init__(
            model,
            dict(backbone.parts)[backbone.path_of('middle_encoder')],
            tuple(float(v) for v in layer.point_cloud_range[:2]),
            tuple(float(v) for v in layer.voxel_size[:2]),
            names,
            batch_size,
            windows,
        )
        neck = backbone.path_of('neck')
        self._passes.tail = Tail(None if neck is None else dict(backbone.parts)[neck])
        self._predict = predict or model.predict
        self.fast_voxels = fast_voxels
        self._class = candidates_class(self.head)

    @property
    @override
    def num_classes(self) -> int:
        """How many classes the head knows; CenterHead has a number for each task."""
        count = self.head.num_classes
        return count if isinstance(count, int) else sum(count)

    @override
    def candidates_of(self, raw: Any) -> Candidates:
        """As in ``DetectorBlackBox``."""
        return self._class(self.head, *raw)

    @override
    def raw(self, clouds: Sequence[Tensor]) -> Any:
        """As in ``DetectorBlackBox``."""
        from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

        samples = [Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes)) for _ in clouds]
        caught: list[Any] = []

        def stop(*args: Any, **_: Any) -> None:
            caught.extend(raw_maps(args))
            raise _HeadReached

        layer = voxel_layer(self.model)
        # The cap on the number of voxels would couple the objects of a frame.
        cap = max(len(cloud) for cloud in clouds)
        fast = fast_layer(layer) if self.fast_voxels else None
        with (
            overridden(layer, 'max_voxels', (cap, cap)),
            overridden(layer, 'forward', fast or layer.forward),
            overridden(self.head, self._class.intercepts, stop),
        ):
            data = dict(inputs=dict(points=list(clouds)), data_samples=samples)
            data = self.model.data_preprocessor(data, False)
            try:
                self._predict(data['inputs'], data['data_samples'])
            except _HeadReached:
                return tuple(caught)
        raise NotApplicableError(
            f'{type(self.head).__name__}.{self._class.intercepts} was not called: expected a head '
            'that works as its parent class in MMDetection3D does.'
        )


def raw_maps(args: Sequence[Any]) -> tuple:
    """Returns those of a head's arguments that are its raw outputs: maps in lists and dicts."""
    return tuple(value for value in args if _has_tensors(value))


def _has_tensors(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_tensors(part) for part in value)
    if isinstance(value, dict):
        return any(_has_tensors(part) for part in value.values())
    return isinstance(value, Tensor) and value.dim() == 4


def black_box_of(
    model: nn.Module, predict: Callable[[dict, list], Any] | None = None
) -> MMDet3DBlackBox | None:
    """Returns the detector as a black box, or None for one that cannot be one."""
    try:
        return MMDet3DBlackBox(model, predict)
    except NotApplicableError:
        return None
