"""Records of a benchmark on the disk: one file for each frame and method, whatever else is asked.

A method that is added later, and one that failed, are the only ones that run again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.errors import ResultFileError
from ...core.results_archive import refuse_folder
from ...core.results_atomic import atomic_write, remove_stale
from ...metrics.saliency import ObjectRecord
from ...metrics.saliency_table import load_records, save_records

_LOG = logging.getLogger('explain3d')


@dataclass(frozen=True)
class Collected:
    """What a run has measured.

    Attributes:
        records: Of the frames and methods that make a table together.
        notes: What is missing and why, a line each; empty after a run without failures.
    """

    records: list[ObjectRecord]
    notes: list[str]


class RecordStore:
    """The files of a benchmark.

    Args:
        folder: Where they are; need not exist.
        stamps: For each method's name, what tells its results from others': a digest of its
            settings, the detector, the data and the protocol. Names are not part of it.
    """

    def __init__(self, folder: str | os.PathLike, stamps: Mapping[str, str]) -> None:
        self.folder, self.stamps = Path(folder), dict(stamps)
        remove_stale(self.folder)

    def path(self, method: str, index: int) -> Path:
        """Returns the file of a method's records of a frame."""
        return self.folder / f'{self.stamps[method][:16]}_{index:06d}.json'

    def load(self, method: str, index: int) -> list[ObjectRecord] | None:
        """Returns the records, or None if they are not there; a damaged file is removed.

        Raises:
            ResultFileError: If a folder has the file's name.
        """
        path = self.path(method, index)
        try:
            return [replace(record, method=method) for record in load_records(path)]
        except FileNotFoundError:
            return None
        except ResultFileError as error:
            refuse_folder(path, 'file of records')
            _LOG.warning('%s It is measured again.', error)
            path.unlink(missing_ok=True)
            return None

    def missing(self, index: int) -> list[str]:
        """Returns the methods that have not been measured on a frame."""
        return [method for method in self.stamps if self.load(method, index) is None]

    def save(self, method: str, index: int, records: Sequence[ObjectRecord]) -> None:
        """Writes a method's records of a frame, which may be none.

        Raises:
            ResultFileError: If the system refuses, as on a full disk.
        """
        save_records(records, self.path(method, index))
        self._failure(method, index).unlink(missing_ok=True)

    def fail(self, method: str, index: int, error: Exception) -> None:
        """Writes down why a method could not be measured on a frame."""
        text = f'{type(error).__name__}: {error}'.splitlines()[0]
        with atomic_write(self._failure(method, index), f'the failure of {method}') as file:
            file.write(text.encode())

    def reason(self, method: str, index: int) -> str:
        """Returns why a method has no records of a frame."""
        path = self._failure(method, index)
        return path.read_text('utf-8') if path.exists() else 'it was not run'

    def collect(self, indices: Sequence[int]) -> Collected:
        """Returns what makes a table: methods with records, frames that all of these have.

        A method that failed on every frame is left out; a frame on which another one failed is
        left out for all, as methods are compared on the same objects.
        """
        found = {m: {i: self.load(m, i) for i in indices} for m in self.stamps}
        failed = {m: [i for i in indices if rows[i] is None] for m, rows in found.items()}
        kept = [m for m in found if len(failed[m]) < len(indices)]
        common = [i for i in indices if all(found[m][i] is not None for m in kept)]
        notes = [
            f'{m}: failed on {len(some)} of {len(indices)} frames, as on number {some[0]}: '
            f'{self.reason(m, some[0])}'
            for m, some in failed.items()
            if some
        ]
        if kept and len(common) < len(indices):
            notes.append(
                f'{len(indices) - len(common)} frames are left out for all methods: expected each '
                'frame to be measured with all of them.'
            )
        return Collected([r for i in common for m in kept for r in found[m][i]], notes)

    def _failure(self, method: str, index: int) -> Path:
        return self.path(method, index).with_suffix('.failed')
