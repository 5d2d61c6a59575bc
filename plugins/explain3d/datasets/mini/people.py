"""Pedestrians and cyclists: jointed bodies whose gait has a phase."""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, ellipsoid, limb, loft, merge, ring

_SKINS = np.array([[0.80, 0.60, 0.48], [0.66, 0.46, 0.34], [0.40, 0.26, 0.18], [0.86, 0.68, 0.56]])
_HAIRS = np.array([[0.08, 0.06, 0.05], [0.25, 0.15, 0.08], [0.55, 0.42, 0.22], [0.50, 0.50, 0.50]])
_RUBBER = (0.05, 0.05, 0.05)


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """(3,) a clothing colour: mostly muted."""
    grey = rng.uniform(0.05, 0.75)
    return np.clip(grey + rng.normal(0, 0.13, 3), 0.03, 0.9)


def _torso(hip: np.ndarray, neck: np.ndarray, depth: float, half_width: float, colour) -> Mesh:
    """An elliptic loft from ``hip`` (3,) to ``neck`` (3,), wide at the shoulders."""
    levels = np.array([0.0, 0.25, 0.5, 0.8, 0.93, 1.0])
    widths = half_width * np.array([0.86, 0.80, 0.86, 1.0, 0.82, 0.35])
    depths = depth * np.array([0.95, 0.90, 0.95, 1.0, 0.85, 0.45])
    axis = (neck - hip) / np.linalg.norm(neck - hip)
    forward = np.cross([0.0, 1.0, 0.0], axis)
    angle = np.arange(12) * (2 * np.pi / 12)
    centre = hip + levels[:, None] * (neck - hip)
    rings = (
        centre[:, None]
        + (depths[:, None] * np.cos(angle))[..., None] * forward
        + (widths[:, None] * np.sin(angle))[..., None] * np.array([0.0, 1.0, 0.0])
    )
    return loft(rings, Material.CLOTH, colour)


def _head(neck: np.ndarray, scale: float, skin, hair) -> list[Mesh]:
    """Neck, face and hair above ``neck`` (3,); ``scale`` is the body height over 1.73 m."""
    centre = neck + np.array([0.02, 0.0, 0.17]) * scale
    return [
        limb(neck - [0, 0, 0.03], neck + [0, 0, 0.10 * scale], 0.055 * scale, 0.05 * scale,
             Material.SKIN, skin),
        ellipsoid(centre, np.array([0.10, 0.078, 0.125]) * scale, Material.SKIN, skin, 5),
        ellipsoid(centre + np.array([-0.02, 0, 0.025]) * scale,
                  np.array([0.10, 0.085, 0.115]) * scale, Material.CLOTH, hair, 5),
    ]  # fmt: skip


def _direction(angle: float) -> np.ndarray:
    """(3,) pointing down, swung forward by ``angle`` radians."""
    return np.array([np.sin(angle), 0.0, -np.cos(angle)])


def _leg(hip, swing: float, knee: float, scale: float, colour, shoe) -> list[Mesh]:
    knee_at = hip + 0.43 * scale * _direction(swing)
    ankle = knee_at + 0.42 * scale * _direction(swing - knee)
    toe = ankle + np.array([0.13, 0.0, -0.03]) * scale
    return [
        limb(hip, knee_at, 0.085 * scale, 0.06 * scale, Material.CLOTH, colour),
        limb(knee_at, ankle, 0.06 * scale, 0.045 * scale, Material.CLOTH, colour),
        limb(ankle - [0.06 * scale, 0, 0.03 * scale], toe, 0.05 * scale, 0.045 * scale,
             Material.CLOTH, shoe, 6),
    ]  # fmt: skip


def _arm(shoulder, swing: float, elbow: float, scale: float, colour, skin) -> list[Mesh]:
    elbow_at = shoulder + 0.29 * scale * _direction(swing)
    hand = elbow_at + 0.25 * scale * _direction(swing + elbow)
    return [
        limb(shoulder, elbow_at, 0.052 * scale, 0.042 * scale, Material.CLOTH, colour),
        limb(elbow_at, hand, 0.042 * scale, 0.032 * scale, Material.CLOTH, colour),
        ellipsoid(hand, np.full(3, 0.045 * scale), Material.SKIN, skin, 3),
    ]


