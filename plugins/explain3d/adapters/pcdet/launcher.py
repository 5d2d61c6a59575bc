"""Running OpenPCDet's own test script, unmodified, with an explainer attached."""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import Explain3DError, InputError
from ...core.session import overridden
from ..common.spconv_compat import ensure_cpu_backward
from .checkpoints import checked_checkpoints
from .config import data_path, read_config, require_frames
from .cpu import cpu_mode
from .entries import set_entry, taken_from
from .evaluation import explained
from .host import checked_script, find_script, import_host, require_device
from .settings import SECTION, settings_of

_USAGE = (
    'python -m explain3d.adapters.pcdet PATH/TO/OpenPCDet/tools/test.py --cfg_file CONFIG.yaml '
    '--ckpt CHECKPOINT [options of test.py]'
)


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m explain3d.adapters.pcdet``."""
    parser = _parser('Runs the test script of OpenPCDet, and explains what is detected.', _USAGE)
    parser.add_argument('script', help="OpenPCDet's tools/test.py")
    rank, argv = _without_rank(argv)
    args, rest = _parse(parser, argv)
    _report(lambda: run(checked_script(args.script), [*rank, *rest], **_options(args)))


def run_tool(argv: Sequence[str]) -> None:
    """The command ``tools/test.py CONFIG.yaml CHECKPOINT``: the same with fewer words."""
    usage = 'tools/test.py CONFIG.yaml [CHECKPOINT] [options]; no checkpoint with --eval_all'
    parser = _parser('Tests, and explains, a 3D detector of OpenPCDet.', usage)
    parser.add_argument('--pcdet', help='checkout of OpenPCDet; default: environment PCDET_ROOT')
    rank, argv = _without_rank(argv)
    # Options of the script have values, which a parser that does not know them takes for positions.
    files = list(itertools.takewhile(lambda a: not str(a).startswith('-'), argv))
    args, rest = _parse(parser, argv[len(files) :])
    if not 1 <= len(files) <= 2:
        parser.error(f'expected a configuration and a checkpoint in front, received {files}')
    named = itertools.chain(*zip(('--cfg_file', '--ckpt'), map(str, files), strict=False))
    rest = [*named, *rank, *rest]
    _report(lambda: run(find_script(args.pcdet), rest, **_options(args)))


def _parser(description: str, usage: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        usage=usage,
        allow_abbrev=False,
        epilog='All other options are those of the script.',
    )
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--out-dir', help='folder of the explanations')
    parser.add_argument('--no-explainer', action='store_true', help='run the test alone')
    return parser


def _parse(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Reads our options; those of the script, and whatever follows ``--set``, are left."""
    end = argv.index('--set') if '--set' in argv else len(argv)
    args, rest = parser.parse_known_args(argv[:end])
    return args, [*rest, *argv[end:]]


