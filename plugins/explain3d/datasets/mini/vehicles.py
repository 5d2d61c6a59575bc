"""Cars, vans, trucks and buses: lofted bodies with glass, wheels, lamps, mirrors and plates."""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, limb, loft, merge

# Side views: (position from the front bumper to the rear, roof line) as shares of length, height.
_PROFILES = {
    'sedan': [(0, 0.36), (0.02, 0.49), (0.06, 0.54), (0.29, 0.63), (0.44, 0.96), (0.54, 1.0),
              (0.70, 0.98), (0.84, 0.69), (0.97, 0.65), (1, 0.42)],
    'hatchback': [(0, 0.36), (0.02, 0.47), (0.06, 0.53), (0.25, 0.63), (0.42, 0.97), (0.55, 1.0),
                  (0.83, 0.95), (0.96, 0.60), (1, 0.42)],
    'estate': [(0, 0.36), (0.02, 0.48), (0.06, 0.54), (0.28, 0.63), (0.42, 0.96), (0.55, 1.0),
               (0.88, 0.96), (0.97, 0.62), (1, 0.40)],
    'suv': [(0, 0.38), (0.02, 0.53), (0.06, 0.58), (0.27, 0.64), (0.39, 0.96), (0.50, 1.0),
            (0.88, 0.97), (0.97, 0.64), (1, 0.42)],
    'compact': [(0, 0.34), (0.03, 0.46), (0.08, 0.53), (0.22, 0.62), (0.40, 0.97), (0.55, 1.0),
                (0.86, 0.95), (0.98, 0.60), (1, 0.38)],
    'van': [(0, 0.28), (0.02, 0.40), (0.05, 0.46), (0.16, 0.54), (0.29, 0.94), (0.38, 1.0),
            (0.95, 0.99), (0.99, 0.55), (1, 0.30)],
}  # fmt: skip

# Mean length, width, height and the spread of each, metres.
_SIZES = {
    'sedan': ((4.25, 1.66, 1.46), (0.20, 0.05, 0.04)),
    'hatchback': ((3.80, 1.63, 1.48), (0.18, 0.05, 0.04)),
    'estate': ((4.30, 1.66, 1.49), (0.18, 0.05, 0.04)),
    'suv': ((4.30, 1.74, 1.68), (0.20, 0.05, 0.06)),
    'compact': ((3.45, 1.58, 1.52), (0.14, 0.04, 0.05)),
    'van': ((4.95, 1.86, 2.10), (0.30, 0.06, 0.12)),
}

CAR_STYLES = ('sedan', 'hatchback', 'estate', 'suv', 'compact')

_PAINTS = np.array(
    [
        [0.82, 0.83, 0.84], [0.55, 0.57, 0.60], [0.30, 0.31, 0.33], [0.05, 0.05, 0.06],
        [0.12, 0.18, 0.36], [0.50, 0.07, 0.06], [0.10, 0.28, 0.18], [0.60, 0.52, 0.38],
        [0.75, 0.60, 0.12],
    ]
)  # fmt: skip
_PAINT_SHARES = np.array([0.20, 0.22, 0.14, 0.16, 0.10, 0.09, 0.03, 0.04, 0.02])

_GLASS = (0.09, 0.12, 0.14)
_RUBBER = (0.04, 0.04, 0.04)
_HUB = (0.55, 0.56, 0.58)
_DARK = (0.06, 0.06, 0.06)


def paint(rng: np.random.Generator) -> np.ndarray:
    """(3,) a car colour, the common ones more often."""
    colour = _PAINTS[rng.choice(len(_PAINTS), p=_PAINT_SHARES)]
    return np.clip(colour + rng.normal(0, 0.02, 3), 0.02, 0.95)


def _body(style: str, size: np.ndarray, wheel_x: np.ndarray, radius: float, colour) -> Mesh:
    """The lofted shell: sill, flanks, belt line, tapered cabin and roof.

    Args:
        style: Key of the side views.
        size: (3,) length, width, height of the shell, metres.
        wheel_x: (A,) x of the axles.
        radius: Wheel radius; the sill rises to an arch over each wheel.
        colour: Paint.
    """
    length, width, height = size
    share, roof_share = np.array(_PROFILES[style]).T
    arch = wheel_x[:, None] + np.linspace(-1, 1, 9) * (radius + 0.06)
    u = np.unique(
        np.concatenate([share, (length / 2 - arch.ravel()) / length, np.linspace(0, 1, 9)])
    )
    u = u[(u >= 0) & (u <= 1)]
    x = length / 2 - u * length
    top = np.interp(u, share, roof_share) * height

    reach = (radius + 0.06) ** 2 - (x[:, None] - wheel_x) ** 2
    sill = np.maximum(0.13 * height, radius + np.sqrt(np.maximum(reach, 0)).max(1) - 0.06)
    sill[reach.max(1) <= 0] = 0.13 * height
    sill = np.minimum(sill, top - 0.06)
    belt_height = (0.52 if style == 'van' else 0.62) * height
    belt = np.minimum(belt_height, top - 0.04)
    flank = np.clip(0.42 * height, sill + 0.02, belt - 0.01)
    cabin = np.clip((top - belt) / (height - belt_height), 0, 1)

    # Plan view: the corners of both bumpers are rounded.
    corner = np.minimum(u, 1 - u) * length
    half = width / 2 * (1 - 0.16 * np.clip(1 - corner / 0.45, 0, 1) ** 2)
    taper = 0.95 if style == 'van' else 0.80
    roof_half = half * (0.93 - (0.93 - taper) * cabin)
    rows = [
        (0.86 * half, sill), (half * 0.985, sill + 0.01), (half, flank), (0.975 * half, belt),
        (roof_half, top - 0.05 * cabin * height / 1.5 - 0.01), (0.72 * roof_half, top),
    ]  # fmt: skip
    left = np.stack([np.stack([x, y, z], -1) for y, z in rows], 1)
    rings = np.concatenate([left, left[:, ::-1] * [1, -1, 1]], 1)

    quad_material, quad_colour = _glazing(style, u, top, belt, height, rings.shape[1], colour)
    return loft(rings, Material.PAINT, colour, quad_material, quad_colour)


