"""Errors of the CPU mode."""

from __future__ import annotations

from explain3d.core.errors import Explain3DError


class CpuModeError(Explain3DError, RuntimeError):
    """Something that the CPU mode does not offer, or a stand-in used after the mode has ended."""


class MissingPackageError(Explain3DError, ImportError):
    """A Python package that OpenPCDet needs and that is not installed."""
