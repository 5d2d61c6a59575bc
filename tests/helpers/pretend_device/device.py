"""A GPU that is not there: on a CPU build of torch, a ``cuda:0`` that is memory of the CPU.

``device.cpp`` gives torch what it lacks: a device guard, an accelerator that is available,
and for every operator of the CUDA key a fallback that runs the CPU's on aliases of the same memory.
So tensors are plain ``torch.Tensor``s with ``device`` cuda:0: views, in-place operations, autograd
(on the device's own thread), autocast, ``inference_mode`` and ``tensor.__class__ = ...`` behave as
on CUDA. Inside ``with PretendDevice() as device:``

- an operation that mixes devices RAISES, except where CUDA takes CPU tensors (copies, index
  tensors, 0-dim tensors of pointwise operations), and so do random numbers of a CPU generator;
- ``device.waits`` counts what makes the host wait, by the innermost line of the project and kind:
  ``item`` (bool, float, int, equal, bincount, eigh's check), ``nonzero`` (boolean masks; repeats
  without ``output_size``), ``unique``, ``stream``, ``d2h`` and ``h2d``: copies from and to pageable
  memory, after which torch synchronises: ``torch.tensor(list, device=...)``, index lists;
- a non-blocking copy into pinned memory holds garbage until its stream is synchronised;
- ``device.chance`` counts operations whose sums depend on the order of CUDA's threads;
- ``device.doubles`` counts float64 operations. ``operations`` counts all of them.

Extensions compiled for CPUs (mmcv's, spconv's) refuse or misread such tensors: ``compiled(module)``
hands them aliases. Kernels, rounding, races and memory are the CPU's: what is found are wrong
devices and waits, not wrong numbers. Never use it in a process that is to use a real GPU.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from .build import built

#: Frames of the device itself, and of the plugin beside it, are nobody's.
HERE = str(Path(__file__).parent)
DEVICE = torch.device('cuda:0')
aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
            aten._index_put_impl_.default, aten.index.Tensor_out}  # fmt: skip
COPIES = {aten.copy_.default, aten._to_copy.default, aten.copy.default}
#: Not tagged as pointwise, yet they take 0-dim CPU tensors.
SCALARS = {'where', 'masked_fill', 'masked_fill_', 'fill_', 'fill', 'clamp', 'lerp', 'index_fill',
           'index_fill_', 'index_put', 'index_put_', '_index_put_impl_'}  # fmt: skip
WAITS = {
    **dict.fromkeys(('_local_scalar_dense', 'equal', 'bincount', 'linalg_eigh', '_linalg_eigh',
                     '_linalg_svd', 'linalg_svd'), 'item'),
    **dict.fromkeys(('nonzero', 'masked_select'), 'nonzero'),
    **dict.fromkeys(('_unique', '_unique2', 'unique_dim', 'unique_consecutive',
                     'unique_dim_consecutive'), 'unique'),
}  # fmt: skip

#: On CUDA the result of floating numbers depends on the order in which threads come
#: (``torch.use_deterministic_algorithms`` lists them); of cuDNN's backward unless it is told.
CHANCE = {'index_add', 'index_add_', 'scatter_add', 'scatter_add_', 'cumsum', 'cumsum_', 'put_',
          'grid_sampler_2d_backward', 'grid_sampler_3d_backward', 'convolution_backward',
          'upsample_bilinear2d_backward', 'upsample_nearest2d_backward', '_embedding_bag_backward',
          'embedding_dense_backward', 'max_pool3d_with_indices_backward', 'bincount', 'histc',
          'scatter_reduce', 'scatter_reduce_',
          '_adaptive_avg_pool2d_backward', 'reflection_pad2d_backward'}  # fmt: skip


#: To be loaded before autograd starts its threads, one of which is the device's.
LIBRARY = ctypes.CDLL(str(built()))


def is_here(value) -> bool:
    """Whether ``value`` is a tensor of the pretended device."""
    return isinstance(value, torch.Tensor) and value.device.type == DEVICE.type


def is_plain(value) -> bool:
    """Whether ``value`` is a tensor of the CPU."""
    return isinstance(value, torch.Tensor) and value.device.type == 'cpu'


def renamed(value, device: str):
    """Returns ``value`` with its tensors over the same memory on ``device``, 'cpu' or 'cuda'."""
    return tree_map_only(torch.Tensor, getattr(torch.ops.pretend_device, device), value)


def compiled(module, names=()) -> ExitStack:
    """Lets an extension compiled for CPUs take the device's tensors, while the context lasts."""
    stack = ExitStack()
    names = names or [n for n, v in vars(module).items() if callable(v) and n[0] != '_']
    for name in names:
        function = getattr(module, name)
        stack.enter_context(mock.patch.object(module, name, partial(_on_host, function)))
    return stack


