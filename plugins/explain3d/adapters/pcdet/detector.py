"""The parts of an OpenPCDet detector that the adapter needs, and leaving it as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ...core.errors import NotApplicableError
from ..common.model_intake import unwrapped
from .applicability import require_voxels_alone

#: The way from points to the map that the dense head sees, in the order in which it runs.
BACKBONE = ('vfe', 'backbone_3d', 'map_to_bev_module', 'backbone_2d')


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the detector inside its wrappers; raises as ``unwrapped``."""
    return unwrapped(model, 'post_processing')


def backbone_of(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the parts of the backbone by their paths, in the order in which they run.

    Raises:
        NotApplicableError: If the model has no voxel grid, or is one that
            ``applicability.require_voxels_alone`` refuses.
    """
    require_voxels_alone(model)
    parts = {path: getattr(model, path, None) for path in BACKBONE}
    parts = {path: module for path, module in parts.items() if isinstance(module, nn.Module)}
    dataset = getattr(model, 'dataset', None)
    grid = getattr(dataset, 'grid_size', None)
    if 'vfe' not in parts or len(parts) < 2 or grid is None:
        raise NotApplicableError(
            f'{type(model).__name__} has no voxel grid of its own: expected a LiDAR detector of '
            'OpenPCDet with a VFE and a backbone (SECONDNet, PointPillar, CenterPoint, PVRCNN, '
            'VoxelRCNN, VoxelNeXt, ...).'
        )
    return parts


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Returns path and module of the head whose outputs are explained.

    That is the last one, except for SECOND-IoU: its second stage scores the dense head's boxes
    from detached features, so that its dense head is explained.

    Raises:
        NotApplicableError: If there is none.
    """
    roi_head = getattr(model, 'roi_head', None)
    if isinstance(roi_head, nn.Module) and not scores_only(roi_head):
        return 'roi_head', roi_head
    dense_head = getattr(model, 'dense_head', None)
    if isinstance(dense_head, nn.Module):
        return 'dense_head', dense_head
    raise NotApplicableError(
        f'{type(model).__name__} has no detection head: expected roi_head or dense_head. Only 3D '
        'detectors on voxels or pillars can be explained.'
    )


def scores_only(roi_head: nn.Module) -> bool:
    """Whether a second stage scores boxes and does not refine them (SECOND-IoU)."""
    return any(parent.__name__ == 'SECONDHead' for parent in type(roi_head).__mro__)


@contextmanager
def forgotten(model: nn.Module) -> Iterator[None]:
    """Undoes what a forward pass writes into attributes of the modules.

    OpenPCDet's heads keep their last outputs (``forward_ret_dict``, ``query_labels``); with those
    of a second pass its graph would stay in memory, and the host would find others than its own.
    """
    before = [(module, dict(vars(module))) for module in model.modules()]
    dicts = [
        (value, dict(value))
        for _, attributes in before
        for name, value in attributes.items()
        if isinstance(value, dict) and name.endswith('ret_dict')
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            _restore(vars(module), attributes)
        for value, content in dicts:
            _restore(value, content)


def _restore(now: dict, before: dict) -> None:
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if name not in now or now[name] is not value:
            now[name] = value


def head_classes(model: nn.Module) -> list[str]:
    """Returns the names of the classes that the dense head's branches have, sorted.

    A label is the place of its name among CLASS_NAMES, whatever the order of the branches. Empty
    where the head has no branches by class.
    """
    names = getattr(getattr(model, 'dense_head', None), 'class_names_each_head', None)
    return sorted(name for each in names or () for name in each)
