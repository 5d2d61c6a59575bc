"""The figures of samples that are done, on the disk: a separation test that was killed goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger

from ....core.errors import ResultFileError
from ....core.results import atomic_write, fingerprint
from ....core.results_archive import Arrays, open_archive, refuse_folder, write_archive
from ....core.results_atomic import remove_stale
from ....core.results_check import ArrayCheck, seal, unseal
from ....metrics.moments import Moments
from ...common.recorder import require_writable

_FIELDS = ('count', 'excluded', 'mean', 'squares')


class SeparationState:
    """One file a sample in a folder; several processes may write different samples to it.

    A file holds the sample's ``Moments`` as they are, to the last bit, with checksums and a digest
    of all that decides them. What is damaged, or was made with other settings or weights, counts
    as missing.

    Args:
        folder: Where the files are; made at the first ``save``.
        settings: What decides the figures of a sample, as plain data; digests stand for weights.
        columns: Names of the C figures.
    """

    def __init__(
        self, folder: str | os.PathLike, settings: Mapping[str, Any], columns: Sequence[str]
    ) -> None:
        self.folder = Path(folder)
        self.columns = len(columns)
        self.key = fingerprint({'settings': settings, 'columns': list(columns)})

    def path_of(self, index: int) -> Path:
        """Returns the file of a sample, whether it is there or not."""
        return self.folder / f'{index:06d}.npz'

    def load(self, index: int) -> Moments | None:
        """Returns the figures of a sample, or None if they have to be computed.

        Raises:
            ResultFileError: If a folder has the file's name.
        """
        path = self.path_of(index)
        refuse_folder(path, 'file of figures')
        try:
            with open_archive(
                path, 'file of figures', f'Sample {index} is computed again.'
            ) as file:
                arrays = file.read_all()
                meta = unseal(arrays)
                _check(arrays, self.columns)
        except FileNotFoundError:
            return None
        except ResultFileError as error:
            MMLogger.get_current_instance().warning(str(error))
            return None
        if meta.get('key') != self.key:
            MMLogger.get_current_instance().warning(
                f'{path} was made with other settings or weights: sample {index} is computed again.'
            )
            return None
        return Moments(*(arrays[name] for name in _FIELDS))

    def save(self, index: int, moments: Moments) -> None:
        """Writes the figures of a sample, atomically.

        Raises:
            ResultFileError: If the file cannot be written; those before are intact.
        """
        arrays = {name: getattr(moments, name) for name in _FIELDS}
        with atomic_write(self.path_of(index), f'the figures of sample {index}') as file:
            write_archive(file, seal({'key': self.key}, arrays))

    def prepare(self) -> None:
        """Removes what killed runs left behind, and finds out whether files can be written.

        Raises:
            ResultFileError: If they cannot.
        """
        require_writable(self.folder)
        remove_stale(self.folder)


def _check(arrays: Arrays, columns: int) -> None:
    """Raises ResultFileError unless the arrays are moments of so many figures."""
    check = ArrayCheck(arrays, C=columns)
    for name in ('count', 'excluded'):
        check(name, ('C',), 'i', low=0)
    check('mean', ('C',))
    check('squares', ('C',), low=0)
    check.only(_FIELDS)
