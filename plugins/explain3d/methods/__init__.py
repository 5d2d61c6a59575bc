"""Explanation methods, one file each. Importing this package registers them in ``EXPLAINERS``."""

from .base import EXPLAINERS, Explainer
from .channel_sum import ChannelSum
from .contribution import Contribution
from .ffam import FFAM
from .gradcam import GradCAM
from .gradient_times_input import GradientTimesInput
from .integrated_gradients import IntegratedGradients
from .object_gradient import ObjectGradient
from .occam import OccAM
from .odam import ODAM
from .pyramid_ffam import PyramidFFAM
from .random_map import RandomMap

__all__ = [
    'EXPLAINERS',
    'FFAM',
    'ODAM',
    'ChannelSum',
    'Contribution',
    'Explainer',
    'GradCAM',
    'GradientTimesInput',
    'IntegratedGradients',
    'ObjectGradient',
    'OccAM',
    'PyramidFFAM',
    'RandomMap',
]
