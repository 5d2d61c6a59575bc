"""MMDetection3D's rotated KITTI overlap without a GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ..common.rotate_iou import rotate_iou_eval

# eval.py imports its overlap from here whenever it needs it. The module itself compiles a CUDA
# kernel when it is imported, so without a GPU it cannot even be loaded to be patched.
_STOCK_MODULE = 'mmdet3d.evaluation.functional.kitti_utils.rotate_iou'


@contextmanager
def cpu_rotate_iou() -> Iterator[None]:
    """Lets MMDetection3D's KITTI evaluation use ``rotate_iou_eval`` while the context is open.

    The stock module, loaded or not, is as it was when the context ends, also by an exception.
    """
    stand_in = ModuleType(_STOCK_MODULE)
    stand_in.rotate_iou_gpu_eval = rotate_iou_eval
    stock = sys.modules.get(_STOCK_MODULE)
    sys.modules[_STOCK_MODULE] = stand_in
    try:
        yield
    finally:
        if stock is None:
            del sys.modules[_STOCK_MODULE]
        else:
            sys.modules[_STOCK_MODULE] = stock
