"""Data that several tests need: a few frames of the mini world, and real ones where there are."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: The first validation frame of the mini world: the shipped weights have not seen it.
FIRST_VALIDATION_FRAME = 200


def pytest_addoption(parser) -> None:
    """Options of the tests on a device that is not there; see tests/helpers/pretend_device."""
    group = parser.getgroup('explain3d')
    group.addoption(
        '--pretend-device',
        choices=('some', 'all'),
        help='run on a pretended CUDA device what can: some tests of each kind, or all',
    )
    group.addoption(
        '--random-rows',
        action='store_true',
        help='strided sparse convolutions give their voxels in an order of chance',
    )


def pytest_configure(config) -> None:
    """Makes the pretended device before anything else runs."""
    if not config.getoption('--pretend-device'):
        return
    from tests.helpers.pretend_device.build import NoDeviceError

    try:
        from tests.helpers.pretend_device import plugin
    except NoDeviceError as error:
        config.pretend_device_problem = str(error)
        return
    config.pluginmanager.register(plugin)
    plugin.choose(config)


def pytest_collection_modifyitems(config, items) -> None:
    """Without the device, what was to run on it is left out, with the reason."""
    problem = getattr(config, 'pretend_device_problem', None)
    for item in items if problem else ():
        item.add_marker(pytest.mark.skip(reason=f'no pretended device: {problem}'))


@pytest.fixture(autouse=True)
def _random_rows(request):
    if not request.config.getoption('--random-rows'):
        yield
        return
    from tests.helpers.pretend_device.random_rows import random_rows

    with random_rows():
        yield


@pytest.fixture(autouse=True)
def _threads_as_asked_for():
    """numba raises torch's number of threads in passing: on few cores they wait for each other."""
    torch = sys.modules.get('torch')
    asked = os.environ.get('OMP_NUM_THREADS')
    if torch is not None and asked is not None:
        torch.set_num_threads(int(asked))


@pytest.fixture(scope='session')
def mini_kitti(tmp_path_factory) -> Path:
    """Two validation frames of the mini world with MMDetection3D's info files."""
    pytest.importorskip('embreex')
    pytest.importorskip('mmdet3d')
    from explain3d.datasets.mini.build import KittiParameters, build_kitti
    from explain3d.datasets.mmdet3d_infos import make_mmdet3d_infos

    folder = tmp_path_factory.mktemp('mini_kitti')
    parameters = KittiParameters(frames=2, val_frames=2, first_frame=FIRST_VALIDATION_FRAME)
    build_kitti(folder, parameters, report=lambda _: None)
    return make_mmdet3d_infos(folder)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder of real frames that EXPLAIN3D_REAL_DATA names."""
    folder = os.environ.get('EXPLAIN3D_REAL_DATA')
    if not folder:
        pytest.skip('EXPLAIN3D_REAL_DATA is not set: no real frames')
    return Path(folder)


@pytest.fixture(scope='session')
def real_kitti(real_data, tmp_path_factory) -> Path:
    """A work folder over the real KITTI frames, with info files."""
    pytest.importorskip('mmdet3d')
    from explain3d.datasets.mmdet3d_infos import prepare_kitti

    return prepare_kitti(real_data / 'kitti-mini', tmp_path_factory.mktemp('real') / 'kitti')


def pytest_report_header() -> str:
    """Says which OpenPCDet the adapter's tests run on."""
    from tests.helpers.pcdet_host import find_host

    return f'pcdet: {find_host().name}'
