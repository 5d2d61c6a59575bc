"""Builds a mini nuScenes on disk: all scenes, the tables and a manifest; resumes, never remakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...core.errors import InputError
from ..contents import missing_units, recorded, replace_file
from .build import claim_folder, run_jobs
from .nuscenes import Recipe, make_scene, rows_file
from .nuscenes_schema import SPLITS, constant_tables, scene_names
from .rig import CHANNELS

# Raised whenever the same seed gives other data.
GENERATOR_VERSION = 1
TEST_VERSION = 'v1.0-test'


@dataclass(frozen=True)
class NuScenesParameters(Recipe):
    """What decides the data; see `Recipe`.

    Attributes:
        scenes_train: Number of scenes for training.
        scenes_val: Number of scenes for validation.
        scenes_test: Number of scenes without boxes, in the tables of ``v1.0-test``.
        version: ``v1.0-trainval``, or ``v1.0-mini`` with at most 8 and 2 scenes.
    """

    scenes_train: int = 24
    scenes_val: int = 6
    scenes_test: int = 1
    version: str = 'v1.0-trainval'

    def manifest(self) -> dict:
        """The record that is kept beside the data."""
        values = asdict(self) | {'image_size': list(self.image_size)}
        return {'format': 'nuscenes', 'generator_version': GENERATOR_VERSION, **values}

    def scenes(self) -> dict[str, str]:
        """Scene names, and the split of each."""
        counts = {'train': self.scenes_train, 'val': self.scenes_val}
        names = {n: s for s, c in counts.items() for n in scene_names(self.version, s, c)}
        test = scene_names(TEST_VERSION, 'test', self.scenes_test)
        return names | dict.fromkeys(test, 'test')

    def check(self) -> None:
        """Raises `InputError` for parameters that make no sense."""
        if self.version not in SPLITS or self.version == TEST_VERSION:
            raise InputError(
                f"Expected the version 'v1.0-trainval' or 'v1.0-mini', received {self.version!r}."
            )
        if self.scenes_train + self.scenes_val < 1 or self.keyframes < 1:
            raise InputError(
                f'Expected at least one scene and one keyframe, received {self.scenes_train} + '
                f'{self.scenes_val} scenes of {self.keyframes}: ask for more.'
            )
        if not 0 <= self.lidar_sweeps <= self.radar_sweeps:
            raise InputError(
                f'Expected 0 <= lidar_sweeps <= radar_sweeps, received {self.lidar_sweeps} and '
                f'{self.radar_sweeps}: LiDAR sweeps are taken together with radar sweeps.'
            )
        if min(self.image_size) < 16 or self.image_step < 1:
            raise InputError(
                f'Expected pictures of at least 16 x 16 pixels and a step of at least 1, received '
                f'{self.image_size} and {self.image_step}.'
            )
        self.scenes()


def build_nuscenes(
    root: str | Path,
    parameters: NuScenesParameters,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> Path:
    """Makes a nuScenes-format data set in ``root``, or completes or accepts what is there.

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
    scenes = parameters.scenes()
    missing = missing_units(root, scenes, report)
    if missing:
        report(f'{root}: making {len(missing)} of {len(scenes)} scenes with {workers} workers')
        jobs = [(root, name, scenes[name], _recipe(parameters)) for name in missing]
        run_jobs(_make_one, jobs, workers, report, 'scene')
    else:
        report(f'{root}: all {len(scenes)} scenes are there')
    _write_tables(root, parameters)
    return root


def _recipe(parameters: NuScenesParameters) -> Recipe:
    return Recipe(**{name: getattr(parameters, name) for name in Recipe.__dataclass_fields__})


def _make_one(job: tuple[Path, str, str, Recipe]) -> None:
    root, name, _, _ = job
    with recorded(root, name):
        make_scene(*job)


def _write_tables(root: Path, parameters: NuScenesParameters) -> None:
    """Joins the rows of all scenes; the tables are replaced only if something is new."""
    scenes = parameters.scenes()
    versions = {
        parameters.version: [name for name, split in scenes.items() if split != 'test'],
        TEST_VERSION: [name for name, split in scenes.items() if split == 'test'],
    }
    for version, names in versions.items():
        if not names:
            continue
        tables = constant_tables(CHANNELS)
        for name in names:
            for table, rows in json.loads(rows_file(root, name).read_text()).items():
                tables.setdefault(table, []).extend(rows)
        (root / version).mkdir(exist_ok=True)
        for table, rows in tables.items():
            _write_if_new(root / version / f'{table}.json', json.dumps(rows, indent=0))


def _write_if_new(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        replace_file(path, lambda temporary: temporary.write_text(text))