class Pedestrian:
    """A person on foot; `mesh` poses the body at a phase of the gait.

    Args:
        rng: Draws height, build, clothes and load.
        walking: Whether arms and legs swing.
    """

    def __init__(self, rng: np.random.Generator, walking: bool) -> None:
        height = rng.normal(1.74, 0.08) if rng.random() < 0.88 else rng.uniform(1.15, 1.5)
        self.scale = float(np.clip(height, 1.15, 1.95)) / 1.73
        self.build = rng.uniform(0.92, 1.18)
        self.swing = rng.uniform(0.32, 0.52) if walking else rng.uniform(0.0, 0.08)
        self.elbow = rng.uniform(0.2, 0.7)
        self.lean = rng.normal(0.04, 0.03)
        self.top, self.bottom, self.shoe, self.bag = (_cloth(rng) for _ in range(4))
        self.skin, self.hair = _SKINS[rng.integers(4)], _HAIRS[rng.integers(4)]
        self.backpack, self.coat, self.handbag = rng.random(3) < [0.25, 0.25, 0.2]

    def mesh(self, phase: float) -> Mesh:
        """The body at ``phase`` radians of the gait, facing x, bottom centre at the origin."""
        s, swing = self.scale, self.swing * np.sin(phase)
        hip = np.array([0.0, 0.0, 0.90 * s])
        neck = hip + 0.53 * s * np.array([np.sin(self.lean), 0.0, np.cos(self.lean)])
        half = 0.19 * s * self.build
        parts = [_torso(hip - [0, 0, 0.06 * s], neck, 0.115 * s * self.build, half, self.top)]
        parts += _head(neck, s, self.skin, self.hair)
        for side, angle in ((1, swing), (-1, -swing)):
            # The leg that swings back bends its knee.
            knee = (
                0.08 + max(0.0, -angle) * 0.9 + 0.25 * self.swing * abs(np.cos(phase)) * (side > 0)
            )
            parts += _leg(hip + [0, side * 0.09 * s, 0], angle, knee, s, self.bottom, self.shoe)
            shoulder = neck + np.array([0.0, side * (half + 0.025 * s), -0.07 * s])
            parts += _arm(shoulder, -0.9 * angle, self.elbow, s, self.top, self.skin)
        if self.backpack:
            size = np.array([0.16, 0.30, 0.44]) * s
            parts.append(
                box(size, neck + np.array([-0.19, 0, -0.24]) * s, Material.CLOTH, self.bag)
            )
        if self.coat:
            parts.append(limb(hip + [0, 0, 0.1 * s], hip - [0, 0, 0.40 * s], 0.16 * s, 0.21 * s,
                              Material.CLOTH, self.top, 12))  # fmt: skip
        if self.handbag:
            place = np.array([0.05, half + 0.10 * s, 0.72 * s])
            parts.append(box(np.array([0.30, 0.10, 0.26]) * s, place, Material.CLOTH, self.bag))
        return merge(parts).grounded()


