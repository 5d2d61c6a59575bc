"""Files that are either complete or not there, also when a run is killed or the disk is full."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import ResultFileError

_TEMPORARY = re.compile(r'\.explain3d-(?P<host>[^-]+)-(?P<pid>\d+)-[0-9a-f]{8}\.tmp')

#: A file that was written to this recently is left alone, whoever seems to own it.
GRACE_SECONDS = 60.0
#: A file nobody has written to for this long is stale, whoever owns it.
ABANDONED_SECONDS = 24 * 3600.0


def _host() -> str:
    return re.sub(r'[^A-Za-z0-9.]', '_', socket.gethostname())[:64] or 'unknown'


def _temporary_name() -> str:
    return f'.explain3d-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp'


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, what: str) -> Iterator[BinaryIO]:
    """Opens a temporary file beside ``path`` that takes its name once it is complete.

    The data are on the disk before the name changes, so that neither a killed process nor a power
    cut leaves half a file under ``path``. Missing parent folders are made.

    Args:
        path: The final name; a file that is there is replaced.
        what: What is being written, for messages ("the explanation of frame 000008").

    Yields:
        The temporary file, open for writing bytes.

    Raises:
        ResultFileError: If the system refuses (no space, no permission); the temporary file is
            gone then and ``path`` is as it was.
    """
    with _beside(path, what) as temporary, open(temporary, 'xb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(Path(path).parent)


def replace_file(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Has a file written under a temporary name, which it takes once it is complete.

    For writers that want a name, and for many files: unlike ``atomic_write`` it does not wait for
    the disk, so that a power cut may leave an empty file.

    Args:
        path: The final name; a file that is there is replaced.
        write: Gets the temporary name, which has no suffix of the format.

    Raises:
        ResultFileError: As ``atomic_write``.
    """
    with _beside(path, f'the file {Path(path).name}') as temporary:
        write(temporary)


#: Folders that this process has cleaned.
_cleaned: set[Path] = set()


@contextlib.contextmanager
def _beside(path: str | os.PathLike, what: str) -> Iterator[Path]:
    """Yields a temporary name beside ``path``, which takes its place in the end."""
    path = Path(path)
    temporary = path.parent / _temporary_name()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _cleaned:  # Whoever writes to a folder removes what is stale there.
            _cleaned.add(path.parent)
            remove_stale(path.parent)
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        failure = ResultFileError(
            f'Could not write {what} to {path}: {error.strerror or error}. Expected a writable '
            'folder with free space: make room or choose another folder. The results written '
            'before are intact, and a resumed run goes on after them.'
        )
        failure.errno = error.errno
        raise failure from error


def create(path: str | os.PathLike, what: str, content: bytes) -> bool:
    """Makes a file with its content at once, unless there is one; of several processes one does.

    Args:
        path: Its name, in a folder that exists.
        what: What is being written, for messages.
        content: What is in it.

    Returns:
        Whether this call made it. False also on file systems without hard links, where the one
        that comes last of several at the same moment makes it: what is there has to be read.

    Raises:
        ResultFileError: If the system refuses.
    """
    path = Path(path)
    temporary = path.parent / _temporary_name()
    try:
        with open(temporary, 'xb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            if not path.exists():
                os.replace(temporary, path)
            return False
        return True
    except OSError as error:
        raise ResultFileError(
            f'Could not write {what} to {path}: {error.strerror or error}. Expected a writable '
            'folder with free space: make room or choose another folder.'
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def owner() -> tuple[str, int]:
    """Returns host and number of this process."""
    return _host(), os.getpid()


def is_running(host: object, process: object) -> bool | None:
    """Whether another process runs; None if that cannot be told, as it is on another host."""
    if host != _host():
        return None
    return isinstance(process, int) and process != os.getpid() and _is_alive(process)


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself durable; some file systems cannot, which loses nothing else."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_alive(pid: int) -> bool:
    if os.name != 'posix':
        return True  # Elsewhere os.kill(pid, 0) is no harmless question.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # Somebody else's process, or not a pid of this system: do not judge.
    return True


def _is_stale(name: str, age: float) -> bool:
    match = _TEMPORARY.fullmatch(name)
    if match is None or age < GRACE_SECONDS:
        return False
    if age > ABANDONED_SECONDS:
        return True
    # A pid says nothing about another host's processes: only the age counts there.
    return match['host'] == _host() and not _is_alive(int(match['pid']))


def remove_stale(folder: str | os.PathLike) -> list[Path]:
    """Removes what killed runs left behind in ``folder``.

    A temporary file goes if its process on this host is dead and nobody has written to it for a
    minute, or if nobody has for a day. Files of other running processes stay.

    Args:
        folder: Where to look; not searched recursively, need not exist.

    Returns:
        The files that were removed.
    """
    removed = []
    for path in Path(folder).glob('.explain3d-*.tmp'):
        with contextlib.suppress(OSError):  # Another rank may be cleaning too.
            if _is_stale(path.name, time.time() - path.stat().st_mtime):
                path.unlink()
                removed.append(path)
    return removed
