"""One OpenPCDet for all tests here: the real one where there is one, else the stand-in."""

import shutil
from pathlib import Path

import pytest

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
