"""The report of sensor shares as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import InputError
from ...core.results import atomic_write
from ...lmd import Seed
from ...lmd.sensor_report import csv_text, json_text, markdown
from ...lmd.sensor_table import SensorTable

#: Settings of a decomposition that belong beside the figures.
_PROTOCOL = ('score_thr', 'overlap', 'blank', 'rules', 'model')


def protocol_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a decomposition's settings stands beside the report's figures."""
    found = {name: value for name, value in settings.items() if name in _PROTOCOL}
    return {**found, 'begins at': _beginnings(settings['seeds'])}


def of_frames(
    protocol: Mapping[str, Any], frames: Sequence[str], tags: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the protocol of a report over frames.

    Args:
        protocol: Of ``protocol_of``.
        frames: Their names.
        tags: Tags by the names of frames, empty if there are none.

    Raises:
        InputError: If there are tags, but none of these frames.
    """
    found = {'frames': len(frames), **protocol}
    if not tags:
        return found
    tagged = sum(name in tags for name in frames)
    if not tagged:
        raise InputError(
            f'Expected tags of the frames of this run, such as {next(iter(frames), None)!r}, '
            f'received those of others, such as {next(iter(tags))!r}: give the file of this split.'
        )
    return {**found, 'frames with tags': tagged}


def _beginnings(seeds: Sequence[dict]) -> str:
    """Says of each modality where it begins: a branch may hold another sensor's data already."""
    places: dict[str, list[str]] = {}
    for seed in seeds:
        for modality in Seed(**seed).modalities:
            places.setdefault(modality, []).append(f'{seed["module"]}[{seed["path"]}]')
    return '; '.join(f'{modality}: {" and ".join(found)}' for modality, found in places.items())


def write_report(table: SensorTable, folder: Path) -> None:
    """Writes the report in all its forms: ``report.md``, ``.csv``, ``.json`` and ``.png``.

    Args:
        table: The table.
        folder: Made if needed.

    Raises:
        ResultFileError: If it cannot be written to.
    """
    from ...visualization.sensor_shares import share_figure
    from ...visualization.style import save_figure

    texts = {'md': markdown(table) + '\n', 'csv': csv_text(table), 'json': json_text(table)}
    for suffix, text in texts.items():
        with atomic_write(folder / f'report.{suffix}', 'the report') as file:
            file.write(text.encode())
    save_figure(share_figure(table), folder / 'report.png')
