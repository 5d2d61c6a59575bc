"""The rules of LMD, one module per family of operations; importing this registers them."""

from . import (  # noqa: F401
    activations,
    attention,
    bev_pool,
    deformable,
    exports,
    indexing,
    linear,
    modules,
    norms,
    pooling,
    products,
    reductions,
    scatter,
    sparse,
    sums,
    views,
)