def _glazing(style, u, top, belt, height, points, colour):
    """Materials (S - 1, P) and colours (S - 1, P, 3) of the shell's quads: where the glass is."""
    middle = (u[1:] + u[:-1]) / 2
    tall = (np.minimum(top[1:], top[:-1]) - belt[1:]) > 0.12 * height
    slope = np.abs(np.diff(top)) / np.maximum(np.diff(u), 1e-6) / height
    above = np.minimum(top[1:], top[:-1]) >= belt[1:] + 0.02
    screen = (slope > 0.9) & above & (middle > 0.1)
    side = tall & (np.abs(middle - 0.58) > 0.018) & (middle < 0.93)
    if style == 'van':
        side &= middle < 0.42
        screen &= middle < 0.5
    glass = np.zeros((len(middle), points), bool)
    # Columns of the ring: 3 and 7 span belt to roof edge, 4 to 6 the roof itself.
    glass[:, [3, 7]] = side[:, None]
    glass[:, [4, 5, 6]] = screen[:, None]
    material = np.where(glass, Material.GLASS, Material.PAINT).astype(np.uint8)
    return material, np.where(glass[..., None], _GLASS, np.asarray(colour)).astype(np.float32)


def _wheels(wheel_x: np.ndarray, width: float, radius: float, tread: float) -> list[Mesh]:
    parts = []
    for x in wheel_x:
        for side in (-1, 1):
            outer = side * (width / 2 - 0.015)
            inner = outer - side * tread
            parts.append(
                limb(
                    (x, inner, radius),
                    (x, outer, radius),
                    radius,
                    radius,
                    Material.TYRE,
                    _RUBBER,
                    16,
                )
            )
            parts.append(
                limb(
                    (x, outer, radius), (x, outer + side * 0.012, radius),
                    0.62 * radius, 0.55 * radius, Material.METAL, _HUB, 10,
                )
            )  # fmt: skip
    return parts


def _fittings(length: float, width: float, height: float) -> list[Mesh]:
    """Lamps, plates, bumper strips and mirrors."""
    parts = []
    for side in (-1, 1):
        y = side * 0.36 * width
        parts.append(
            box(
                (0.10, 0.26, 0.13),
                (length / 2 - 0.10, y, 0.42 * height),
                Material.LAMP,
                (0.9, 0.9, 0.85),
            )
        )
        parts.append(
            box(
                (0.08, 0.20, 0.16),
                (-length / 2 + 0.07, y, 0.50 * height),
                Material.LAMP,
                (0.6, 0.04, 0.03),
            )
        )
        parts.append(
            box(
                (0.16, 0.10, 0.12), (0.20 * length, side * (width / 2 + 0.005), 0.64 * height),
                Material.PLASTIC, _DARK,
            )
        )  # fmt: skip
    for end in (-1, 1):
        x = end * (length / 2 - 0.015)
        parts.append(
            box((0.03, 0.44, 0.11), (x, 0, 0.28 * height), Material.PLATE, (0.9, 0.9, 0.88))
        )
        parts.append(
            box(
                (0.06, 0.70 * width, 0.08),
                (end * (length / 2 - 0.04), 0, 0.20 * height),
                Material.PLASTIC,
                _DARK,
            )
        )
    return parts


