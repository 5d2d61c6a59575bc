"""Folders of KITTI's object layout: what must be there, and work folders that link to it."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import InputError
from ..core.results_atomic import replace_file

SPLITS = ('train', 'val', 'trainval', 'test')
_KINDS = ('velodyne', 'image_2', 'calib', 'label_2')
_POINT = 16  # four float32
#: What to do about a damaged file, a sentence.
REMEDY = (
    'Copy the data set again, or run tools/make_mini_dataset.py again, which completes a mini '
    'data set.'
)


def check_kitti(root: Path) -> None:
    """Checks the parts of the layout that are read.

    Raises:
        InputError: If ``root`` lacks one.
    """
    parts = [f'training/{kind}' for kind in _KINDS] + ['ImageSets/train.txt', 'ImageSets/val.txt']
    missing = [part for part in parts if not (root / part).exists()]
    if missing:
        raise InputError(
            f'Expected a KITTI-format data set in {root}, which lacks {missing}: make one with '
            f'tools/make_mini_dataset.py or give the folder that holds ImageSets and training.'
        )


def check_frames(root: Path) -> None:
    """Checks that each frame of the labelled splits has its files, and whole clouds.

    Raises:
        InputError: If one has not; the message names the file.
    """
    suffixes = dict(zip(_KINDS, ('bin', 'png', 'txt', 'txt'), strict=True))
    for split in ('train', 'val', 'trainval'):
        for name in members(root, split):
            for kind, suffix in suffixes.items():
                path = root / 'training' / kind / f'{name}.{suffix}'
                size = path.stat().st_size if path.is_file() else None
                if size is None:
                    raise InputError(f'{path} is not there: expected it for {split}. {REMEDY}')
                whole = size > 0 if kind != 'velodyne' else size % _POINT == 0
                if kind != 'label_2' and not whole:
                    raise InputError(
                        f'{path} has {size} bytes: expected a whole file'
                        f'{f" of points of {_POINT} bytes" if kind == "velodyne" else ""}. {REMEDY}'
                    )


def members(root: Path, split: str) -> list[str]:
    """Frame names of a split; ``trainval`` and ``test`` need not be there."""
    path = root / 'ImageSets' / f'{split}.txt'
    if path.exists():
        return path.read_text().split()
    return sorted(members(root, 'train') + members(root, 'val')) if split == 'trainval' else []


def link_kitti(root_in: str | Path, root_out: str | Path) -> Path:
    """Links a read-only KITTI-format data set into a work folder.

    Args:
        root_in: Data set with ``ImageSets`` and ``training``; left untouched.
        root_out: Work folder, created if need be.

    Returns:
        ``root_out``.

    Raises:
        InputError: If ``root_in`` lacks a part of the KITTI layout, or ``root_out`` holds links
            to another data set.
    """
    root_in, root_out = Path(root_in).resolve(), Path(root_out)
    check_kitti(root_in)
    for folder in ('ImageSets', 'training', 'testing'):
        (root_out / folder).mkdir(parents=True, exist_ok=True)
    for kind in _KINDS:
        _link(root_in / 'training' / kind, root_out / 'training' / kind)
    for split in SPLITS:
        text = ''.join(f'{name}\n' for name in members(root_in, split))
        replace_file(
            root_out / 'ImageSets' / f'{split}.txt', lambda path, text=text: path.write_text(text)
        )
    return root_out


def _link(source: Path, target: Path) -> None:
    if target.is_symlink() and target.resolve() == source:
        return
    if target.is_symlink() or target.exists():
        raise InputError(
            f'{target} exists and is no link to {source}: choose another work folder or delete '
            f'this one.'
        )
    target.symlink_to(source, target_is_directory=True)
