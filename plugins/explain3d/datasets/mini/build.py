"""Builds a mini data set on disk: all frames, splits and a manifest; resumes and never remakes."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ...core.errors import InputError
from ...core.results_atomic import atomic_write
from ..contents import missing_units, read_json, recorded, replace_file
from .kitti import simulate, write_frame

# Raised whenever the same seed gives other data.
GENERATOR_VERSION = 2
MANIFEST = 'mini_manifest.json'


@dataclass(frozen=True)
class KittiParameters:
    """What decides the data.

    Attributes:
        frames: Number of frames.
        val_frames: How many of them, the last ones, are for validation.
        seed: Of all random numbers.
        fov_only: Keep only the points in the camera's field of view.
        image_step: One ray of the picture per ``image_step`` x ``image_step`` pixels.
        first_frame: Number of the first frame; a frame depends on its number and the seed alone.
    """

    frames: int = 250
    val_frames: int = 50
    seed: int = 0
    fov_only: bool = True
    image_step: int = 2
    first_frame: int = 0

    def manifest(self) -> dict:
        """The record that is kept beside the data."""
        return {'format': 'kitti', 'generator_version': GENERATOR_VERSION, **asdict(self)}

    def splits(self) -> dict[str, list[str]]:
        """Frame names of each split."""
        numbers = range(self.first_frame, self.first_frame + self.frames)
        names = [f'{i:06d}' for i in numbers]
        train = self.frames - self.val_frames
        return {'train': names[:train], 'val': names[train:], 'trainval': names, 'test': []}


def build_kitti(
    root: str | Path,
    parameters: KittiParameters,
    workers: int = 1,
    report: Callable[[str], None] = print,
) -> Path:
    """Makes a KITTI-format data set in ``root``, or completes or accepts what is there.

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
    if not 0 <= parameters.val_frames <= parameters.frames or parameters.frames < 1:
        raise InputError(
            f'Expected 0 <= val_frames <= frames and frames >= 1, received '
            f'{parameters.val_frames} and {parameters.frames}: change --frames or --val-frames.'
        )
    _claim(root, parameters)
    names = parameters.splits()['trainval']
    missing = missing_units(root, names, report)
    if missing:
        report(f'{root}: making {len(missing)} of {len(names)} frames with {workers} workers')
        jobs = [(root, parameters, name) for name in missing]
        run_jobs(_make_one, jobs, workers, report, 'frame', interval=25, chunk=2)
    else:
        report(f'{root}: all {len(names)} frames are there')
    for split, members in parameters.splits().items():
        text = ''.join(f'{name}\n' for name in members)
        replace_file(
            root / 'ImageSets' / f'{split}.txt', lambda path, text=text: path.write_text(text)
        )
    return root


def _claim(root: Path, parameters: KittiParameters) -> None:
    """Creates the folders and the manifest, or checks the manifest that is there."""
    claim_folder(root, parameters.manifest())
    for split in ('training', 'testing'):
        for kind in ('velodyne', 'image_2', 'calib', 'label_2')[: 4 if split == 'training' else 3]:
            (root / split / kind).mkdir(parents=True, exist_ok=True)
    (root / 'ImageSets').mkdir(exist_ok=True)


def claim_folder(root: Path, wanted: dict) -> None:
    """Creates a data set's folder and manifest, or checks the manifest that is there.

    Args:
        root: Folder of the data set.
        wanted: What decides the data, as the manifest keeps it.

    Raises:
        InputError: If ``root`` holds a data set of other parameters, or something else.
    """
    path = root / MANIFEST
    if path.exists():
        remedy = f'Delete {root} to make the data set anew, or choose another folder.'
        found = read_json(path, 'the manifest of a mini data set', remedy)
        if not isinstance(found, dict):
            raise InputError(f'{path} is damaged: expected a manifest. {remedy}')
        if found != wanted:
            keys = sorted(set(found) | set(wanted))
            changed = {k: found.get(k) for k in keys if found.get(k) != wanted.get(k)}
            raise InputError(
                f'{root} holds a mini data set made with {changed}, where '
                f'{ {k: wanted.get(k) for k in changed} } was asked for: choose another folder, '
                f'or delete this one to make it anew.'
            )
    elif root.exists() and any(root.iterdir()):
        raise InputError(
            f'{root} is not empty and has no {MANIFEST}: expected a new folder or a mini data '
            f'set. Choose another folder.'
        )
    root.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with atomic_write(path, 'the manifest') as file:
            file.write((json.dumps(wanted, indent=1) + '\n').encode())


def run_jobs(
    make: Callable,
    jobs: Sequence,
    workers: int,
    report: Callable[[str], None],
    unit: str,
    interval: int = 1,
    chunk: int = 1,
) -> None:
    """Runs ``make`` on each of the jobs, in several processes if asked to, and reports.

    Args:
        make: A function of a module, since it goes to other processes.
        jobs: Its arguments, one a job.
        workers: Processes.
        report: Gets progress messages.
        unit: What a job makes, in the singular ("frame").
        interval: Jobs from one message to the next; the last one is reported always.
        chunk: Jobs that a process takes at once.
    """
    start = time.time()

    def follow(results: Iterable) -> None:
        for done, _ in enumerate(results, 1):
            if done % interval == 0 or done == len(jobs):
                seconds = (time.time() - start) / done
                report(f'  {done}/{len(jobs)} {unit}s, {seconds:.2f} s a {unit}')

    if workers <= 1:
        follow(map(make, jobs))
        return
    # Spawned, not forked: the caller may run threads (torch, OpenMP).
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        follow(pool.map(make, jobs, chunksize=chunk))


def _make_one(job: tuple[Path, KittiParameters, str]) -> None:
    root, parameters, name = job
    frame = simulate(parameters.seed, int(name), parameters.fov_only, parameters.image_step)
    with recorded(root, name):
        write_frame(root, name, frame)
