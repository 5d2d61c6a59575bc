"""Compiles the pretended device, once for a version of torch."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name('device.cpp')


class NoDeviceError(Exception):
    """The device cannot be made here; the message is the reason."""


def built() -> Path:
    """Compiles the device, once for a version of torch, into the user's cache."""
    if torch.version.cuda is not None:
        raise NoDeviceError('this torch has CUDA: run the tests marked gpu on its device instead')
    base = Path(torch.__file__).parent
    name = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'explain3d'
    cache.mkdir(parents=True, exist_ok=True)
    library = cache / f'pretend_device_{name}.so'
    if library.exists():
        return library
    compiler = os.environ.get('CXX', 'g++')
    if shutil.which(compiler) is None:
        raise NoDeviceError(f'there is no C++ compiler {compiler!r} to make the device with')
    fresh = library.with_suffix(f'.{os.getpid()}')
    command = [compiler, '-std=c++20', '-O0', '-shared', '-fPIC', f'-I{base}/include',
               f'-I{base}/include/torch/csrc/api/include', str(SOURCE), '-o', str(fresh),
               f'-L{base}/lib', '-ltorch_cpu', '-ltorch', '-lc10']  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoDeviceError(f'{compiler} fails on {SOURCE.name}: {done.stderr[-2000:]}')
    fresh.replace(library)
    return library
