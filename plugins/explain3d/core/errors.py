"""Errors of explain3d: each message says what was expected, what came, and what to do."""

import pickle


class Explain3DError(Exception):
    """Base class of every error that explain3d raises on purpose."""


class UnknownNameError(Explain3DError, KeyError):
    """A name (method, layer, target, metric) that is not known; the message lists the known."""

    def __str__(self) -> str:
        # KeyError would show the message as a quoted repr.
        return self.args[0] if self.args else ''


class InputError(Explain3DError, ValueError):
    """Input that cannot be explained: not finite, of a wrong shape, empty where it must not be."""


class NotApplicableError(Explain3DError, TypeError):
    """A method that does not apply to this detector or layer."""


class CheckpointMismatchError(Explain3DError, ValueError):
    """A checkpoint whose parameters are not those of the configured model."""


class UnsafeCheckpointError(Explain3DError, pickle.UnpicklingError):
    """A checkpoint that cannot be read without running code that it holds, or a damaged one."""


class ResultFileError(Explain3DError, OSError):
    """A result file that is damaged, truncated, or of another format version."""


class UnknownOperationError(Explain3DError, NotImplementedError):
    """An operation for which LMD has no rule; the message names it and tells the remedy."""
