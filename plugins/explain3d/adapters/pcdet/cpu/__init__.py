"""OpenPCDet without a GPU: stand-ins for what it compiles, while a context is open."""

from .errors import CpuModeError, MissingPackageError
from .mode import cpu_mode

__all__ = ['CpuModeError', 'MissingPackageError', 'cpu_mode']
