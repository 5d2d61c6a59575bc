"""Explanations on disk; docs/results.md describes the file format.

``save`` and ``load`` for one file, ``ResultStore`` for a folder with one file a frame,
``AsyncWriter`` to write in the background, ``summarize`` and ``format_table`` to look at them.
"""

from .results_atomic import atomic_write
from .results_codec import FORMAT_VERSION
from .results_file import is_complete, load, load_metadata, save
from .results_settings import SettingsMismatchError, fingerprint, plain
from .results_store import ResultStore, file_stem
from .results_summary import format_table, summarize
from .results_writer import AsyncWriter

__all__ = [
    'FORMAT_VERSION',
    'AsyncWriter',
    'ResultStore',
    'SettingsMismatchError',
    'atomic_write',
    'file_stem',
    'fingerprint',
    'format_table',
    'is_complete',
    'load',
    'load_metadata',
    'plain',
    'save',
    'summarize',
]
