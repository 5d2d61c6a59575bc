"""What the command lines of the benchmark's tools share."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import UnknownNameError
from ...methods import EXPLAINERS
from .benchmark_plan import BenchmarkPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds detector, weights, methods and where to run."""
    parser.add_argument(
        'config', help='configuration of the detector; its "benchmark" has defaults'
    )
    parser.add_argument('checkpoint', nargs='?', help="default: the configuration's load_from")
    parser.add_argument('--methods', nargs='+', help='names, or "Name(option=value, ...)"')
    parser.add_argument(
        '--device',
        help="where the detector runs; default: the configuration's, or GPUs where there are, "
        'one for each worker in turn',
    )
    parser.add_argument('--batch-size', type=positive, default=4, help='clouds at a time')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[],
        help='entries of the configuration to replace, as in tools/test.py: name.name=value',
    )  # fmt: skip
    parser.add_argument('--pcdet', help='checkout of OpenPCDet; default: environment PCDET_ROOT')


def parsed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Returns the arguments, options of the configuration as their host reads them.

    Raises:
        InputError: If such an option cannot be read.
    """
    args = parser.parse_args(argv)
    if args.pcdet:
        os.environ['PCDET_ROOT'] = args.pcdet  # Where processes of this one look, too.
    args.cfg_options = host_of(args.config).options_of(args.cfg_options)
    return args


def host_of(config: str) -> Any:
    """Returns the module of the host to which a configuration belongs, YAML being OpenPCDet's.

    It has ``opened``, ``run_share``, ``benchmark_settings``, ``clouds`` and ``options_of``.
    """
    host = 'pcdet' if is_yaml(config) else 'mmdet3d'
    return importlib.import_module(f'explain3d.adapters.{host}.benchmark')


def is_yaml(config: str) -> bool:
    """Whether a configuration is a YAML file, as OpenPCDet has them."""
    return str(config).endswith(('.yaml', '.yml'))


def positive(text: str) -> int:
    """Returns a whole number of at least 1, for ``argparse``."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, got {text!r}')
    return int(text)


def method_of(text: str, known: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Returns the configuration that ``Name`` or ``Name(option=value)`` stands for.

    Args:
        text: What the user wrote: a name of the configuration or of a registered method; the
            options win over those of the configuration.
        known: The methods of the configuration by their names.

    Raises:
        UnknownNameError: If it is neither, or there is no such method.
    """
    known = known or {}
    if text in known:
        return dict(known[text])
    try:
        call = ast.parse(text.strip(), mode='eval').body
        name = call.func if isinstance(call, ast.Call) and not call.args else call
        options = call.keywords if isinstance(call, ast.Call) else []
        base = known.get(name.id, dict(type=name.id))
        method = dict(base, **{k.arg: ast.literal_eval(k.value) for k in options})
    except (SyntaxError, ValueError, AttributeError, TypeError):
        method = {}
    if method.get('type') not in EXPLAINERS:
        raise UnknownNameError(
            f'Unknown method {text!r}: expected one of the configuration ({list(known)}), or '
            f'Name or "Name(option=value, ...)" with one of {list(EXPLAINERS)}.'
        )
    return method


def plan_of(args: argparse.Namespace, **given: Any) -> BenchmarkPlan:
    """Returns the plan of a command line; what it leaves out comes from the configuration.

    Args:
        args: With those of ``add_arguments``; ``targets``, ``metrics``, ``frames`` and
            ``reference`` count where they are.
        given: Attributes of the plan that win.

    Raises:
        UnknownNameError: If a method, metric, reference or an entry of ``benchmark`` is unknown.
        InputError: As ``BenchmarkPlan``.
    """
    settings = host_of(args.config).benchmark_settings(args.config, args.cfg_options)
    methods = settings.get('methods', {})
    if args.methods:
        methods = {text: method_of(text, methods) for text in args.methods}
    reference = settings.pop('reference', None)
    plain = {name: getattr(args, name, None) for name in ('targets', 'metrics', 'frames')}
    # A reference of the configuration counts where it is among the methods.
    plain['reference'] = getattr(args, 'reference', None) or (
        reference if reference in methods else None
    )
    return BenchmarkPlan.of(
        settings, config=args.config, checkpoint=args.checkpoint, methods=methods,
        device=args.device, batch_size=args.batch_size, options=args.cfg_options,
        **{**plain, **given},
    )  # fmt: skip
