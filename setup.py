"""Packaging of explain3d: the import package lies in plugins/, configs ship as package data."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithConfigs(build_py):
    """Puts configs/ and tools/ into the wheel as explain3d/.mim, where OpenMMLab's packages do."""

    def run(self) -> None:
        """Builds the package and copies the folders into it; not in editable mode."""
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib) / 'explain3d' / '.mim' / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns('__pycache__'))


def read_version() -> str:
    """Returns the version without importing the package."""
    scope: dict = {}
    exec((ROOT / 'plugins/explain3d/version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def read_requirements(name: str) -> list[str]:
    """Returns the requirement lines of a file, comments left out."""
    lines = (ROOT / name).read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


HOSTS = ['mmengine>=0.10,<0.11', 'mmdet>=3.2,<3.4', 'mmdet3d>=1.4,<1.5', 'mmcv>=2.0,<2.2']
PCDET = ['easydict', 'numba', 'pyquaternion', 'pyyaml', 'scikit-image', 'scipy', 'tensorboardX']
MINI = ['embreex>=2.17', 'pillow>=9']

setup(
    name='explain3d',
    version=read_version(),
    description='Explains what a 3D perception model saw: FFAM and LMD for MMDetection3D and '
    'OpenPCDet',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8')
    if (ROOT / 'README.md').exists()
    else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    package_dir={'': 'plugins'},
    packages=find_packages('plugins'),
    cmdclass={'build_py': BuildWithConfigs},
    install_requires=read_requirements('requirements.txt'),
    extras_require={
        'mmdet3d': [*HOSTS, 'spconv>=2.3.6'],
        # Python 3.10 and 3.11; later ones need spconv-cu124 or spconv-cu126 in its place.
        'mmdet3d-gpu': [*HOSTS, 'spconv-cu120>=2.3.6'],
        # OpenPCDet is on no package index; this is what an existing checkout needs beside it.
        'pcdet': [*PCDET, 'spconv>=2.3.6', 'tqdm'],
        'mini': MINI,
        'nuscenes': ['nuscenes-devkit>=1.1.11'],
        'waymo': ['waymo-open-dataset-tf-2-12-0'],
        'dev': [
            *MINI,
            'pytest>=8',
            'pytest-xdist>=3',
            'hypothesis>=6',
            'ruff>=0.6',
            'scikit-learn',
            'shapely',
        ],
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
