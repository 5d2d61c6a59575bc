"""The parts of an MMDetection3D detector that the adapter needs, whatever they are called."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...core.errors import NotApplicableError
from ..common.model_intake import unwrapped


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the detector inside its wrappers; raises as ``unwrapped``."""
    return unwrapped(model, 'predict')


@dataclass(frozen=True)
class Backbone:
    """The way from points to the map that the head sees, in the order in which it runs.

    Attributes:
        parts: (module path, module) of voxel encoder, middle encoder, 2D backbone and neck.
    """

    parts: tuple[tuple[str, nn.Module], ...]

    def path_of(self, role: str) -> str | None:
        """Returns the path of the part called ``role`` or ``pts_`` + ``role``."""
        return next((p for p, _ in self.parts if p.removeprefix('pts_') == role), None)


def backbone_of(model: nn.Module) -> Backbone:
    """Finds the parts of a voxel or pillar detector.

    Raises:
        NotApplicableError: If the model has no middle encoder: point-based detectors, camera
            models and segmentors.
    """
    parts = []
    for role in ('voxel_encoder', 'middle_encoder', 'backbone', 'neck'):
        for path in (f'pts_{role}', role):
            module = getattr(model, path, None)
            if isinstance(module, nn.Module):
                parts.append((path, module))
                break
    backbone = Backbone(tuple(parts))
    if backbone.path_of('middle_encoder') is None or not hasattr(voxel_layer(model), 'voxel_size'):
        raise NotApplicableError(
            f'{type(model).__name__} has no voxel grid: expected a detector with a voxelising data '
            'preprocessor and a middle encoder (SECOND, PointPillars, CenterPoint, PV-RCNN, '
            'Part-A2, ...).'
        )
    return backbone


def voxel_layer(model: nn.Module) -> nn.Module | None:
    """Returns the voxelisation layer of the data preprocessor, if it has one."""
    return getattr(getattr(model, 'data_preprocessor', None), 'voxel_layer', None)


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Returns path and module of the head that gives the final boxes.

    Raises:
        NotApplicableError: If there is none.
    """
    roi_head = getattr(model, 'roi_head', None)
    if isinstance(getattr(roi_head, 'bbox_head', None), nn.Module):
        return 'roi_head.bbox_head', roi_head.bbox_head
    for path in ('pts_bbox_head', 'bbox_head'):
        if isinstance(getattr(model, path, None), nn.Module):
            return path, getattr(model, path)
    raise NotApplicableError(
        f'{type(model).__name__} has no detection head: expected roi_head.bbox_head, '
        'pts_bbox_head or bbox_head. Only 3D detectors can be explained.'
    )


def head_classes(model: nn.Module) -> tuple[str, ...]:
    """Returns the names of the classes by label, as the head has them; empty where it has none.

    Heads with tasks number their labels task by task.
    """
    try:
        _, head = head_of(model)
    except NotApplicableError:
        return ()
    names = getattr(head, 'class_names', None)
    if not isinstance(names, (list, tuple)):
        return ()
    flat = [n for each in names for n in (each if isinstance(each, (list, tuple)) else [each])]
    return tuple(flat) if all(isinstance(name, str) for name in flat) else ()