class Cyclist:
    """A bicycle with its rider; `mesh` poses the pedals at a phase.

    Args:
        rng: Draws the bicycle's size, the rider's size, posture and clothes.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.scale = float(np.clip(rng.normal(1.0, 0.045), 0.88, 1.1))
        self.lean = rng.uniform(0.15, 0.75)
        self.radius = rng.uniform(0.33, 0.36)
        self.base = rng.uniform(1.0, 1.1)
        self.frame = np.clip(rng.uniform(0.05, 0.7) + rng.normal(0, 0.15, 3), 0.03, 0.9)
        self.top, self.bottom, self.shoe, self.bag = (_cloth(rng) for _ in range(4))
        self.skin, self.hair = _SKINS[rng.integers(4)], _HAIRS[rng.integers(4)]
        self.helmet, self.basket, self.backpack = rng.random(3) < [0.4, 0.3, 0.2]
        self._cycle: list[Mesh] | None = None

    def mesh(self, phase: float) -> Mesh:
        """Bicycle and rider at ``phase`` radians of the cranks, facing x, grounded."""
        if self._cycle is None:
            self._cycle = self._bicycle()  # has no part that turns
        return merge(self._cycle + self._rider(phase)).grounded()

    def _bicycle(self) -> list[Mesh]:
        r, b = self.radius, self.base
        rear, front = np.array([-b / 2, 0, r]), np.array([b / 2, 0, r])
        crank, saddle = np.array([-0.08, 0, 0.28]), np.array([-0.22, 0, 0.92])
        head = np.array([b / 2 - 0.17, 0, 0.85])
        bar = head + [0.02, 0, 0.17]
        tubes = [
            (rear, crank), (crank, saddle), (crank, head), (saddle - [-0.03, 0, 0.18], head),
            (rear, saddle - [-0.03, 0, 0.18]), (front, head), (head, bar),
            (bar - [0.05, 0.28, 0], bar + [0, 0, 0]), (bar, bar + [-0.05, 0.28, 0]),
        ]  # fmt: skip
        parts = [limb(p, q, 0.022, 0.022, Material.METAL, self.frame, 6) for p, q in tubes]
        for hub in (rear, front):
            parts.append(ring(hub, r, 0.045, Material.TYRE, _RUBBER))
            for angle in np.arange(6) * np.pi / 6:
                spoke = (r - 0.03) * np.array([np.cos(angle), 0, np.sin(angle)])
                parts.append(
                    limb(hub - spoke, hub + spoke, 0.004, 0.004, Material.METAL, (0.6, 0.6, 0.6), 3)
                )
        parts.append(box((0.26, 0.15, 0.06), saddle, Material.PLASTIC, _RUBBER))
        parts.append(
            box((0.05, 0.08, 0.08), (-b / 2 + 0.02, 0, 0.75), Material.LAMP, (0.6, 0.04, 0.03))
        )
        parts.append(
            box((0.34, 0.04, 0.02), (-b / 2 + 0.02, 0, 0.70), Material.METAL, (0.3, 0.3, 0.3))
        )
        if self.basket:
            parts.append(
                box((0.26, 0.34, 0.24), bar + [0.18, 0, -0.02], Material.METAL, (0.35, 0.3, 0.25))
            )
        return parts

    def _rider(self, phase: float) -> list[Mesh]:
        s = self.scale
        hip = np.array([-0.20, 0, 0.98])
        neck = hip + 0.52 * s * np.array([np.sin(self.lean), 0, np.cos(self.lean)])
        hair = self.bag if self.helmet else self.hair
        parts = [_torso(hip - [0, 0, 0.04], neck, 0.12 * s, 0.19 * s, self.top)]
        parts += _head(neck, s * (1.08 if self.helmet else 1.0), self.skin, hair)
        for side in (-1, 1):
            pedal = np.array([-0.08, side * 0.13, 0.28]) + 0.17 * np.array(
                [np.cos(phase + (side > 0) * np.pi), 0, np.sin(phase + (side > 0) * np.pi)]
            )
            joint = hip + [0, side * 0.09, 0]
            knee = _elbow(joint, pedal + [0, 0, 0.06], 0.44 * s, 0.44 * s, np.array([1.0, 0, 0.4]))
            parts.append(limb(joint, knee, 0.085 * s, 0.06 * s, Material.CLOTH, self.bottom))
            parts.append(limb(knee, pedal, 0.06 * s, 0.045 * s, Material.CLOTH, self.bottom))
            parts.append(limb(pedal - [0.09, 0, 0], pedal + [0.14, 0, 0], 0.05, 0.04,
                              Material.CLOTH, self.shoe, 6))  # fmt: skip
            shoulder = neck + np.array([0, side * 0.21, -0.07]) * s
            grip = np.array([self.base / 2 - 0.20, side * 0.27, 1.03])
            elbow = _elbow(shoulder, grip, 0.31 * s, 0.31 * s, np.array([-0.3, side * 0.5, -1.0]))
            parts.append(limb(shoulder, elbow, 0.05 * s, 0.042 * s, Material.CLOTH, self.top))
            parts.append(limb(elbow, grip, 0.042 * s, 0.035 * s, Material.SKIN, self.skin))
        if self.backpack:
            place = hip + 0.6 * (neck - hip) + np.array([-0.20, 0, 0.08])
            parts.append(box((0.18, 0.30, 0.40), place, Material.CLOTH, self.bag))
        return parts


def _elbow(start, end, upper: float, lower: float, towards: np.ndarray) -> np.ndarray:
    """The joint (3,) between two bones of given lengths, bent towards a direction.

    Where the bones are too short to reach, they are stretched to meet halfway.
    """
    span = end - start
    distance = np.linalg.norm(span)
    axis = span / distance
    along = (distance**2 + upper**2 - lower**2) / (2 * distance)
    offset = np.sqrt(max(upper**2 - along**2, 0.0))
    across = towards - axis * (towards @ axis)
    return start + min(along, distance) * axis + offset * across / np.linalg.norm(across)
