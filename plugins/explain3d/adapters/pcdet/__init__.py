"""The OpenPCDet adapter: attaches to a stock checkout of OpenPCDet and its test runner.

``python -m explain3d.adapters.pcdet PATH/TO/OpenPCDet/tools/test.py --cfg_file CONFIG --ckpt CKPT``
runs OpenPCDet's own test with an explainer attached. Importing this package imports no ``pcdet``.
"""

from ..common.layers import LayerInfo
from .api import explain
from .layers import layers
from .lmd import sensor_report, sensor_shares
from .tracer import Tracer

__all__ = ['LayerInfo', 'Tracer', 'explain', 'layers', 'sensor_report', 'sensor_shares']
