"""The CPU mode on a package of OpenPCDet's shape: what it offers, and that nothing is left."""

from __future__ import annotations

import importlib
import io
import sys

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn

from explain3d.adapters.pcdet.cpu import CpuModeError, MissingPackageError, cpu_mode, packages
from explain3d.adapters.pcdet.cpu.stand_ins import EXTENSIONS

FILES = {
    'pcdet/__init__.py': 'from .version import __version__',
    'pcdet/utils.py': (
        'import SharedArray, cv2, torchvision\nfrom tensorboardX import SummaryWriter'
    ),
    'pcdet/needs.py': 'import no_such_needed_package',
    'pcdet/pillars.py': 'import torch_scatter',
    'pcdet/datasets/__init__.py': 'from .argo2.argo2_dataset import Argo2Dataset',
    'pcdet/datasets/argo2/__init__.py': '',
    'pcdet/datasets/argo2/argo2_dataset.py': 'import no_such_package',
    'pcdet/datasets/kitti/__init__.py': '',
    'pcdet/datasets/kitti/kitti_object_eval_python/__init__.py': '',
    'pcdet/datasets/kitti/kitti_object_eval_python/rotate_iou.py': 'import no_cuda',
    'pcdet/datasets/kitti/kitti_object_eval_python/eval.py': (
        'from .rotate_iou import rotate_iou_gpu_eval'
    ),
    'pcdet/ops/__init__.py': '',
    'pcdet/ops/iou3d_nms/__init__.py': '',
    'pcdet/ops/iou3d_nms/iou3d_nms_utils.py': 'from . import iou3d_nms_cuda',
}

