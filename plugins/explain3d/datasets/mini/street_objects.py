"""Things along a street that are none of the labelled classes."""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, ellipsoid, limb, merge

_GREENS = np.array([[0.14, 0.28, 0.09], [0.20, 0.33, 0.10], [0.10, 0.22, 0.10], [0.28, 0.34, 0.14]])
_STONES = np.array(
    [
        [0.70, 0.66, 0.58],
        [0.55, 0.34, 0.26],
        [0.62, 0.62, 0.62],
        [0.78, 0.72, 0.55],
        [0.46, 0.42, 0.38],
    ]
)
_BARK = (0.24, 0.18, 0.13)
_STEEL = (0.42, 0.43, 0.44)


def _foliage(rng, centre, radii, detail: int = 6) -> Mesh:
    """An irregular ball of leaves."""
    bumps = rng.uniform(0.75, 1.15, (detail + 2, 2 * detail))
    bumps[[0, -1]] = 1.0
    mesh = ellipsoid(centre, radii, Material.LEAF, _GREENS[rng.integers(4)], detail, bumps)
    mesh.colour *= rng.uniform(0.7, 1.2, (len(mesh.faces), 1)).astype(np.float32)
    return mesh


def tree(rng: np.random.Generator) -> Mesh:
    """A street tree: trunk and a crown that starts above head height."""
    radius, trunk = rng.uniform(0.10, 0.28), rng.uniform(2.2, 3.2)
    lean = rng.normal(0, 0.06, 2)
    top = np.array([lean[0], lean[1], trunk + 0.6])
    crown = rng.uniform(1.2, 2.2)
    parts = [limb((0, 0, -0.2), top, radius, 0.7 * radius, Material.WOOD, _BARK, 8)]
    for _ in range(3):
        centre = top + rng.normal(0, 0.4, 3) + [0, 0, crown * 0.7]
        parts.append(_foliage(rng, centre, crown * rng.uniform(0.6, 1.0, 3)))
    return merge(parts)


def bush(rng: np.random.Generator) -> Mesh:
    """An irregular bush, some as tall as a person."""
    height = rng.uniform(0.5, 1.9)
    parts = []
    for _ in range(rng.integers(1, 4)):
        spread = rng.uniform(0.3, 0.75)
        centre = (*rng.normal(0, 0.3, 2), height * 0.42)
        parts.append(_foliage(rng, centre, (spread, spread, height * 0.55), 5))
    return merge(parts)


def hedge(rng: np.random.Generator) -> Mesh:
    """A cut hedge along x."""
    length, height = rng.uniform(2.0, 6.0), rng.uniform(0.7, 1.8)
    colour = _GREENS[rng.integers(4)]
    parts = [box((length, 0.6, height), (0, 0, height / 2), Material.LEAF, colour)]
    for x in np.arange(-length / 2, length / 2, 0.7):
        centre = (x + 0.35, rng.normal(0, 0.08), height * rng.uniform(0.75, 0.9))
        parts.append(_foliage(rng, centre, (0.5, 0.38, 0.3), 4))
    return merge(parts)


def lamp_post(rng: np.random.Generator) -> Mesh:
    """A lamp post with an arm over the street (towards +y)."""
    height, arm = rng.uniform(4.5, 7.0), rng.uniform(0.3, 1.5)
    return merge(
        [
            limb((0, 0, -0.1), (0, 0, height), 0.09, 0.06, Material.METAL, _STEEL),
            limb((0, 0, height), (0, arm, height + 0.2), 0.05, 0.04, Material.METAL, _STEEL, 6),
            box((0.25, 0.6, 0.12), (0, arm, height + 0.2), Material.METAL, (0.7, 0.7, 0.7)),
            box((0.28, 0.28, 0.5), (0, 0, 0.25), Material.METAL, _STEEL),
        ]
    )


def bollard(rng: np.random.Generator) -> Mesh:
    """A waist-high post."""
    height = rng.uniform(0.6, 1.1)
    colour = _STEEL if rng.random() < 0.5 else (0.6, 0.1, 0.08)
    return limb((0, 0, -0.1), (0, 0, height), 0.08, 0.07, Material.METAL, colour)


def sign(rng: np.random.Generator) -> Mesh:
    """A traffic sign on a thin post, its face towards -x."""
    height = rng.uniform(2.0, 2.8)
    post = limb((0, 0, -0.1), (0, 0, height), 0.035, 0.035, Material.METAL, _STEEL, 6)
    colour = ((0.75, 0.08, 0.06), (0.08, 0.2, 0.6), (0.85, 0.8, 0.1), (0.9, 0.9, 0.9))[
        rng.integers(4)
    ]
    if rng.random() < 0.5:
        plate = limb(
            (-0.05, 0, height - 0.2),
            (-0.07, 0, height - 0.2),
            0.32,
            0.32,
            Material.PLATE,
            colour,
            12,
        )
    else:
        plate = box(
            (0.02, *rng.uniform(0.4, 0.8, 2)), (-0.05, 0, height - 0.3), Material.PLATE, colour
        )
    return merge([post, plate])


