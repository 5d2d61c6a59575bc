"""Decomposing a network from its seeds to its outputs, in the run that it makes anyway."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core.capture import is_sparse_convolution
from ..core.errors import InputError, NotApplicableError, UnknownNameError
from ..core.precision import kernel_settings, reproducible_kernels
from ..core.session import overridden
from . import rules as _rules  # noqa: F401 - registers the rules
from .call import Call
from .components import BIAS, Components
from .constructors import WATCH
from .dispatch import unknown
from .exports import Export
from .frozen import FrozenRecord, RecordedOperation, describe, replayed
from .nested import exchange_at, exchanged, named_arguments, tensors
from .paths import check_visible, paths_of, visible_modules
from .registry import method_rules_of, module_rule_of
from .report import LayerReport, Measured, measure
from .rows import Rows
from .seeds import Seed, entries_by_value, slices_of
from .settings import Rules, check_modalities
from .twin import Carried, Twin, plain
from .verification import Verification, has_wrong_values, not_finite
from .voxel_order import InRecordedOrder

MODES = ('production', 'check')


@dataclass(frozen=True)
class Output:
    """A tensor at which the decomposition ends.

    Attributes:
        module: Path of the module that gives it.
        path: Position in the module's output, as in ``Seed``; '' is an output that is a tensor.
        call: Which of the module's runs in one forward pass, from 0; None if it runs once.
    """

    module: str
    path: str = ''
    call: int | None = None


class Decomposition:
    """Decomposes whatever ``model`` computes while this context lasts (Eq. 20-24 of LMD).

    The network's values, outputs and in-place effects are its own, bit for bit. Each forward pass
    starts afresh.

    Args:
        model: Any network in eval mode. Within the context its modules' ``forward`` are wrapped;
            afterwards, also after an exception, everything is as it was.
        seeds: Where components start; two or more modalities together.
        outputs: Where they end: paths of modules, or names with ``Output``s. The network goes on
            with plain tensors from there. A module that gives several tensors has each of them
            under 'name.path'.
        rules: The rules, or a dict of them.
        mode: 'production' carries a component for each modality, the bias is the difference to the
            value; 'check' carries the bias too and measures the residual at every tensor.
        capture: Paths of modules whose outputs are to be kept, without ending there.
        stop: Paths of modules behind which the network goes on with plain tensors, unrecorded.
        record: Whether to keep a ``FrozenRecord`` of the last forward pass.
        frozen: A record to replay: the components are those of the linear network that was
            recorded, whatever the input. The network's own outputs remain those of the input.
        tf32: Whether GPUs may compute float32 in TF32 as the process has it set. By default it is
            off within the context, for the network as well: components then add up to 1e-5, and
            with it to about 4e-4.
        deterministic: Whether the same input has to give the same bits on a GPU: see
            ``core.precision.deterministic_kernels``.

    Attributes:
        modalities: Their names, in the order of the seeds.
        names: The modalities, then 'bias'.
        outputs: ``Components`` by name; reading them raises InputError if one is not finite, which
            waits for the device. ``raw_outputs`` and ``raw_captured`` are not looked at. With
            ``frozen``, ``value`` is that of the frozen network, and the network's own is in
            ``plain_outputs``.
        captured: ``Components`` by module path, likewise; with '#1', '#2', ... for later runs.
        plain_outputs: The network's own tensors at the outputs.
        record: The record of the last pass, or None.
        kernels: Whether TF32 and deterministic algorithms were in force, as plain data.
        exports: Where the last pass read decomposed values out of torch, see ``Rules.exports``.

    Raises:
        InputError: If the seeds, the mode or a frozen record do not fit.
        UnknownNameError: If a module, path or rule does not exist.

    Examples:
        >>> seeds = [Seed('fuser', split=dict(camera=128, radar=16))]  # doctest: +SKIP
        >>> with Decomposition(model, seeds, ['decoder.head']) as run:  # doctest: +SKIP
        ...     y = model(x)
        >>> run.outputs['decoder.head']['radar'].shape  # doctest: +SKIP
    """

    #: Whether components have a graph; see ``linearized.LinearNetwork``.
    differentiable = False
    #: How many modalities there have to be.
    least_modalities = 2

    def __init__(
        self,
        model: nn.Module,
        seeds: Sequence[Seed],
        outputs: Sequence[str] | Mapping[str, Output | str],
        rules: Rules | Mapping[str, Any] | None = None,
        mode: str = 'production',
        capture: Sequence[str] = (),
        stop: Sequence[str] = (),
        record: bool = False,
        frozen: FrozenRecord | None = None,
        tf32: bool = False,
        deterministic: bool = False,
    ) -> None:
        if mode not in MODES:
            raise UnknownNameError(f'Unknown mode {mode!r}: expected one of {list(MODES)}.')
        self.model, self.mode, self.frozen = model, mode, frozen
        self.seeds, self.tf32, self.deterministic = tuple(seeds), tf32, deterministic
        self.modalities = tuple(dict.fromkeys(m for s in self.seeds for m in s.modalities))
        check_modalities(self.modalities, self.least_modalities)
        self.names = (*self.modalities, BIAS)
        self.rules = _fitting_rules(rules, frozen, self.names)
        self._outputs = _as_outputs(outputs)
        self._capture, self._stop = tuple(capture), tuple(stop)
        self._paths = paths_of(model, self._mentioned())
        check_visible(model, self._mentioned())
        self.checks = mode == 'check'
        self.remembers = record or frozen is not None
        self._records = record
        bias, value = len(self.modalities), len(self.modalities) + 1
        self.constant_ids = (bias,) * (self.checks or frozen is not None)
        if self.checks and frozen is not None:
            self.constant_ids = (bias, value)
        self.is_active = False
        self.kernels: dict[str, Any] = {}
        self._hooks: ExitStack | None = None
        self._rules_by_module: dict[str, Rules] = {}
        self._living: dict[int, weakref.ref[Tensor]] = {}
        self._start()

    # ------------------------------------------------------------------ the context

    def __enter__(self) -> Decomposition:
        """Wraps the modules' ``forward``."""
        if self._hooks is not None:
            raise InputError('This decomposition is running already: make a second one.')
        self._start()
        with ExitStack() as hooks:
            hooks.enter_context(reproducible_kernels(self.deterministic, self.tf32))
            for module in visible_modules(self.model):
                self._check_free(module)
                hooks.enter_context(overridden(module, 'forward', self._wrapped(module)))
                for name, rule in method_rules_of(module):
                    method = self._wrapped_method(module, getattr(module, name), rule)
                    hooks.enter_context(overridden(module, name, method))
            hooks.enter_context(WATCH)
            hooks.callback(self._release)
            self._hooks = hooks.pop_all()
        self.is_active = True
        self.kernels = kernel_settings()
        return self

    def __exit__(self, *exception: object) -> None:
        """Puts everything back."""
        self.is_active = False
        hooks, self._hooks = self._hooks, None
        hooks.close()

    def _check_free(self, module: nn.Module) -> None:
        if getattr(vars(module).get('forward'), 'is_of_decomposition', False):
            raise InputError(
                f'Module {self._paths[id(module)]!r} belongs to another decomposition that has not '
                'ended: expected one at a time. Leave the other one first.'
            )

    @property
    def is_linear(self) -> bool:
        """Whether components go through a linear map that is fixed: replayed, or with a graph."""
        return self.frozen is not None or self.differentiable

    @property
    def outputs(self) -> dict[str, Components]:
        """The decomposition of each output, by name."""
        self.verification.check()
        return self.raw_outputs

    @property
    def captured(self) -> dict[str, Components]:
        """The decomposition of each captured layer, by the path of its module."""
        self.verification.check()
        return self.raw_captured

    @property
    def layers(self) -> list[LayerReport]:
        """Shares and residual of every tensor, in order; only in check mode."""
        if not self.checks:
            raise NotApplicableError("Layers are measured with mode='check', received production.")
        return [measured.read(self.names) for measured in self._measured]

    @property
    def residual(self) -> float | None:
        """The largest residual of all tensors; None in production mode, which measures none."""
        if not self.checks:
            return None
        residuals = [measured.residual for measured in self._measured]
        return float(torch.stack(residuals).max()) if residuals else 0.0

    def _start(self) -> None:
        """Forgets the last forward pass."""
        self.raw_outputs: dict[str, Components] = {}
        self.raw_captured: dict[str, Components] = {}
        self.verification = Verification()
        self.plain_outputs: dict[str, Tensor] = {}
        self.record = FrozenRecord(self.names, self.rules) if self._records else None
        self._measured: list[Measured] = []
        self._runs: dict[str, int] = {}
        self._inside: list[str] = []
        self.exports: list[Export] = []
        self.has_read = False
        self._cursor = 0
        self._sparse_runs: Counter[str] = Counter()

    def _release(self) -> None:
        """Makes every tensor that is still carried plain again."""
        for reference in list(self._living.values()):
            tensor = reference()
            if tensor is not None and isinstance(tensor, Carried):
                del tensor._twin
                tensor.__class__ = Tensor
        self._living.clear()

    # ------------------------------------------------------------------ the modules

    def _wrapped(self, module: nn.Module) -> Callable:
        forward, path = module.forward, self._paths[id(module)]
        special = self._special(path)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not self.is_active:
                return forward(*args, **kwargs)
            if module is self.model and not self._inside:
                return self._forward_pass(forward, args, kwargs)
            with self._within(path):
                if not special:
                    return self._run_module(module, path, forward, args, kwargs)
                args, kwargs = self._seed_arguments(module, path, args, kwargs)
                out = self._run_module(module, path, forward, args, kwargs)
                return self._after(path, out)

        wrapper.is_of_decomposition = True
        return wrapper

    def _wrapped_method(self, module: nn.Module, method: Callable, rule: Callable) -> Callable:
        path = self._paths[id(module)]

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            carried = _carried(args, kwargs) if self.is_active else []
            if not carried:
                return method(*args, **kwargs)
            with self._within(path), self._calling(module, method, args, kwargs, carried) as call:
                return rule(call, module, *args, **kwargs)

        return wrapper

    def _forward_pass(self, forward: Callable, args: tuple, kwargs: dict) -> Any:
        self._start()
        try:
            with self._within(''):
                args, kwargs = self._seed_arguments(self.model, '', args, kwargs)
                out = self._run_module(self.model, '', forward, args, kwargs)
                out = self._after('', out)
            self._check_complete()
        finally:
            self._release()
        return out

    @contextmanager
    def _within(self, path: str) -> Iterator[None]:
        self._inside.append(path)
        try:
            yield
        finally:
            self._inside.pop()

    @property
    def module(self) -> str:
        """Path of the module that runs now."""
        return self._inside[-1] if self._inside else ''

    def rules_here(self) -> Rules:
        """Returns the rules at the module that runs now."""
        path = self.module
        if path not in self._rules_by_module:
            self._rules_by_module[path] = self.rules.at(path)
        return self._rules_by_module[path]

    def _run_module(
        self, module: nn.Module, path: str, forward: Callable, args: tuple, kwargs: dict
    ) -> Any:
        carried = _carried(args, kwargs)
        if self.remembers and is_sparse_convolution(module):
            forward = InRecordedOrder(self, module, forward, strict=bool(carried))
        if not carried:
            return forward(*args, **kwargs)
        rule, constant = module_rule_of(module), self.rules_here().module == 'constant'
        if rule is None and not constant:
            out = forward(*args, **kwargs)
            self._check_not_lost(module, path, out)
            return out
        if not constant and getattr(rule, 'of_forward', False):
            return rule(self, forward, module, args, kwargs)
        with self._calling(module, forward, args, kwargs, carried) as call:
            if not constant:
                return rule(call, module, *args, **kwargs)
            args, kwargs = exchanged((args, kwargs), lambda _, tensor: plain(tensor))
            out = call.plain(*args, **kwargs)
            return exchanged(out, lambda where, tensor: self._as_constant(call, where, tensor))

    @contextmanager
    def _calling(
        self, module: nn.Module, func: Callable, args: tuple, kwargs: dict, carried: list[Carried]
    ) -> Iterator[Call]:
        """Yields one call of a module or of its method; carried tensors behave as plain ones."""
        grad = torch.is_grad_enabled()
        with torch._C.DisableTorchFunctionSubclass(), torch.set_grad_enabled(self.differentiable):
            call = Call(self, func, args, kwargs, carried, type(module).__name__)
            call._grad = grad
            yield call

    def _as_constant(self, call: Call, where: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return call.carry_constant(tensor.view_as(tensor), name=where)

    def _check_not_lost(self, module: nn.Module, path: str, out: Any) -> None:
        found = [t for _, t in tensors(out) if t.is_floating_point()]
        if not found or any(isinstance(t, Carried) for t in found):
            return
        if module is self.model or any(f'{end}.'.startswith(f'{path}.') for end in self._ends()):
            return  # The decomposition ended inside, as it was told to.
        raise unknown(
            f'module {type(module).__name__}',
            path,
            ' Decomposed tensors go in and plain ones come out: an extension or an '
            'autograd.Function inside is not visible. Or register one for the module with '
            f'@explain3d.lmd.module_rule({type(module).__name__}).',
        )

    # ------------------------------------------------------------------ seeds

    def _special(self, path: str) -> bool:
        mentioned = {path for path, _ in self._mentioned()}
        return path in mentioned

    def _ends(self) -> set[str]:
        return {o.module for o in self._outputs.values()} | set(self._stop)

    def _mentioned(self) -> list[tuple[str, str]]:
        """The module paths that the user named, with what for."""
        return [
            *((seed.module, 'seed') for seed in self.seeds),
            *((output.module, 'output') for output in self._outputs.values()),
            *((path, 'capture') for path in self._capture),
            *((path, 'stop') for path in self._stop),
        ]

    def _seed_arguments(
        self, module: nn.Module, path: str, args: tuple, kwargs: dict
    ) -> tuple[tuple, dict]:
        for seed in self.seeds:
            if seed.module != path or seed.at != 'input':
                continue
            given = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
            first, _, rest = (seed.path or '0').partition('.')
            if first not in given:
                first = named_arguments(module, args, kwargs).get(first, first)
            where = f'the arguments of module {path!r}'
            key = f'{first}.{rest}' if rest else first
            given = exchange_at(given, key, lambda value, seed=seed: self._seed(seed, value), where)
            args = tuple(given[str(i)] for i in range(len(args)))
            kwargs = {name: given[name] for name in kwargs}
        return args, kwargs

    def _seed(self, seed: Seed, value: Tensor) -> Tensor:
        """Returns an alias of ``value`` that carries the seed's components."""
        where = f'the seed at module {seed.module!r}, path {seed.path!r}'
        if isinstance(value, Carried):
            raise InputError(f'The tensor of {where} is decomposed already: seed it once.')
        if not value.is_floating_point():
            raise InputError(f'Expected a real tensor at {where}, received {value.dtype}.')
        self._runs[repr(seed)] = self._runs.get(repr(seed), 0) + 1
        if any(s == 0 and n > 1 for n, s in zip(value.shape, value.stride(), strict=True)):
            value = value.contiguous()
        with torch.no_grad():
            pieces = self._pieces(seed, value.detach(), where)
        alias = value.as_subclass(Tensor) if type(value) is not Tensor else value.view_as(value)
        return self.carry(alias, Twin.of_pieces(self, alias, seed.dim % value.dim(), pieces))

    def _pieces(self, seed: Seed, value: Tensor, where: str) -> list[Rows]:
        """Returns the components of ``value``: in slices along ``seed.dim`` where it is split."""
        # A frozen run in check mode carries the value of the frozen network as well.
        also = tuple(i for i in self.constant_ids if i > len(self.modalities))
        numbers = [self.modalities.index(name) for name in seed.modalities]
        if seed.intervals is not None:
            parts = entries_by_value(seed, value, where)
            order = sorted(range(len(numbers)), key=numbers.__getitem__)
            stack = torch.stack([parts[i] for i in order] + [value] * len(also))
            return [Rows((*sorted(numbers), *also), stack)]
        parts = [value] if seed.split is None else slices_of(seed, value, where)
        return [
            Rows((number, *also), torch.stack([part] * (1 + len(also))))
            for part, number in zip(parts, numbers, strict=True)
        ]

    # ------------------------------------------------------------------ outputs

    def _after(self, path: str, out: Any) -> Any:
        """Seeds, captures and ends at the output of a module."""
        for seed in self.seeds:
            if seed.module == path and seed.at == 'output':
                where = f'the output of module {path!r}'
                out = exchange_at(
                    out, seed.path, lambda value, seed=seed: self._seed(seed, value), where
                )
        count = self._runs[path] = self._runs.get(path, -1) + 1
        if path in self._capture:
            name = f'{path}#{count}' if count else path
            self._keep(name, out, self.raw_captured)
        for name, output in self._outputs.items():
            if output.module == path:
                self._keep_output(name, output, count, out)
        if path in self._ends():
            out = exchanged(out, lambda _, tensor: plain(tensor))
        return out

    def _keep_output(self, name: str, output: Output, count: int, out: Any) -> None:
        if output.call is None and count:
            raise NotApplicableError(
                f'Module {output.module!r} of output {name!r} ran more than once in a forward '
                f'pass: expected one run. Say which: Output({output.module!r}, call=0).'
            )
        if count != (output.call or 0):
            return
        if output.path:
            where = f'the output of module {output.module!r}'
            exchange_at(out, output.path, lambda value: value, where)
            out = dict(tensors(out))[output.path]
        if not self._keep(name, out, self.raw_outputs):
            missing = [seed.module for seed in self.seeds if not self._runs.get(repr(seed))]
            raise NotApplicableError(
                f'Output {name!r} at module {output.module!r} carries no components: expected '
                'seeds before it, and no other output or stop between them. The forward pass has '
                f'not reached the seeds at {missing}.'
            )

    def _keep(self, name: str, out: Any, where: dict[str, Components]) -> bool:
        found = [(path, t) for path, t in tensors(out) if isinstance(t, Carried)]
        for path, tensor in found:
            key = f'{name}.{path}' if path else name
            where[key] = components = self.components(tensor)
            measured = self._measured if self.checks else None
            self.verification.ask(has_wrong_values(components), partial(not_finite, key, measured))
            if where is self.raw_outputs:
                self.plain_outputs[key] = plain(tensor).detach().clone()
        return bool(found)

    def components(self, tensor: Carried) -> Components:
        """Returns the components of a carried tensor, as they are now."""
        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            size, rows = len(self.modalities), tensor._twin.rows(tensor)
            value = tensor.detach().clone().as_subclass(Tensor)
            if self.constant_ids:
                parts = rows.select(range(size + 1)).stack
            else:
                parts = rows.select(range(size)).stack
                parts = torch.cat([parts, (value - parts.sum(0))[None]])
            if self.frozen is not None:
                value = rows.select((size + 1,)).stack[0] if self.checks else parts.sum(0)
            parts = parts.clone() if parts is rows.stack or not self.constant_ids else parts
            residual = tensor._twin.residual
            residual = None if not self.checks else float(residual if residual is not None else 0)
            return Components(value.clone(), parts.clone(), self.names, residual)

    def _check_complete(self) -> None:
        for seed in self.seeds:
            if not self._runs.get(repr(seed)):
                raise NotApplicableError(
                    f'The forward pass did not reach the seed at module {seed.module!r}: expected '
                    'a module that runs.'
                )
        for name, output in self._outputs.items():
            if self._runs.get(output.module, -1) < (output.call or 0):
                raise NotApplicableError(
                    f'The forward pass did not reach output {name!r} at module '
                    f'{output.module!r}: expected a module that runs.'
                )
        if self.frozen is not None and self._cursor != len(self.frozen.operations):
            missing = self.frozen.operations[self._cursor]
            raise InputError(
                f'The frozen record does not fit: {describe(missing)} did not run. Record the '
                'same network on an input of the same shapes.'
            )

    # ------------------------------------------------------------------ called by rules

    def carry(self, tensor: Tensor, twin: Twin) -> Tensor:
        """Makes ``tensor`` a carried one."""
        if type(tensor) is not Tensor and not isinstance(tensor, Carried):
            tensor = tensor.as_subclass(Tensor)
        tensor.__class__ = Carried
        tensor._twin = twin
        key = id(tensor)
        self._living[key] = weakref.ref(tensor, lambda _: self._living.pop(key, None))
        return tensor

    def adopt(self, target: Any, operation: str) -> None:
        """Makes a plain tensor that is about to be written to, and its base, carried ones."""
        if type(target) is not Tensor or not target.is_floating_point():
            raise NotApplicableError(
                f'{operation} in module {self.module!r} writes decomposed values into '
                f'{type(target).__name__} of type {getattr(target, "dtype", None)}: expected a '
                'floating-point tensor.'
            )
        base = target if target._base is None else target._base
        whole = target.untyped_storage().nbytes() == target.numel() * target.element_size()
        if target.is_inference() and not whole:
            raise NotApplicableError(
                f'{operation} in module {self.module!r} writes decomposed values into a view, '
                'whose base is unknown in inference mode: use torch.no_grad() instead.'
            )
        if not isinstance(base, Carried):
            content = base.detach()
            if self.remembers:
                shapes = (tuple(base.shape),)
                now = self.remember(RecordedOperation('writing into', self.module, shapes))
                content = now.items.setdefault('constant', content.clone())
            ids = self.constant_ids
            rows = Rows(ids, torch.stack([content] * len(ids)) if ids else content[None][:0])
            self.carry(base, Twin(self, base, rows))
        if target is not base:
            self.carry(target, base._twin)

    def remember(self, operation: RecordedOperation) -> RecordedOperation:
        """Adds an operation to the record, or returns its counterpart in the frozen one."""
        if self.frozen is not None:
            operation = replayed(self.frozen, self._cursor, operation)
            self._cursor += 1
        elif self.record is not None:
            self.record.operations.append(operation)
        return operation

    def noted_voxels(
        self, path: str, voxels: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor] | None:
        """Notes the voxels of a sparse convolution, or returns those of the frozen record.

        Args:
            path: Path of the convolution.
            voxels: Gives its cells.
        """
        key = path, self._sparse_runs[path]
        self._sparse_runs[path] += 1
        if self.frozen is not None:
            return self.frozen.voxels.get(key)
        return self.record.voxels.setdefault(key, voxels())

    def measure(self, out: Carried, call: Call) -> None:
        """Measures conservation and shares of a result (check mode)."""
        twin = out._twin
        dim, pieces = twin._pieces or (0, None)
        pieces = pieces or [twin.rows(out)]
        residual, masses = measure(out.detach(), pieces, dim, len(self.modalities))
        measured = Measured(call.module, call.operation, tuple(out.shape), residual, masses)
        self._measured.append(measured)
        for source in (twin, *(t._twin for t in call.carried)):
            if source.residual is not None:
                residual = torch.maximum(residual, source.residual.to(residual.device))
        twin.residual = residual


def decompose_module(
    model: nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **settings
) -> tuple[Any, Decomposition]:
    """Runs ``model(*args, **kwargs)`` once within a ``Decomposition`` with these settings.

    Returns:
        What the model gave, and the decomposition, which holds outputs and captured layers.
    """
    with Decomposition(model, **settings) as run:
        out = model(*args, **dict(kwargs or {}))
    return out, run


def _carried(args: tuple, kwargs: dict) -> list[Carried]:
    return [t for _, t in tensors((args, kwargs)) if isinstance(t, Carried)]


def _as_outputs(outputs: Sequence[str] | Mapping[str, Output | str]) -> dict[str, Output]:
    if isinstance(outputs, str):
        raise InputError(f'Expected a list of outputs, received the text {outputs!r}.')
    if not isinstance(outputs, Mapping):
        outputs = {o.module if isinstance(o, Output) else o: o for o in outputs}
    return {n: o if isinstance(o, Output) else Output(o) for n, o in outputs.items()}


def _fitting_rules(rules: Any, frozen: FrozenRecord | None, names: tuple[str, ...]) -> Rules:
    if frozen is None:
        return Rules.from_config(rules)
    if frozen.names != names:
        raise InputError(f'The frozen record is of {frozen.names}, received seeds of {names}.')
    if rules is not None and Rules.from_config(rules) != frozen.rules:
        raise InputError(
            'The frozen record follows other rules than those given: leave rules out, or record '
            'with them.'
        )
    return frozen.rules
