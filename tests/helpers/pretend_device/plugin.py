"""pytest plugin of ``--pretend-device``: what tests make is on the pretended device.

The project's own tensors are where it says. Tests may mix devices and call ``numpy()``; the project
may not. Tests in ``tests/pretended`` make the device themselves and know no mercy.
"""

import sys
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from . import device as P
from .selection import ALL, SKIPPED, SOME

MAKERS = set(_device_constructors())
NUMPY, FROM_NUMPY = torch.Tensor.numpy, torch.from_numpy
#: What a compiled module of spconv has that takes tensors.
SPARSE = ('get_indice_pairs', 'indice_conv', 'indice_conv_backward', 'indice_maxpool',
          'indice_maxpool_backward')  # fmt: skip
OWN = 'tests/pretended/'


def _made_by_tests():
    """Whether the innermost frame is a test's, or builds a module (whoever does ``.to`` later)."""
    frame, builds = sys._getframe(2), False
    while frame is not None:
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        if '/torch/nn/modules/' in name:
            builds |= function in ('__init__', 'reset_parameters')
        if '/tests/' in name:
            return True
        if '/plugins/explain3d/' in name:
            module = isinstance(frame.f_locals.get('self'), nn.Module)
            return builds or (function == '__init__' and module)
        frame = frame.f_back
    return False


def _moved(out):
    if not P.is_plain(out):
        return out
    need = out.requires_grad
    with torch._C.DisableTorchFunction():
        out = P.renamed(out.detach(), 'cuda')
    return out.requires_grad_() if need else out


class Makers(TorchFunctionMode):
    """Moves what tests make without naming a device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        there = func in MAKERS and (kwargs or {}).get('device') is None
        return _moved(out) if there and _made_by_tests() else out


@contextmanager
def _numpy_for_tests(mode):
    """``numpy()`` and ``from_numpy``, where tests call them."""

    def numpy(self, *args, **kwargs):
        if not (P.is_here(self) and mode.forgiving()):
            return NUMPY(self, *args, **kwargs)
        with torch._C.DisableTorchFunction():
            return NUMPY(P.renamed(self.detach().resolve_conj(), 'cpu'), *args, **kwargs)

    def from_numpy(array):
        found = FROM_NUMPY(array)
        return _moved(found) if _made_by_tests() else found

    with (
        mock.patch.object(torch.Tensor, 'numpy', numpy),
        mock.patch.object(torch, 'from_numpy', from_numpy),
    ):
        yield


@contextmanager
def compiled_operators():
    """Compiled operators of mmcv and spconv, where they are loaded, take the device's tensors."""
    with ExitStack() as stack:
        if 'mmcv._ext' in sys.modules:
            stack.enter_context(P.compiled(sys.modules['mmcv._ext']))
        if 'spconv.pytorch.ops' in sys.modules:
            ops = sys.modules['spconv.pytorch.ops']
            stack.enter_context(P.compiled(ops, [n for n in SPARSE if hasattr(ops, n)]))
        yield


@contextmanager
def _models_move():
    """Detectors of MMEngine, and what their preprocessor makes, go to the device."""
    if 'mmengine.model' not in sys.modules:
        yield
        return
    from mmengine.model import BaseDataPreprocessor, BaseModel

    stock = BaseModel.eval

    def evaluated(self):
        return stock(self).to(P.DEVICE)

    with (
        mock.patch.object(BaseModel, 'eval', evaluated),
        mock.patch.object(BaseDataPreprocessor, 'device', P.DEVICE),
    ):
        yield


@contextmanager
def pretending():
    """The device, on which all is that tests make; gives what counts."""
    mode = P.PretendDevice()
    with mode, Makers(), _numpy_for_tests(mode), compiled_operators(), _models_move():
        yield mode


@pytest.fixture(autouse=True)
def _pretend(request):
    if OWN in request.node.nodeid:
        yield
        return
    with pretending():
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    with P.PretendDevice(available=False), Makers():  # Tensors of the tests' modules.
        yield


def choose(config):
    """Where no files are named, those of ``--pretend-device=some`` or ``all`` run."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        names = SOME if config.getoption('--pretend-device') == 'some' else ALL
        config.args = [str(config.rootpath / name) for name in names]


def pytest_collection_modifyitems(items):
    for item in items:
        for start, reason in SKIPPED.items():
            if item.nodeid.startswith(start):
                item.add_marker(pytest.mark.skip(reason=f'on a pretended device: {reason}'))