# Installed or not, these count as missing here: what the machine has must not decide the test.
ABSENT = ('SharedArray', 'cv2', 'torchvision', 'tensorboardX', 'torch_scatter', 'av2')


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in [n for n in sys.modules if n.partition('.')[0] in (*ABSENT, 'pcdet')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    found = importlib.util.find_spec

    def find_spec(name, *args):
        return None if name in ABSENT else found(name, *args)

    monkeypatch.setattr(packages.importlib.util, 'find_spec', find_spec)
    monkeypatch.setattr(packages, 'imports', lambda name: name not in ABSENT)
    monkeypatch.setattr('explain3d.adapters.pcdet.cpu.mode.imports', lambda n: n not in ABSENT)
    yield tmp_path
    # What a test imported outside of the mode: later ones would take this package for OpenPCDet.
    for name in [n for n in sys.modules if n.partition('.')[0] == 'pcdet']:
        del sys.modules[name]


def state():
    """All that the mode replaces."""
    return {
        'modules': {n: m for n, m in sys.modules.items() if n.partition('.')[0] == 'pcdet'},
        'refusing': {n: sys.modules.get(n) for n in ABSENT},
        'finders': list(sys.meta_path),
        'tensor': dict(vars(torch.Tensor)).get('cuda'),
        'module': nn.Module.cuda,
        'cuda': {k: v for k, v in vars(torch.cuda).items() if callable(v)},
        'load': torch.load,
        'numpy': {k for k in ('int', 'float', 'bool') if k in vars(np)},
        'start': multiprocessing.set_start_method,
        'join': distributed.init_process_group,
        'wrapper': nn.parallel.DistributedDataParallel,
    }


def fail_after_importing(name):
    importlib.import_module(name)
    raise KeyError('inside')


def test_everything_is_as_before_after_success_and_after_failure(package):
    before = state()
    with cpu_mode():
        importlib.import_module('pcdet.ops.iou3d_nms.iou3d_nms_utils')

        assert state() != before
    assert state() == before
    with pytest.raises(KeyError, match='inside'), cpu_mode():
        fail_after_importing('pcdet.datasets')
    assert state() == before
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('pcdet.ops.iou3d_nms.iou3d_nms_cuda')


def test_modules_imported_before_are_hidden_and_come_back(package):
    (package / 'pcdet/version.py').write_text("__version__ = '0.6.0'")
    before = importlib.import_module('pcdet')
    with cpu_mode():
        assert importlib.import_module('pcdet') is not before
    assert sys.modules['pcdet'] is before


def test_the_version_of_a_checkout_is_kept_and_made_up_without_one(package):
    with cpu_mode():
        assert importlib.import_module('pcdet').__version__ == '0+not-set-up'
    (package / 'pcdet/version.py').write_text("__version__ = '0.6.0'")
    importlib.invalidate_caches()
    with cpu_mode():
        assert importlib.import_module('pcdet').__version__ == '0.6.0'


def test_stand_ins_end_with_the_mode(package):
    boxes, out = torch.tensor([[0.0, 0, 0, 2, 1, 1, 0]]), torch.zeros(1, 1)
    with cpu_mode():
        compiled = importlib.import_module('pcdet.ops.iou3d_nms.iou3d_nms_utils').iou3d_nms_cuda
        with cpu_mode():
            pass
        compiled.boxes_iou_bev_gpu(boxes, boxes, out)
        assert out.item() == 1
    with pytest.raises(CpuModeError, match='boxes_iou_bev_gpu to be called within cpu_mode'):
        compiled.boxes_iou_bev_gpu(boxes, boxes, out)
    with cpu_mode(), pytest.raises(CpuModeError, match='after its end'):
        compiled.boxes_iou_bev_gpu(boxes, boxes, out)


def test_every_extension_imports_and_says_what_it_lacks(package):
    with cpu_mode():
        for name in EXTENSIONS:
            for part in ('pcdet.ops.' + name.split('.')[2], name.rpartition('.')[0]):
                path = package / part.replace('.', '/')
                path.mkdir(parents=True, exist_ok=True)
                (path / '__init__.py').touch()
            importlib.invalidate_caches()
            module = importlib.import_module(name)
            with pytest.raises(CpuModeError, match='run this model on a GPU'):
                module.no_such_operator(1)


def test_packages_that_are_rarely_used_refuse_when_they_are_used(package):
    with cpu_mode():
        utils = importlib.import_module('pcdet.utils')
        with pytest.raises(CpuModeError, match='SharedArray.attach.*USE_SHARED_MEMORY'):
            utils.SharedArray.attach('shm://a')
        with pytest.raises(CpuModeError, match='torchvision.transforms.Compose'):
            utils.torchvision.transforms.Compose([])
        with pytest.raises(CpuModeError, match='cv2.imread.*pip install opencv-python-headless'):
            utils.cv2.imread('picture.jpg')
        with pytest.raises(CpuModeError, match='--eval_all'):
            utils.SummaryWriter('folder')
        with pytest.raises(CpuModeError, match='pip install av2'):
            importlib.import_module('pcdet.datasets').Argo2Dataset()
        scatter = importlib.import_module('pcdet.pillars').torch_scatter
        ones, index = torch.ones(2, 1), torch.zeros(2, dtype=torch.int64)
        assert scatter.scatter_mean(ones, index, dim=0).tolist() == [[1]]


def test_a_package_that_is_needed_is_named_with_the_extra(package, monkeypatch):
    monkeypatch.setitem(packages.REQUIRED, 'no_such_needed_package', 'its-name')
    monkeypatch.setitem(packages.REQUIRED, 'nor_this_one', 'nor-this')
    message = r'explain3d\[pcdet\].*pip install .*its-name nor-this'
    with cpu_mode(), pytest.raises(MissingPackageError, match=message):
        importlib.import_module('pcdet.needs')


def test_kitti_evaluation_gets_the_rotated_overlap(package):
    with cpu_mode():
        evaluation = importlib.import_module('pcdet.datasets.kitti.kitti_object_eval_python.eval')
        box = torch.tensor([[0.0, 0, 2, 1, 0.3]]).numpy()
        assert evaluation.rotate_iou_gpu_eval(box, box).item() == 1


def test_torch_answers_on_the_cpu(monkeypatch, tmp_path):
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    tensor, module = torch.ones(2), nn.Linear(1, 1)
    with cpu_mode():
        assert tensor.cuda() is tensor
        assert tensor.cuda(0, non_blocking=True) is tensor
        assert module.cuda() is module
        assert torch.cuda.FloatTensor(2, 3).shape == (2, 3)
        assert torch.cuda.IntTensor(torch.Size((4,))).dtype == torch.int32
        assert torch.cuda.device_count() == 1
        torch.cuda.set_device(3)
        torch.cuda.synchronize()
        assert vars(np)['int'] is int
        monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
        assert torch.cuda.device_count() == 2
        before = multiprocessing.get_start_method()
        multiprocessing.set_start_method('spawn')
        assert multiprocessing.get_start_method() == before
        buffer = io.BytesIO()
        torch.save({'a': tensor}, buffer)
        buffer.seek(0)
        assert torch.load(buffer, map_location=None)['a'].device.type == 'cpu'


def test_nccl_becomes_gloo(tmp_path):
    with cpu_mode():
        distributed.init_process_group(
            backend='nccl', init_method=f'file://{tmp_path}/join', rank=0, world_size=1
        )
        try:
            assert distributed.get_backend() == 'gloo'
        finally:
            distributed.destroy_process_group()


def test_the_wrapper_for_several_processes_gets_no_devices(monkeypatch):
    received = {}
    stock = nn.parallel.DistributedDataParallel
    monkeypatch.setattr(stock, '__init__', lambda self, module, **kwargs: received.update(kwargs))
    with cpu_mode():
        wrapper = nn.parallel.DistributedDataParallel
        wrapper(nn.Linear(1, 1), device_ids=[1], broadcast_buffers=False)
    assert issubclass(wrapper, stock)
    assert received == {'device_ids': None, 'output_device': None, 'broadcast_buffers': False}
