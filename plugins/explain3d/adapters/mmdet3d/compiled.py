"""Keeps on disk what numba compiles, so that the next process need not compile it again."""

from __future__ import annotations

from types import ModuleType

from numba.core.dispatcher import Dispatcher


def keep_compiled(module: ModuleType) -> None:
    """Lets the functions that ``module`` compiles with numba take their code from numba's cache.

    KITTI's evaluation compiles for about ten seconds in every process; kept, it loads in one.
    The cache is numba's own: beside the module, in the user's folder, or in ``NUMBA_CACHE_DIR``,
    and made anew for another source, machine or version. Without a place for it nothing is kept.
    """
    for function in vars(module).values():
        # What has been compiled already stays; a cache that the module asked for, too.
        if isinstance(function, Dispatcher) and not function.signatures:
            try:
                function.enable_caching()
            except RuntimeError:  # No folder can be written to.
                return
