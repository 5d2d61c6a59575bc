"""SimpleBEV (Harley et al., ICRA 2023) as registered parts of MMDetection3D."""

from .decoder import BEVUNet
from .detector import SimpleBEV
from .encoder import ResNetImageEncoder
from .fuser import CameraMean, ConcatConvFuser
from .grid import VoxelGrid
from .heads import BEVCenterHead, BEVFeatureHead, BEVOffsetHead, BEVSegmentationHead
from .lift import BilinearLift
from .preprocessor import BEVDataPreprocessor
from .rasterize import PointRasterizer

__all__ = [
    'BEVCenterHead',
    'BEVDataPreprocessor',
    'BEVFeatureHead',
    'BEVOffsetHead',
    'BEVSegmentationHead',
    'BEVUNet',
    'BilinearLift',
    'CameraMean',
    'ConcatConvFuser',
    'PointRasterizer',
    'ResNetImageEncoder',
    'SimpleBEV',
    'VoxelGrid',
]
