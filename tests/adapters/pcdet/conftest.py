"""One OpenPCDet for all tests here: the real one where there is one, else the stand-in."""

import shutil
from pathlib import Path

import pytest
from pcdet_runs import EXPLAINER, MEASURED, write

from tests.helpers.pcdet_host import PcdetHost, find_host

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope='module')
def pcdet_host() -> PcdetHost:
    """The host, importable while the tests of a module run."""
    with find_host().importable() as host:
        yield host


@pytest.fixture(scope='session')
def pcdet_kitti(mini_kitti) -> Path:
    """Two validation frames of the mini world with OpenPCDet's info files."""
    from explain3d.datasets.pcdet_infos import make_pcdet_infos

    return make_pcdet_infos(mini_kitti)


@pytest.fixture(scope='session')
def converted(tmp_path_factory):
    """Returns the path of shipped weights, converted for OpenPCDet, by their name."""
    import torch

    from explain3d.adapters.checkpoint_convert import convert_checkpoint, load_checkpoint

    folder = tmp_path_factory.mktemp('converted')

    def path(name: str) -> Path:
        target = folder / f'{name}.pth'
        if not target.exists():
            source = load_checkpoint(ROOT / 'checkpoints' / f'{name}.pth')
            torch.save(convert_checkpoint(source), target)
        return target

    yield path
    shutil.rmtree(folder)


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of the host, for what it writes into its own folder."""
    root = tmp_path_factory.mktemp('checkout')
    for part in ('pcdet', 'tools'):
        shutil.copytree(find_host().root / part, root / part)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope='module')
def folder(tmp_path_factory, pcdet_kitti, converted):
    """Configurations with and without an explainer, and weights."""
    folder = tmp_path_factory.mktemp('run')
    write(folder / 'plain.yaml', pcdet_kitti)
    write(folder / 'odam.yaml', pcdet_kitti, EXPLAINER)
    write(folder / 'measured.yaml', pcdet_kitti, {**EXPLAINER, **MEASURED})
    for name in ('second', 'centerpoint'):
        shutil.copy(converted(f'{name}_small_miniworld'), folder / f'{name}.pth')
    return folder