def _on_host(function, *args, **kwargs):
    if not any(is_here(value) for value in _values((args, kwargs))):
        return function(*args, **kwargs)
    args, kwargs = renamed((args, kwargs), 'cpu')
    # What it does to single values, a million of them in NMS, is nothing to watch.
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        found = function(*args, **kwargs)
    return renamed(found, 'cuda')


class PretendDevice(TorchDispatchMode):
    """See the module's documentation.

    Args:
        root: Waits are counted at the innermost line of a file whose path contains it.
        available: What ``torch.cuda.is_available()`` says.
        strict: Wrong devices raise; otherwise they are counted in ``mixed`` and go on.
        lenient: Code in files whose path contains it may mix devices.
    """

    def __init__(
        self,
        root: str = 'explain3d/',
        available: bool = True,
        strict: bool = True,
        lenient: str = '/tests/',
    ) -> None:
        super().__init__()
        self.root, self.available, self.strict, self.lenient = root, available, strict, lenient
        self.waits, self.doubles, self.mixed = Counter(), Counter(), Counter()
        self.chance = Counter()
        self.operations, self._copies, self._pinned = 0, [], {}

    def __enter__(self):
        self._stack = ExitStack()
        stream = SimpleNamespace(synchronize=self.synchronize, device=DEVICE, cuda_stream=0)
        state = torch.zeros(16, dtype=torch.uint8)
        for name, value in {
            '_lazy_init': lambda: None, 'is_available': lambda: self.available,
            'device_count': lambda: int(self.available), 'current_device': lambda: 0,
            'set_device': lambda *_: None, 'current_stream': lambda *_: stream,
            'synchronize': lambda *_: self.synchronize(), 'memory_allocated': lambda *_: 0,
            'max_memory_allocated': lambda *_: 0, 'reset_peak_memory_stats': lambda *_: None,
            'empty_cache': lambda: None, 'get_rng_state': lambda *_: state.clone(),
            'set_rng_state': lambda *_: None, 'manual_seed': lambda *_: None,
            'manual_seed_all': lambda *_: None, 'is_bf16_supported': lambda *_, **__: True,
            'get_device_name': lambda *_: 'pretended',
        }.items():  # fmt: skip
            self._stack.enter_context(mock.patch.object(torch.cuda, name, value))
        copy = torch.Tensor.__deepcopy__
        self._stack.enter_context(
            mock.patch.object(
                torch.Tensor, '__deepcopy__', lambda t, memo: _deepcopy(t, memo, copy)
            )
        )
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        LIBRARY.pretend(True)
        self._stack.callback(LIBRARY.pretend, False)
        return super().__enter__()

    def __exit__(self, *error):
        try:
            return super().__exit__(*error)
        finally:
            self._stack.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        every = _values((args, kwargs))
        ours = any(is_here(value) for value in every)
        target = kwargs.get('device')
        target = DEVICE.type if target is None and ours else target and torch.device(target).type
        pinned = kwargs.pop('pin_memory', None)
        if ours or target == DEVICE.type:
            self.operations += 1
            name = func._schema.name.partition('::')[2]
            if func in COPIES:
                if self._on_its_way(func, args, kwargs, target):
                    return args[0]
            elif ours:
                self._check(func, name, args, [v for v in every if is_plain(v)])
                self._count(func, name, args)
            drawn = kwargs.get('generator')
            if drawn is not None and target == DEVICE.type and not self.forgiving():
                raise RuntimeError(f"Expected a 'cuda' device type for generator: {func}")
        out = func(*args, **kwargs)
        if pinned and is_plain(out):
            self._pinned[out.untyped_storage().data_ptr()] = out
        if ours and self._by_chance(func, args, kwargs):
            self.note(str(func), self.chance)
        if is_here(out) and out.dtype == torch.float64:
            self.note('float64', self.doubles)
        return out

    def synchronize(self) -> None:
        """What is on its way to pinned memory arrives."""
        self.note('stream')
        for target, value in self._copies:
            target.copy_(value)
        self._copies.clear()

    def note(self, kind: str, counter: Counter | None = None) -> None:
        """Counts something at the innermost line of the project; nothing that lenient files do."""
        place = '(no line of the project: backward?)'
        for frame, name in _frames():
            if self.lenient in name:
                return
            if self.root in name:
                function = frame.f_code.co_name
                place = f'{name[name.rindex(self.root) :]}:{frame.f_lineno} {function}'
                break
        (self.waits if counter is None else counter)[place, kind] += 1

    def report(self, top: int = 40) -> str:
        """Returns the waits, the most frequent first."""
        rows = self.waits.most_common(top)
        return '\n'.join(f'{n:6d} {kind:8s} {place}' for (place, kind), n in rows)

    def forgiving(self) -> bool:
        """Whether the innermost frame of the project or of a lenient file is a lenient one."""
        for _, name in _frames():
            if self.lenient in name or self.root in name:
                return self.lenient in name
        return False

    def _check(self, func, name, args, plain) -> None:
        """Raises where CUDA would: tensors of both devices."""
        if func in INDEXING and is_here(args[0]):
            plain = [v for v in _values(args[2:]) if is_plain(v)]
            if any(is_plain(index) for index in args[1]):
                self.note('h2d')
        if torch.Tag.pointwise in func.tags or name in SCALARS:
            plain = [value for value in plain if value.dim()]
        if plain and not self.forgiving():
            self.note(str(func), self.mixed)
            if self.strict:
                raise RuntimeError(
                    'Expected all tensors to be on the same device, but found at least two '
                    f'devices, {DEVICE} and cpu! ({func}: {[tuple(v.shape) for v in plain]})'
                )

    def _by_chance(self, func, args, kwargs) -> bool:
        name = func._schema.name.partition('::')[2]
        if name not in CHANCE:
            return False
        if name == 'bincount':
            return len(args) > 1 and args[1] is not None
        if name.startswith('scatter_reduce'):  # The largest and the smallest are the same always.
            return args[4] not in ('amax', 'amin') and args[0].is_floating_point()
        return args[0].is_floating_point()

    def _on_its_way(self, func, args, kwargs, target) -> bool:
        """Counts copies between devices; True where the copy arrives with the stream."""
        to, source = (None, args[0]) if func is aten._to_copy.default else args[:2]
        there = target == DEVICE.type if to is None else is_here(to)
        if there == is_here(source):
            return False
        flag = kwargs.get('non_blocking', args[2] if to is not None and len(args) > 2 else False)
        ends = source if there else to
        pinned = ends is not None and ends.untyped_storage().data_ptr() in self._pinned
        if flag and pinned and not there:
            self._copies.append((to, renamed(source.clone(), 'cpu')))
            to.fill_(torch.nan if to.is_floating_point() else 77)
            return True
        if not (flag and pinned):
            self.note('h2d' if there else 'd2h')
        return False

    def _count(self, func, name, args) -> None:
        masks = any(is_here(v) and v.dtype in (torch.bool, torch.uint8) for v in args[1] or ()
                    ) if func in INDEXING else False  # fmt: skip
        if masks and func is aten.index.Tensor:
            self.note('nonzero')
        elif masks:
            one = args[2].numel() == 1 and not (len(args) > 3 and args[3])
            if not (one and is_plain(args[2])):  # Else it is masked_fill's.
                self.note('item' if one else 'nonzero')
        elif name in ('masked_fill', 'masked_fill_') and is_here(args[2]):
            self.note('item')
        elif name == 'repeat_interleave' and len(args) < 2:
            self.note('nonzero')
        elif name in WAITS:
            self.note(WAITS[name])


def _values(value) -> list:
    """Returns what lists, tuples and dicts hold; torch's own way takes most of a test's time."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return [value]
    return [one for part in value for one in _values(part)]


def _frames():
    frame = sys._getframe(2)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(HERE):
            yield frame, frame.f_code.co_filename
        frame = frame.f_back


def _deepcopy(tensor, memo, stock):
    if not is_here(tensor) or id(tensor) in memo:
        return stock(tensor, memo)
    copy = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    copy.__class__ = type(tensor)
    return memo.setdefault(id(tensor), copy)
