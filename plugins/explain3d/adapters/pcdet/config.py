"""YAML configurations of OpenPCDet whose bases are found from any folder, and may have bases.

OpenPCDet itself opens ``_BASE_CONFIG_`` relative to the working directory, at the top of a file and
in each of its sections, but does not look for bases inside a base: a file that builds on
``cfgs/kitti_models/second.yaml`` would get no data section's base. Here bases have bases, and each
is looked for beside the file that names it, in the working directory and in OpenPCDet's ``tools``.

Behind a base a note may stand in parentheses, ``second.yaml (run with python -m
explain3d.adapters.pcdet)``: OpenPCDet's own reader then stops with the note in its message.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import InputError

_BASE = '_BASE_CONFIG_'
_NOTE = re.compile(r'\s+\([^()]*\)$')
_LOG = logging.getLogger('explain3d')


def read_config(path: str | Path, tools: str | Path | None = None) -> dict[str, Any]:
    """Reads a configuration with all of its bases in it.

    Args:
        path: The YAML file.
        tools: OpenPCDet's ``tools`` folder, to which the paths in its own files are relative.

    Returns:
        Nested plain data without ``_BASE_CONFIG_``.

    Raises:
        InputError: If a file is not there, is no YAML or builds on itself; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'No configuration {str(path)!r}: expected a YAML file of OpenPCDet.')
    return _read(path.resolve(), None if tools is None else Path(tools), ())


def _read(path: Path, tools: Path | None, above: tuple[Path, ...]) -> dict[str, Any]:
    import yaml

    if path in above:
        chain = ' -> '.join(str(p) for p in (*above, path))
        raise InputError(f'A configuration builds on itself: {chain}. Expected bases in a line.')
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(f'{path} is no YAML: expected a mapping. {error}') from error
    if not isinstance(content, dict):
        raise InputError(
            f'{path} has a {type(content).__name__} at its top: expected a mapping of sections.'
        )
    return _resolved(content, path, tools, (*above, path))


def _resolved(
    section: Mapping[str, Any], path: Path, tools: Path | None, above: tuple[Path, ...]
) -> dict[str, Any]:
    """Returns a section with its base, and those of its subsections, in it."""
    own = {
        key: _resolved(value, path, tools, above) if isinstance(value, dict) else value
        for key, value in section.items()
        if key != _BASE
    }
    if _BASE not in section:
        return own
    return _merged(_read(_base_of(str(section[_BASE]), path, tools), tools, above), own)


def _base_of(name: str, path: Path, tools: Path | None) -> Path:
    """Returns the file called ``name`` in ``path``, where a note may stand behind it."""
    folders = [path.parent, Path.cwd(), *([] if tools is None else [tools])]
    for file in (name, _NOTE.sub('', name)):
        for folder in folders:
            if (folder / file).is_file():
                return (folder / file).resolve()
    raise InputError(
        f'{path} builds on {name!r}, which is not there: expected it relative to one of '
        f"{[str(folder) for folder in folders]}. OpenPCDet's own configurations are found through "
        'the checkout whose test.py is run.'
    )


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the base with the section's own values, sections joined key by key."""
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def data_path(value: str, tools: str | Path) -> str:
    """Returns a data set's folder that is relative to the working directory or to ``tools``.

    Args:
        value: ``DATA_CONFIG.DATA_PATH``.
        tools: OpenPCDet's ``tools`` folder.

    Raises:
        InputError: If it is at neither place.
    """
    for candidate in (Path(value), Path(tools) / value):
        if candidate.is_dir():
            return str(candidate)
    raise InputError(
        f'The data set {value!r} (DATA_CONFIG.DATA_PATH) is not there: expected a folder relative '
        f'to {Path.cwd()} or to {tools}. Prepare the data as OpenPCDet describes, or say where '
        'they are: --set DATA_CONFIG.DATA_PATH FOLDER at the end of the command line.'
    )


def require_frames(dataset: Any, config: Mapping[str, Any]) -> None:
    """Refuses a test data set without frames; OpenPCDet passes over info files that are not there.

    Args:
        dataset: OpenPCDet's data set.
        config: Its configuration, ``DATA_CONFIG``.

    Raises:
        InputError: If it has none; the message names the info files that are missing.
    """
    root = Path(getattr(dataset, 'root_path', config['DATA_PATH']))
    wanted = [root / name for name in config.get('INFO_PATH', {}).get('test', ())]
    missing = [str(path) for path in wanted if not path.is_file()]
    if len(dataset):
        if missing:
            _LOG.warning('%s: without the frames of %s, which are not there.', root, missing)
        return
    split = config.get('DATA_SPLIT', {}).get('test', 'test')
    reason = f'{missing} are not there' if missing else 'what is there lists no frame'
    raise InputError(
        f'The data set {root} has no frames of the split {split!r}: expected info files with '
        f'frames; {reason}. Make them as OpenPCDet describes (docs/GETTING_STARTED.md there, for '
        'KITTI "python -m pcdet.datasets.kitti.kitti_dataset create_kitti_infos ..."), or say '
        'where the data are: --set DATA_CONFIG.DATA_PATH FOLDER at the end of the command line.'
    )