def bin_(rng: np.random.Generator) -> Mesh:
    """A wheeled refuse bin or a round litter bin."""
    if rng.random() < 0.6:
        width, height = rng.uniform(0.5, 0.75), rng.uniform(0.95, 1.15)
        colour = ((0.10, 0.30, 0.14), (0.15, 0.15, 0.17), (0.10, 0.18, 0.40))[rng.integers(3)]
        return merge(
            [
                box(
                    (width * 1.1, width, height - 0.12),
                    (0, 0, height / 2),
                    Material.PLASTIC,
                    colour,
                ),
                box((width * 1.2, width * 1.1, 0.08), (0.03, 0, height), Material.PLASTIC, colour),
            ]
        )
    height = rng.uniform(0.8, 1.1)
    return limb((0, 0, 0), (0, 0, height), 0.24, 0.28, Material.METAL, (0.25, 0.3, 0.28), 10)


def mailbox(rng: np.random.Generator) -> Mesh:
    """A mailbox on a post, or a street cabinet."""
    if rng.random() < 0.5:
        height = rng.uniform(1.1, 1.5)
        colour = (0.8, 0.65, 0.08) if rng.random() < 0.5 else (0.6, 0.08, 0.07)
        return merge(
            [
                limb((0, 0, -0.1), (0, 0, height - 0.4), 0.05, 0.05, Material.METAL, _STEEL, 6),
                box((0.35, 0.45, 0.55), (0, 0, height - 0.15), Material.METAL, colour),
            ]
        )
    size = (rng.uniform(0.3, 0.5), rng.uniform(0.7, 1.6), rng.uniform(0.9, 1.6))
    return box(size, (0, 0, size[2] / 2), Material.METAL, (0.55, 0.56, 0.52))


def advertising_column(rng: np.random.Generator) -> Mesh:
    """A round column the height of two people."""
    radius, height = rng.uniform(0.45, 0.65), rng.uniform(2.4, 3.2)
    colour = np.clip(rng.uniform(0.2, 0.8) + rng.normal(0, 0.2, 3), 0, 1)
    return limb((0, 0, 0), (0, 0, height), radius, radius, Material.WALL, colour, 16)


def fence(rng: np.random.Generator, length: float) -> Mesh:
    """A garden fence of pickets or of rails along x."""
    height = rng.uniform(0.8, 1.5)
    wooden = rng.random() < 0.6
    colour = (0.40, 0.30, 0.20) if wooden else (0.22, 0.24, 0.23)
    material = Material.WOOD if wooden else Material.METAL
    width, step = (0.09, 0.17) if wooden else (0.025, 0.14)
    parts = [box((length, 0.04, 0.07), (0, 0, z * height), material, colour) for z in (0.25, 0.85)]
    for x in np.arange(-length / 2 + width / 2, length / 2, step):
        parts.append(box((width, 0.025, height), (x, 0.03, height / 2), material, colour))
    for x in np.arange(-length / 2, length / 2 + 0.1, 2.0):
        parts.append(box((0.1, 0.1, height + 0.1), (x, 0, height / 2 - 0.05), material, colour))
    return merge(parts)


def wall(rng: np.random.Generator, length: float) -> Mesh:
    """A garden wall along x."""
    height = rng.uniform(0.5, 2.1)
    colour = _STONES[rng.integers(5)]
    return merge(
        [
            box((length, 0.22, height + 0.3), (0, 0, height / 2 - 0.15), Material.WALL, colour),
            box((length, 0.32, 0.07), (0, 0, height), Material.WALL, 0.9 * colour),
        ]
    )


def house(rng: np.random.Generator, length: float, depth: float) -> Mesh:
    """A house along x whose front is at y = 0 and looks towards -y."""
    storeys = rng.integers(1, 5)
    height = 0.5 + 2.9 * storeys
    colour = np.clip(_STONES[rng.integers(5)] + rng.normal(0, 0.05, 3), 0.1, 0.95)
    parts = [
        box((length, depth, height + 1.0), (0, depth / 2, height / 2 - 0.5), Material.WALL, colour)
    ]
    pitch = rng.uniform(2.5, 4.0)
    count = max(int(length / pitch), 1)
    door = rng.integers(count)
    for column in range(count):
        x = (column + 0.5) * length / count - length / 2
        for storey in range(storeys):
            if storey == 0 and column == door:
                parts.append(
                    box((1.0, 0.1, 2.1), (x, -0.02, 1.05), Material.WOOD, (0.30, 0.16, 0.10))
                )
                parts.append(box((1.6, 0.9, 0.16), (x, -0.45, 0.0), Material.WALL, (0.5, 0.5, 0.5)))
                continue
            z = 1.6 + 2.9 * storey
            parts.append(box((1.2, 0.06, 1.35), (x, -0.01, z), Material.GLASS, (0.10, 0.13, 0.17)))
            parts.append(
                box((1.4, 0.2, 0.08), (x, -0.05, z - 0.72), Material.WALL, (0.75, 0.75, 0.72))
            )
    roof = (0.34, 0.16, 0.12) if rng.random() < 0.6 else (0.25, 0.25, 0.27)
    parts.append(
        box((length + 0.3, depth + 0.6, 0.5), (0, depth / 2, height + 0.2), Material.WALL, roof)
    )
    return merge(parts)
