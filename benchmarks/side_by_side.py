"""What the benchmarks share: sides that take turns in one run, and ratios with their spread."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

T = TypeVar('T')
#: Least number of rounds that a figure is quoted from.
LEAST_RUNS = 7


def arguments(documentation: str, rounds: str = 'runs') -> argparse.ArgumentParser:
    """Returns a command line with what every benchmark takes.

    Args:
        documentation: The script's; its first line describes it.
        rounds: What a round is called: ``'frames'`` where each has a frame of its own.
    """
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument(f'--{rounds}', type=int, default=LEAST_RUNS, help='rounds of the sides')
    parser.add_argument('--device', default='cuda:0' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path, help='where to save the figures')
    return parser


def machine(device: str) -> dict[str, Any]:
    """Returns what figures depend on: processor, threads, versions, and how busy it is."""
    return {
        'device': torch.cuda.get_device_name(device) if device.startswith('cuda') else 'cpu',
        'processor': _processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'load': round(os.getloadavg()[0], 1),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'numpy': np.__version__,
    }


def machine_line(found: dict[str, Any]) -> str:
    """Returns ``machine`` in one line."""
    return (
        f'{found["device"]}, {found["processor"]}, {found["threads"]} of {found["cores"]} threads, '
        f'load {found["load"]}, torch {found["torch"]}, numpy {found["numpy"]}, '
        f'Python {found["python"]}'
    )


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def timed(step: Callable[[], T], device: str) -> tuple[float, T]:
    """Returns the seconds that ``step`` took, and what it returned.

    On a CPU these are the process's own: what others do on the machine does not count, but for
    the caches and memory that they take.
    """
    if device == 'cpu':
        started = time.process_time()
        value = step()
        return time.process_time() - started, value
    torch.cuda.synchronize()
    started = time.perf_counter()
    value = step()
    torch.cuda.synchronize()
    return time.perf_counter() - started, value


def resident_memory(which: str) -> int:
    """Returns this process's resident memory in bytes; Linux only.

    ``getrusage`` will not do: what it reports a child inherits from its parent.

    Args:
        which: ``'VmRSS'`` now, ``'VmHWM'`` its peak.

    Raises:
        OSError: If the system does not tell.
    """
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{which}:'):
            return int(line.split()[1]) * 1024
    raise OSError(f'/proc/self/status has no {which}: memory cannot be measured here.')


@dataclass(frozen=True)
class Ratio:
    """A ratio of two sides, round by round.

    Attributes:
        median: Over the rounds.
        low: The smallest.
        high: The largest.
        rounds: How many.
    """

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """Returns the ratio of two lists of seconds."""
        found = [a / b for a, b in zip(above, below, strict=True)]
        return cls(statistics.median(found), min(found), max(found), len(found))

    def __str__(self) -> str:
        return f'{self.median:.3g} ({self.low:.3g} to {self.high:.3g})'


@dataclass(frozen=True)
class Claim:
    """A line of the table that ``run_all.py`` makes.

    Attributes:
        what: What is measured, and in what.
        aim: What it was to be.
        found: What it is.
    """

    what: str
    aim: str
    found: Ratio | str


class Turns:
    """Seconds of sides that take turns.

    Args:
        device: Where they run.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    def take(self, name: str, step: Callable[[], T]) -> T:
        """Runs and times one turn of a side; returns what it returned."""
        seconds, value = timed(step, self.device)
        self.seconds.setdefault(name, []).append(seconds)
        return value

    def forget(self) -> None:
        """Forgets the turns so far: they warmed up."""
        self.seconds = {name: [] for name in self.seconds}

    def median(self, name: str) -> float:
        """Returns a side's median in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, above: str, below: str) -> Ratio:
        """Returns how many times as long one side takes as another.

        It is over the rounds that both took part in: the first ones, if there are fewer of one.
        """
        rounds = min(len(self.seconds[name]) for name in (above, below))
        return Ratio.of(self.seconds[above][:rounds], self.seconds[below][:rounds])

    def table(self, unit: str, of: str) -> str:
        """Returns a line a side: its median, and its ratio to the side ``of``.

        Args:
            unit: What the side ``of`` is called in the plural.
            of: The side.
        """
        width = max(map(len, self.seconds))
        return '\n'.join(
            f'{name:{width}s}  {self.median(name):9.4f} s  {self.ratio(name, of)} {unit}'
            for name in self.seconds
        )


def report(args: argparse.Namespace, claims: Sequence[Claim], content: dict[str, Any]) -> None:
    """Prints the claims and the machine, and saves everything as JSON, if there is a path.

    Args:
        args: The command line.
        claims: What the script is about.
        content: More figures; ratios become dicts.
    """
    here = machine(args.device)
    print(machine_line(here))
    for claim in claims:
        print(f'{claim.what}: {claim.found} (aim: {claim.aim})')
    if args.json is None:
        return
    rows = [dict(what=c.what, aim=c.aim, found=str(c.found)) for c in claims]
    content = {'machine': here, 'args': vars(args), 'claims': rows, **content}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(content, indent=2, default=_plain) + '\n')


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Ratio) else str(value)
