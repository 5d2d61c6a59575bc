"""Which layers of a detector can be explained, their aliases, and where their cells lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...core.checks import suggestion
from ...core.errors import UnknownNameError
from ...core.structures import VoxelGeometry

SPARSE, BEV, PILLARS = 'sparse', 'bev', 'pillars'


@dataclass(frozen=True)
class LayerInfo:
    """A layer that can be explained.

    Attributes:
        name: Module path.
        kind: ``'sparse'`` (rows are occupied voxels), ``'bev'`` (rows are all cells of a
            bird's-eye-view map) or ``'pillars'`` (rows are the voxel encoder's pillars or voxels).
        channels: Number of channels C.
        spatial_shape: (D, H, W) grid size in z, y, x.
        geometry: Where the cells lie.
        is_leaf: Whether the module has no submodules; such layers are not listed in messages.
        aliases: Other names: ``stride4``, ``bev``, ``neck``, ``pillars``.
        key: Of a module that returns a dict of everything (OpenPCDet's), the entry that is meant.
    """

    name: str
    kind: str
    channels: int
    spatial_shape: tuple[int, int, int]
    geometry: VoxelGeometry
    is_leaf: bool = False
    aliases: tuple[str, ...] = ()
    key: str | None = None

    @property
    def stride(self) -> float:
        """Input voxels per cell along x."""
        return self.geometry.stride[0]


def find_layer(table: Sequence[LayerInfo], name: str) -> LayerInfo:
    """Returns the layer of that module path or alias.

    Raises:
        UnknownNameError: If there is none; the message lists the candidates.
    """
    for layer in table:
        if name == layer.name or name in layer.aliases:
            return layer
    aliases = [a for layer in table for a in layer.aliases]
    names = [layer.name for layer in table if not layer.is_leaf]
    hint = suggestion(name, aliases + [layer.name for layer in table])
    raise UnknownNameError(
        f'Unknown layer {name!r}: this detector has the aliases {aliases} and the module paths '
        f'{names}.{hint}'
    )


def with_aliases(
    table: Sequence[LayerInfo], bev: str | None = None, neck: str | None = None
) -> list[LayerInfo]:
    """Names the last layer at each stride before the next downsampling, and the maps.

    Args:
        table: Layers in the order in which they run.
        bev: Path of what makes the bird's-eye-view map.
        neck: Path of what the dense head sees.
    """
    aliases = _stride_aliases([layer for layer in table if layer.kind == SPARSE])
    for alias, name in (('bev', bev), ('neck', neck)):
        aliases[name] = (*aliases.get(name, ()), alias)
    if table and table[0].kind == PILLARS and table[0].spatial_shape[0] == 1:
        aliases[table[0].name] = ('pillars',)
    return [replace(layer, aliases=aliases.get(layer.name, ())) for layer in table]


def _stride_aliases(table: list[LayerInfo]) -> dict[str | None, tuple[str, ...]]:
    aliases: dict[float, str] = {}
    closed: set[float] = set()
    current = None
    for layer in table:
        if current is not None and layer.geometry != current:
            closed.add(current.stride[0])
        current = layer.geometry
        if layer.stride not in closed:
            aliases[layer.stride] = layer.name
    return {name: (f'stride{stride:g}',) for stride, name in aliases.items()}
