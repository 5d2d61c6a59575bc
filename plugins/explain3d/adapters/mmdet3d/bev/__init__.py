"""Multi-sensor bird's-eye-view segmentation on nuScenes: what MMDetection3D lacks.

Importing this package registers its transforms, data sets and the evaluator under ``explain3d``.
"""

from .cameras import LoadSurroundCameras, ResizeCropCameras
from .datasets import NuScenesBEVDataset, NuScenesKeyframes
from .geometry import BEVGrid
from .lidar import LoadLidarSweeps
from .lidar_frame import CamerasToLidar
from .metric import BEVSegMetric
from .radar import LoadRadarArray, LoadRadarSweeps
from .reference import ToReferenceFrame
from .transforms import BlankSensor, PackBEVInputs, VehicleBEVMaps

__all__ = [
    'BEVGrid',
    'BEVSegMetric',
    'BlankSensor',
    'CamerasToLidar',
    'LoadLidarSweeps',
    'LoadRadarArray',
    'LoadRadarSweeps',
    'LoadSurroundCameras',
    'NuScenesBEVDataset',
    'NuScenesKeyframes',
    'PackBEVInputs',
    'ResizeCropCameras',
    'ToReferenceFrame',
    'VehicleBEVMaps',
]
