"""LMD in OpenPCDet: which sensor made the boxes of its BevFusion."""

from .api import sensor_shares
from .report import sensor_report
from .share_decomposer import ShareDecomposer

__all__ = ['ShareDecomposer', 'sensor_report', 'sensor_shares']
