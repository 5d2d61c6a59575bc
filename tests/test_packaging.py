"""The wheel holds the package, the configs and the tools, and no weights."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from explain3d import config_path

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
    # Built from a copy: setuptools writes build/ and an egg-info beside setup.py.
    source = folder / 'source'
    subprocess.run(
        ['git', 'clone', '--quiet', '--depth', '1', f'file://{ROOT}', str(source)], check=True
    ) if (ROOT / '.git').exists() else pytest.skip('not a git checkout')
    subprocess.run([*command, '-q', '-w', str(folder), str(source)], check=True)
    return zipfile.ZipFile(next(folder.glob('explain3d-*.whl')))


def test_wheel_holds_package_configs_and_tools(wheel):
    names = set(wheel.namelist())
    assert 'explain3d/core/nmf.py' in names
    assert 'explain3d/adapters/mmdet3d/hook.py' in names
    assert 'explain3d/.mim/configs/ffam/ffam_second_kitti.py' in names
    assert 'explain3d/.mim/tools/test.py' in names


def test_wheel_holds_no_weights_and_no_data(wheel):
    suffixes = {Path(name).suffix for name in wheel.namelist()}
    assert not suffixes & {'.pth', '.pkl', '.bin', '.npz', '.png'}


def test_config_path_finds_a_config():
    assert config_path('ffam/ffam_second_kitti.py').is_file()


def test_config_path_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match='ffam/ffam_second_kitti.py'):
        config_path('ffam/nothing.py')