def car(rng: np.random.Generator, style: str | None = None) -> Mesh:
    """A car or van, x forward, bottom centre at the origin.

    Args:
        rng: Draws style, size and paint.
        style: One of `CAR_STYLES` or ``'van'``; drawn from `CAR_STYLES` when None.
    """
    style = style or CAR_STYLES[rng.choice(len(CAR_STYLES), p=[0.24, 0.28, 0.18, 0.16, 0.14])]
    mean, spread = _SIZES[style]
    size = np.asarray(mean) + np.clip(rng.normal(size=3), -2, 2) * spread
    length, width, height = size
    colour = paint(rng)
    radius = 0.215 * 1.48 * (1.08 if style in ('suv', 'van') else 1.0)
    wheel_x = np.array([0.5 - 0.19, -0.5 + 0.20]) * length
    shell = np.array([length, width - 0.07, height])
    parts = [_body(style, shell, wheel_x, radius, colour)]
    parts.append(
        box(
            (0.9 * length, 0.55 * width, 0.30),
            (0, 0, 0.17 * height + 0.15),
            Material.PLASTIC,
            _DARK,
        )
    )
    parts += _wheels(wheel_x, width - 0.07, radius, 0.20)
    parts += _fittings(length, width - 0.07, height)
    return merge(parts).grounded()


def van(rng: np.random.Generator) -> Mesh:
    """A delivery van, x forward, bottom centre at the origin."""
    return car(rng, 'van')


def truck(rng: np.random.Generator) -> Mesh:
    """A rigid truck: cab, box or flat bed, three axles at most; bottom centre at the origin."""
    length, width, height = rng.uniform(6.5, 9.5), rng.uniform(2.3, 2.55), rng.uniform(2.8, 3.5)
    colour, cargo = paint(rng), paint(rng)
    cab_length, radius = rng.uniform(1.6, 2.0), 0.48
    cab_height = min(2.7, height)
    front = length / 2
    parts = [
        box((length - 0.2, 0.8, 0.25), (0, 0, 0.75), Material.METAL, _DARK),
        box(
            (cab_length, width * 0.96, cab_height - 0.5),
            (front - cab_length / 2, 0, 0.5 + (cab_height - 0.5) / 2), Material.PAINT, colour,
        ),
        box((0.04, width * 0.86, 0.75), (front, 0, cab_height - 0.65), Material.GLASS, _GLASS),
        box(
            (0.75, width * 0.975, 0.6), (front - 0.75, 0, cab_height - 0.7), Material.GLASS, _GLASS
        ),
        box((0.06, width * 0.9, 0.3), (front, 0, 0.6), Material.PLASTIC, _DARK),
        box((0.05, 0.5, 0.12), (-front + 0.1, 0, 0.8), Material.PLATE, (0.9, 0.9, 0.88)),
    ]  # fmt: skip
    bed = length - cab_length - 0.25
    bed_height = (height - 1.0) if rng.random() < 0.75 else 0.65
    parts.append(
        box(
            (bed, width, bed_height),
            (-front + bed / 2, 0, 1.0 + bed_height / 2),
            Material.PAINT,
            cargo,
        )
    )
    for side in (-1, 1):
        y = side * 0.42 * width
        parts.append(box((0.06, 0.3, 0.2), (front, y, 0.85), Material.LAMP, (0.9, 0.9, 0.85)))
        parts.append(
            box((0.06, 0.3, 0.15), (-front + 0.03, y, 0.9), Material.LAMP, (0.6, 0.04, 0.03))
        )
        mirror = (front - 0.1, side * (width / 2 + 0.06), cab_height - 0.7)
        parts.append(box((0.1, 0.16, 0.4), mirror, Material.PLASTIC, _DARK))
    axles = [front - 0.9, -front + 1.4]
    if length > 8:
        axles.append(-front + 2.5)
    parts += _wheels(np.array(axles), width, radius, 0.3)
    return merge(parts).grounded()


def bus(rng: np.random.Generator) -> Mesh:
    """A city bus, x forward, bottom centre at the origin."""
    length, width, height = rng.uniform(9.5, 12.0), rng.uniform(2.5, 2.6), rng.uniform(2.9, 3.2)
    colour = paint(rng)
    middle, glass = 0.35 + (height - 0.35) / 2, 0.62 * height
    parts = [
        box((length, width, height - 0.35), (0, 0, middle), Material.PAINT, colour),
        box((0.9 * length, width + 0.02, 0.95), (-0.1, 0, glass), Material.GLASS, _GLASS),
        box((0.04, 0.9 * width, 1.3), (length / 2, 0, glass), Material.GLASS, _GLASS),
        box((0.04, 0.8 * width, 0.8), (-length / 2, 0, glass + 0.1), Material.GLASS, _GLASS),
        box((0.05, 0.5, 0.12), (-length / 2, 0, 0.7), Material.PLATE, (0.9, 0.9, 0.88)),
    ]
    for side in (-1, 1):
        lamp = (length / 2, side * 0.4 * width, 0.75)
        parts.append(box((0.06, 0.3, 0.18), lamp, Material.LAMP, (0.9, 0.9, 0.85)))
        lamp = (-length / 2, side * 0.4 * width, 0.9)
        parts.append(box((0.06, 0.2, 0.35), lamp, Material.LAMP, (0.6, 0.04, 0.03)))
        mirror = (length / 2 - 0.1, side * (width / 2 + 0.1), 0.72 * height)
        parts.append(box((0.1, 0.2, 0.4), mirror, Material.PLASTIC, _DARK))
    parts += _wheels(np.array([0.28, -0.26]) * length, width, 0.48, 0.3)
    return merge(parts).grounded()
