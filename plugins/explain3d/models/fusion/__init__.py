"""A small detector that fuses cameras and LiDAR in the bird's eye, after BEVFusion."""

from .detector import BEVFusionDetector
from .fuser import ConvFuser
from .image_branch import ImageToBEV

__all__ = ['BEVFusionDetector', 'ConvFuser', 'ImageToBEV']
