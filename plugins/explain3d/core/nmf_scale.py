"""The scale at which features are factorised: squares of 1e30 or 1e-30 are not numbers in float32.

A scale is an even power of two: dividing by it, and multiplying factors by its root, is exact, so
that the factors are those of the features themselves wherever these can be computed with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

#: Features whose largest is between 2 to the power of minus this and of this are left as they are.
HEADROOM = 24
#: Powers of two below the dtype's range that are left for weights larger than their scale.
LEFT = 8


@dataclass(frozen=True)
class Scale:
    """The number 2 to the power of ``exponent``."""

    exponent: int

    def multiply(self, values: Tensor) -> Tensor:
        """Returns the values times this scale; the values themselves where it is 1."""
        if not self.exponent:
            return values
        half = self.exponent // 2  # In two steps: the scale may be out of the dtype's range.
        return values * 2.0**half * 2.0 ** (self.exponent - half)

    def divide(self, values: Tensor) -> Tensor:
        """Returns the values divided by this scale."""
        return Scale(-self.exponent).multiply(values)

    def root(self) -> Scale:
        """Returns the square root of an even power."""
        return Scale(self.exponent // 2)

    def over(self, other: Scale) -> Scale:
        """Returns this scale divided by another."""
        return Scale(self.exponent - other.exponent)

    def of_objective(self, value: float, degree: int) -> float:
        """Returns an objective that grows with this power of the features; infinity beyond it."""
        try:
            return math.ldexp(value, self.exponent * degree)
        except OverflowError:
            return math.inf


def scale_of(features: Tensor) -> Scale:
    """Returns the scale of features >= 0, not all zero; 1 where their squares can be summed."""
    exponent = math.frexp(float(features.amax()))[1]
    return Scale(0 if abs(exponent) <= HEADROOM else exponent - exponent % 2)
