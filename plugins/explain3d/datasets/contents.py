"""Whether files that were made are there as they were made: counts, sizes and digests."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core import results_atomic
from ..core.errors import InputError
from ..core.results_atomic import atomic_write, remove_stale

#: Folder of the records of a mini data set, one a frame, scene or segment.
FOLDER = 'mini_contents'

Contents = dict[str, list]

_recording: contextvars.ContextVar[list[Path] | None] = contextvars.ContextVar(
    'recording', default=None
)


def digest_of(path: Path) -> list:
    """Returns size and digest of a file; number of files and their bytes of a folder.

    Raises:
        OSError: If it cannot be read.
    """
    if path.is_dir():
        sizes = [entry.stat().st_size for entry in os.scandir(path) if entry.is_file()]
        return [len(sizes), sum(sizes)]
    content = path.read_bytes()
    return [len(content), hashlib.blake2b(content, digest_size=8).hexdigest()]


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file, see ``core.results_atomic.replace_file``; ``recorded`` notes it."""
    results_atomic.replace_file(path, write)
    paths = _recording.get()
    if paths is not None:
        paths.append(Path(path))


@contextlib.contextmanager
def recorded(root: Path, unit: str) -> Iterator[None]:
    """Keeps a record of the files that are written inside, once all are there.

    Args:
        root: Folder of the data set.
        unit: Name of the frame, scene or segment that they make.
    """
    paths: list[Path] = []
    token = _recording.set(paths)
    try:
        yield
    finally:
        _recording.reset(token)
    found = {path.relative_to(root).as_posix(): digest_of(path) for path in paths}
    with atomic_write(root / FOLDER / f'{unit}.json', f'the record of {unit}') as file:
        file.write(json.dumps(found, indent=0).encode())


def missing_units(root: Path, units: Iterable[str], report: Callable[[str], None]) -> list[str]:
    """Returns which parts of a data set have to be made, and removes stale temporaries.

    Args:
        root: Folder of the data set.
        units: Names of the frames, scenes or segments.
        report: Gets a line if there are some whose files are not as they were made.
    """
    for folder in [root, *(path for path in root.rglob('*') if path.is_dir())]:
        remove_stale(folder)
    faults = {unit: _fault(root, unit) for unit in units}
    missing = [unit for unit, fault in faults.items() if fault is not None]
    damaged = [fault for fault in faults.values() if fault]
    if damaged:
        report(
            f'{root}: {len(damaged)} of {len(faults)} parts are not as they were made '
            f'({damaged[0]}): they are made again'
        )
    return missing


def _fault(root: Path, unit: str) -> str | None:
    """What is wrong with a part: None if nothing, empty if it was not made yet."""
    record = root / FOLDER / f'{unit}.json'
    try:
        found = json.loads(record.read_text('utf-8'))
        return next((f for f in changed(root, found)), None) if found else f'{record} is empty'
    except FileNotFoundError:
        return ''
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f'{record} is damaged: {error}'


def changed(root: Path, contents: Mapping[str, list]) -> Iterator[str]:
    """Yields a line for each file or folder that is not there, or not as it was made.

    Args:
        root: Folder of the data set.
        contents: Size and digest by path, relative to it.
    """
    for name, expected in contents.items():
        try:
            if digest_of(root / name) != expected:
                yield f'{root / name} has another content'
        except OSError as error:
            yield f'{root / name}: {error.strerror}'


def read_json(path: Path, what: str, remedy: str) -> Any:
    """Returns what a JSON file holds.

    Args:
        path: The file.
        what: What it is, for the message.
        remedy: What to do if it is damaged, a sentence.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return json.loads(path.read_text('utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'{path} is damaged ({error}): expected {what}. {remedy}') from error


def is_current(stamp: Path, wanted: Mapping[str, Any], report: Callable[[str], None]) -> bool:
    """Tells whether what a stamp stands for was made as wanted, and is there as it was made.

    Args:
        stamp: The file, which ``write_stamp`` wrote.
        wanted: What decides the files, as JSON gives it back.
        report: Gets a line if something that was made has changed.
    """
    try:
        found = json.loads(stamp.read_text('utf-8'))
        made = found.pop('made')
        if found != wanted:
            return False
        faults = list(changed(stamp.parent, made))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        faults = [f'{stamp} is damaged or of an earlier version: {error}']
    if faults:
        report(f'{faults[0]}: made again')
    return not faults


def write_stamp(stamp: Path, wanted: Mapping[str, Any], made: Iterable[Path]) -> None:
    """Writes down what was made, and how.

    Args:
        stamp: The file.
        wanted: As for ``is_current``.
        made: The files and folders, below the stamp's folder.

    Raises:
        ResultFileError: If it cannot be written.
    """
    contents = {path.relative_to(stamp.parent).as_posix(): digest_of(path) for path in made}
    with atomic_write(stamp, 'the stamp of what was made') as file:
        file.write((json.dumps({**wanted, 'made': contents}) + '\n').encode())
