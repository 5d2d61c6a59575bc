"""A folder of results belongs to one run, and each name in it to one frame."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import distributed

from ...core.errors import InputError, ResultFileError
from ...core.results import SettingsMismatchError, atomic_write, load_metadata, plain
from ...core.results_atomic import create, is_running, owner
from ...core.results_settings import differences

MANIFEST = 'run.json'
_FORMAT = 'explain3d.run'
#: A run of another machine that has no results after so long is taken for dead.
_ABANDONED_SECONDS = 3600.0
#: Differences that a message shows at most.
_SHOWN = 6
#: Characters of one of them.
_LONG = 160


def claim_folder(
    folder: str | os.PathLike,
    settings: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
    remedy: str = 'outputs.dir or results.dir, --out-dir of the tools',
) -> None:
    """Makes a folder that of one run, or finds that it is; processes of one run share it.

    ``run.json`` in the folder says whose it is: the settings, a digest of the weights among them,
    and the kind of data. Of several processes one makes it, atomically. A folder whose run has
    left no results is free again. Folders of older versions, which have no such file, are known
    by the settings in their result files.

    Args:
        folder: It exists.
        settings: What decides the results, as plain data.
        data: What kind of data the frames are of, as plain data; what is not known is left out.
        remedy: How another folder is chosen, for the message.

    Raises:
        SettingsMismatchError: If the folder holds results of another run, or another run is at
            work in it. The message lists what differs.
        ResultFileError: If the file cannot be written.
        InputError: If the settings are not plain data.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    wanted = {'settings': plain(settings), 'data': plain(data or {}, 'data')}
    host, process = owner()
    manifest = {'format': _FORMAT, 'version': 1, **wanted, 'host': host, 'process': process}
    content = json.dumps(manifest, indent=1).encode()
    for _ in range(5):  # Another process may take the file away or make it in between.
        found = _read(path)
        if found is None:
            _check(folder, _of_results(folder), wanted, remedy)
            if create(path, 'the manifest of the run', content):
                return
            continue
        ours = (found.get('host'), found.get('process')) == (host, process)
        same = ours and not _differing(found, wanted)
        if same or _has_results(folder) or _at_work(found, path):
            _check(folder, found, wanted, remedy)
            return
        # Nobody's any more: it says from now on that this process is at work.
        with atomic_write(path, 'the manifest of the run') as file:
            file.write(content)
    raise ResultFileError(
        f'{path} is made and removed by other processes all the time: expected a folder that one '
        f'run writes to. Choose another one ({remedy}).'
    )


class FrameClaims:
    """Which frame has which name in a run, over all of its processes.

    Args:
        folder: Where frames are written; processes share their claims by it. None: those of this
            process alone are compared.
    """

    _runs: dict[str, int] = {}

    def __init__(self, folder: str | os.PathLike | None = None) -> None:
        self._mine: dict[str, str] = {}
        self._store, self._prefix = None, ''
        if folder is not None and (store := _shared_store()) is not None:
            # Runs one after the other in the same processes are told apart by their number.
            key = os.path.abspath(folder)
            number = self._runs[key] = self._runs.get(key, 0) + 1
            self._store, self._prefix = store, f'explain3d/{number}/{key}/'

    def claim(self, name: str, identity: str) -> str:
        """Takes a name for a frame, and returns the identity of the frame that has it.

        Args:
            name: The frame's name.
            identity: What tells the frame from others, such as its file.
        """
        if name not in self._mine:
            self._mine[name] = self._first(name, identity)
        return self._mine[name]

    def _first(self, name: str, identity: str) -> str:
        if self._store is None:
            return identity
        return self._store.compare_set(self._prefix + name, '', identity).decode()


def same_name(name: str, first: str, second: str, remedy: str) -> InputError:
    """Returns the error of two frames of one name.

    Args:
        name: The name.
        first: The frame that has it.
        second: The frame that would have it, too.
        remedy: What to do.
    """
    return InputError(
        f'Two frames are called {name!r}: {first} and {second}. Expected a name for each: {remedy}'
    )


def _shared_store() -> Any:
    """The key-value store of a distributed run, None without one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    if distributed.get_world_size() == 1:
        return None
    get = getattr(distributed.distributed_c10d, '_get_default_store', None)
    return None if get is None else get()


def _read(path: Path) -> dict[str, Any] | None:
    """Returns a manifest; None if there is none, or a damaged one, which is removed."""
    try:
        found = json.loads(path.read_bytes())
        if found['format'] == _FORMAT and isinstance(found['settings'], dict):
            return {'data': {}, **found}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        pass
    except OSError as error:
        raise ResultFileError(
            f'{path} cannot be read ({error.strerror or error}): expected a file that explain3d '
            'wrote. Choose another folder, or remove it.'
        ) from error
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return None


def _of_results(folder: Path) -> dict[str, Any] | None:
    """Returns what the first sound result file says of its run."""
    for path in sorted(folder.glob('[!.]*.npz')):
        with contextlib.suppress(ResultFileError, FileNotFoundError, KeyError):
            return {'settings': load_metadata(path)['settings'], 'data': {}}
    return None


def _has_results(folder: Path) -> bool:
    names = ('[!.]*.npz', 'pictures/[!.]*')
    return any(next(folder.glob(name), None) is not None for name in names)


def _at_work(found: Mapping[str, Any], path: Path) -> bool:
    """Whether the run of a manifest may be going on, though it has no results yet."""
    running = is_running(found.get('host'), found.get('process'))
    if running is not None:
        return running
    try:
        return time.time() - path.stat().st_mtime < _ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    known = {key: value for key, value in wanted['data'].items() if key in found['data']}
    before = {key: found['data'][key] for key in known}
    return differences(found['settings'], wanted['settings']) + differences(before, known)


def _check(
    folder: Path, found: Mapping[str, Any] | None, wanted: Mapping[str, Any], remedy: str
) -> None:
    differing = [] if found is None else _differing(found, wanted)
    differing = [line if len(line) <= _LONG else f'{line[:_LONG]} ...' for line in differing]
    if not differing:
        return
    more = f', and {len(differing) - _SHOWN} more' if len(differing) > _SHOWN else ''
    raise SettingsMismatchError(
        f'{folder} belongs to another run, which differs from this one in: '
        f'{"; ".join(differing[:_SHOWN])}{more} (that run -> this run). Expected a folder for each '
        f'run, so that none replaces the results of another. Choose another one ({remedy}), or '
        'delete this one if its results are not needed any more.'
    )
