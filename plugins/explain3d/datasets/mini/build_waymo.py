"""Builds a mini Waymo on disk: all segments, the hosts' info files and a manifest; resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...core.errors import InputError
from ..contents import missing_units, recorded, replace_file
from . import waymo_mmdet3d, waymo_pcdet
from .build import claim_folder, run_jobs
from .waymo import SPLITS, FrameRecord, Recipe, Segment, SegmentId

# Raised whenever the same seed gives other data.
GENERATOR_VERSION = 1
HOSTS = {'pcdet': waymo_pcdet, 'mmdet3d': waymo_mmdet3d}
# Three digits of MMDetection3D's file names, and no longer than a real segment.
_MOST_SEGMENTS, _MOST_FRAMES = 1000, 200


@dataclass(frozen=True)
class WaymoParameters(Recipe):
    """What decides the data; see `Recipe`.

    Attributes:
        segments_train: Number of segments for training.
        segments_val: Number of segments for validation.
        hosts: Whose layouts are written: ``pcdet``, ``mmdet3d``.
    """

    segments_train: int = 2
    segments_val: int = 1
    hosts: tuple[str, ...] = ('pcdet', 'mmdet3d')

    def manifest(self) -> dict:
        """The record that is kept beside the data."""
        values = asdict(self) | {'image_size': list(self.image_size), 'hosts': sorted(self.hosts)}
        return {'format': 'waymo', 'generator_version': GENERATOR_VERSION, **values}

    def segments(self) -> list[SegmentId]:
        """All segments, those for training first."""
        counts = dict(zip(SPLITS, (self.segments_train, self.segments_val), strict=True))
        return [SegmentId(split, k) for split, count in counts.items() for k in range(count)]

    def check(self) -> None:
        """Raises `InputError` for parameters that make no sense."""
        counts = (self.segments_train, self.segments_val)
        if sum(counts) < 1 or not all(0 <= count <= _MOST_SEGMENTS for count in counts):
            raise InputError(
                f'Expected 0 to {_MOST_SEGMENTS} segments a split and one at least, received '
                f'{counts[0]} for training and {counts[1]} for validation: change --segments.'
            )
        if not 1 <= self.frames <= _MOST_FRAMES:
            raise InputError(
                f'Expected 1 to {_MOST_FRAMES} frames a segment, received {self.frames}: '
                f'change --frames.'
            )
        unknown = [host for host in self.hosts if host not in HOSTS]
        if unknown or not self.hosts:
            raise InputError(
                f'Expected hosts out of {", ".join(HOSTS)}, received '
                f'{", ".join(self.hosts) or "none"}: change --hosts.'
            )
        if self.columns < 16 or min(self.image_size) < 16:
            raise InputError(
                f'Expected at least 16 columns and pictures of at least 16 x 16 pixels, received '
                f'{self.columns} and {self.image_size}.'
            )


def build_waymo(
    root: str | Path,
    parameters: WaymoParameters,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> Path:
    """Makes processed Waymo layouts in ``root``, or completes or accepts what is there.

    Args:
        root: Folder of the data set.
        parameters: What to make.
        workers: Processes.
        report: Gets progress messages.

    Returns:
        ``root``.

    Raises:
        InputError: If ``root`` holds a data set of other parameters, or the parameters make no
            sense.
    """
    root = Path(root)
    parameters.check()
    claim_folder(root, parameters.manifest())
    segments = parameters.segments()
    names = missing_units(root, [segment.name for segment in segments], report)
    missing = [segment for segment in segments if segment.name in names]
    if missing:
        report(f'{root}: making {len(missing)} of {len(segments)} segments with {workers} workers')
        run_jobs(_make_one, [(root, s, parameters) for s in missing], workers, report, 'segment')
    else:
        report(f'{root}: all {len(segments)} segments are there')
    labels = {segment: read_records(root, segment) for segment in segments}
    for host in parameters.hosts:
        HOSTS[host].write_tables(root, labels, parameters)
    return root


def records_file(root: Path, segment: SegmentId) -> Path:
    """Where a segment's labels are kept; it is there when the segment is complete."""
    return Path(root) / 'mini_segments' / f'{segment.name}.json'


def read_records(root: Path, segment: SegmentId) -> list[FrameRecord]:
    """The labels of a segment that is complete."""
    return [FrameRecord.load(v) for v in json.loads(records_file(root, segment).read_text())]


def _make_one(job: tuple[Path, SegmentId, WaymoParameters]) -> None:
    """Simulates one segment: writes its sensor files, then its labels."""
    root, segment, parameters = job
    maker = Segment(segment, parameters)
    path = records_file(root, segment)
    path.parent.mkdir(exist_ok=True)
    with recorded(root, segment.name):
        for frame, reading in enumerate(maker.readings()):
            for host in parameters.hosts:
                HOSTS[host].write_reading(root, segment, frame, reading)
        text = json.dumps([record.dump() for record in maker.records()])
        replace_file(path, lambda temporary: temporary.write_text(text))
