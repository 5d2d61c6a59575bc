"""The wheel holds the package, the configs and the tools, and no weights."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from explain3d import config_path

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """A copy to build from: setuptools writes build/ and an egg-info beside setup.py."""
    if not (ROOT / '.git').exists():
        pytest.skip('not a git checkout')
    folder = tmp_path_factory.mktemp('source')
    clone = ['git', 'clone', '--quiet', '--depth', '1', f'file://{ROOT}', str(folder)]
    subprocess.run(clone, check=True)
    return folder


def build_wheel(source: Path, folder: Path) -> zipfile.ZipFile:
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q']
    subprocess.run([*command, '-w', str(folder), str(source)], check=True)
    return zipfile.ZipFile(next(folder.glob('explain3d-*.whl')))


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory) -> zipfile.ZipFile:
    return build_wheel(source, tmp_path_factory.mktemp('wheel'))


def test_wheel_holds_package_configs_and_tools(wheel):
    names = set(wheel.namelist())
    assert 'explain3d/core/nmf.py' in names
    assert 'explain3d/adapters/mmdet3d/hook.py' in names
    assert 'explain3d/.mim/configs/ffam/ffam_second_kitti.py' in names
    assert 'explain3d/.mim/tools/test.py' in names


def test_wheel_holds_no_weights_and_no_data(wheel):
    suffixes = {Path(name).suffix for name in wheel.namelist()}
    assert not suffixes & {'.pth', '.pkl', '.bin', '.npz', '.png'}


def test_a_source_distribution_builds_the_same_wheel(source, wheel, tmp_path):
    command = [sys.executable, 'setup.py', '-q', 'sdist', '-d', str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    archive = next(tmp_path.glob('explain3d-*.tar.gz'))
    assert set(build_wheel(archive, tmp_path).namelist()) == set(wheel.namelist())
    with tarfile.open(archive) as file:
        assert not {Path(name).suffix for name in file.getnames()} & {'.pth', '.npz', '.png'}


def test_config_path_finds_a_config():
    assert config_path('ffam/ffam_second_kitti.py').is_file()


def test_config_path_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match='ffam/ffam_second_kitti.py'):
        config_path('ffam/nothing.py')
