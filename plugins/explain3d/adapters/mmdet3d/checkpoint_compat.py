"""Loading MMEngine's own checkpoints with torch 2.6 and later."""

from __future__ import annotations

import importlib

import numpy as np
import torch


def allow_engine_checkpoints() -> None:
    """Lets ``torch.load(weights_only=True)`` read what MMEngine puts into a checkpoint.

    From torch 2.6 on that is ``torch.load``'s default, and MMEngine 0.10 does not change it: a
    checkpoint of its own, which holds the message hub's history beside the weights, can neither be
    resumed from nor tested. The types named here are containers of numbers and text. Anything else
    is still refused, and what ``getattr`` returns is never called: torch only calls what is named
    here. Calling it again changes nothing.
    """
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    from mmengine.logging.history_buffer import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    numpy_2 = int(np.__version__.split('.')[0]) >= 2
    core = importlib.import_module('numpy._core' if numpy_2 else 'numpy.core')
    codes = np.typecodes['All'].replace('O', '')
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            OneCycleParamScheduler,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(code)) for code in codes},
            core.multiarray.scalar,
            core.multiarray._reconstruct,
            # HistoryBuffer pickles its statistics as attributes of its class.
            getattr,
        ]
    )
