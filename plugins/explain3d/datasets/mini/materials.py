"""Surface materials: how each reflects the laser and light."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Material(IntEnum):
    """Index into `REFLECTIVITY`, `DIFFUSE` and `LIDAR_LOSS`."""

    ASPHALT = 0
    MARKING = 1
    PAVEMENT = 2
    GRASS = 3
    PAINT = 4
    GLASS = 5
    TYRE = 6
    METAL = 7
    PLATE = 8
    CLOTH = 9
    SKIN = 10
    WOOD = 11
    LEAF = 12
    WALL = 13
    PLASTIC = 14
    LAMP = 15


# Share of the laser's light returned at normal incidence, on KITTI's 0..1 intensity scale.
REFLECTIVITY = np.array(
    [0.36, 0.62, 0.38, 0.40, 0.40, 0.12, 0.10, 0.35, 0.99, 0.44, 0.46, 0.38, 0.44, 0.42, 0.34, 0.75]
)

# Share of that light which does not fade with incidence: rough surfaces scatter, paint and glass
# mirror the beam away.
DIFFUSE = np.array(
    [0.70, 0.80, 0.60, 0.65, 0.10, 0.05, 0.40, 0.20, 0.90, 0.60, 0.60, 0.60, 0.60, 0.55, 0.35, 0.50]
)

# Probability that a ray gives no return at close range and normal incidence: glass lets most
# rays through, foliage scatters some.
LIDAR_LOSS = np.array(
    [0.02, 0.01, 0.02, 0.03, 0.03, 0.80, 0.10, 0.04, 0.00, 0.02, 0.02, 0.02, 0.10, 0.01, 0.03, 0.02]
)