def _without_rank(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Takes the process's number out of a command line.

    ``torch.distributed.launch``, which OpenPCDet's dist_test.sh calls, puts it in front of
    everything: as ``--local_rank``, which its script knows, with torch 1, and as ``--local-rank``,
    which it does not know, since torch 2.

    Returns:
        What the script gets for it, and the command line without it.
    """
    argv = list(map(str, sys.argv[1:] if argv is None else argv))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--local-rank', '--local_rank', dest='rank')
    end = argv.index('--set') if '--set' in argv else len(argv)
    args, rest = parser.parse_known_args(argv[:end])
    rank = [] if args.rank is None else ['--local_rank', args.rank]
    return rank, [*rest, *argv[end:]]


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        'device': args.device,
        'out_dir': args.out_dir,
        'explain': not args.no_explainer,
    }


def _report(step: Callable[[], None]) -> None:
    """Ends the command with the message of an error of ours, without a traceback."""
    try:
        step()
    except Explain3DError as error:
        sys.exit(f'{type(error).__name__}: {error}')


def run(
    script: str | os.PathLike,
    argv: Sequence[str],
    device: str = 'cuda',
    out_dir: str | None = None,
    explain: bool = True,
) -> None:
    """Runs OpenPCDet's test script in this process.

    Everything that is changed for it (attributes of OpenPCDet's modules, ``sys.argv``,
    ``sys.path``) is put back at the end.

    Args:
        script: ``tools/test.py`` of a checkout.
        argv: Its arguments.
        device: ``'cuda'``, or ``'cpu'`` with stand-ins for its compiled operators.
        out_dir: Folder of the explanations, before that of the configuration.
        explain: Whether to attach an explainer.

    Raises:
        HostError: If OpenPCDet is missing, too old or not built, or there is no CUDA.
        InputError: If the configuration, checkpoint or data set is not there.
    """
    script = checked_script(script)
    argv, entries = taken_from(list(map(str, argv)))
    config, argv = _files(argv)
    require_device(device)
    ensure_cpu_backward()
    with ExitStack() as stack:
        if device == 'cpu':
            stack.enter_context(cpu_mode())
        stack.enter_context(_as_script(script, argv))
        stack.enter_context(_prepared(script, config, entries, device == 'cpu', out_dir, explain))
        runpy.run_path(str(script), run_name='__main__')


def _files(argv: Sequence[str]) -> tuple[Path, list[str]]:
    """Returns the configuration's path, and the arguments with a name in its place.

    OpenPCDet calls its folder of results after the path as it is given, an absolute one in full:
    in the place of one that is not below the working directory there is a short one.

    Raises:
        InputError: If a file is missing, for which the script has no message.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--cfg_file')
    parser.add_argument('--ckpt')
    parser.add_argument('--eval_all', action='store_true')
    end = argv.index('--set') if '--set' in argv else len(argv)
    args, _ = parser.parse_known_args(argv[:end])
    if args.cfg_file is None:
        raise InputError('Expected a configuration, received none: add --cfg_file CONFIG.yaml.')
    if not args.eval_all and (args.ckpt is None or not Path(args.ckpt).is_file()):
        raise InputError(
            f'Expected a checkpoint, received {args.ckpt!r}, which is no file: add --ckpt '
            'CHECKPOINT.pth, or --eval_all with --ckpt_dir.'
        )
    path = Path(args.cfg_file)
    if not path.is_absolute() and '..' not in path.parts:
        return path, list(argv)
    short = f'configs/{path.resolve().parent.name}/{path.name}'
    return path, ['--cfg_file', short, *_without(argv[:end], '--cfg_file'), *argv[end:]]


def _without(argv: Sequence[str], option: str) -> list[str]:
    """Returns the arguments without an option and its value."""
    left = iter(argv)
    kept = []
    for argument in left:
        if argument == option:
            next(left, None)
        elif not argument.startswith(option + '='):
            kept.append(argument)
    return kept


@contextmanager
def _as_script(script: Path, argv: Sequence[str]) -> Iterator[None]:
    """Makes ``sys`` look as it does to a script; forgets the modules beside it at the end."""
    tools = str(script.parent)
    path = [tools, *(p for p in sys.path if p != tools)]
    kept = sys.path[:]
    try:
        with overridden(sys, 'argv', [str(script), *map(str, argv)]):
            sys.path[:] = path
            yield
    finally:
        sys.path[:] = kept
        for name, module in list(sys.modules.items()):
            if str(getattr(module, '__file__', None) or '').startswith(tools + os.sep):
                del sys.modules[name]


@contextmanager
def _prepared(
    script: Path,
    path: Path,
    entries: Mapping[str, Any],
    on_cpu: bool,
    out_dir: str | None,
    explain: bool,
) -> Iterator[None]:
    """Puts our functions into the places through which the script calls OpenPCDet's."""
    template = import_host(script, on_cpu)
    config = importlib.import_module('pcdet.config')
    datasets = importlib.import_module('pcdet.datasets')
    eval_utils = importlib.import_module('eval_utils.eval_utils')
    tools = script.parent

    def cfg_from_yaml_file(cfg_file: str, cfg: Any) -> Any:
        content = read_config(path, tools)
        for name, value in entries.items():
            set_entry(content, name, value)
        if explain:
            settings_of(content)  # What is wrong with it is told before any data are read.
        return config.merge_new_config(config=cfg, new_config=content)

    def build_dataloader(dataset_cfg: Any, *args: Any, **kwargs: Any) -> Any:
        dataset_cfg.DATA_PATH = data_path(dataset_cfg.DATA_PATH, tools)
        built = host_dataloader(dataset_cfg, *args, **kwargs)
        require_frames(built[0], dataset_cfg)
        return built

    def fitting() -> bool:
        """Whether weights have to be the model's."""
        return explain and SECTION in config.cfg and settings_of(config.cfg).check_checkpoint

    host_dataloader = datasets.build_dataloader
    with ExitStack() as stack:
        stack.enter_context(overridden(config, 'cfg_from_yaml_file', cfg_from_yaml_file))
        stack.enter_context(overridden(datasets, 'build_dataloader', build_dataloader))
        stack.enter_context(checked_checkpoints(template, fitting))
        if explain:
            evaluate = explained(eval_utils.eval_one_epoch, out_dir)
            stack.enter_context(overridden(eval_utils, 'eval_one_epoch', evaluate))
        yield
