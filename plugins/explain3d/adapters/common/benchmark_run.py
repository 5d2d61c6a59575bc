"""A process of a benchmark: frames one after the other, and errors that do not stop it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from ...core.devices import device_of_process, use_device
from ...metrics.saliency import ObjectRecord
from .benchmark_plan import BenchmarkPlan

_LOG = logging.getLogger('explain3d')


class Benchmark(Protocol):
    """What ``run_frames`` needs of a benchmark."""

    def run(self, index: int) -> list[ObjectRecord]:
        """Measures a frame and writes its records."""


def log_to_stderr() -> None:
    """Shows what a process reports beside its lines: progress within a frame, failures."""
    logging.basicConfig(format='%(message)s')
    _LOG.setLevel(logging.INFO)


def on_own_device(plan: BenchmarkPlan, number: int) -> BenchmarkPlan:
    """Returns the plan of one of several processes, and makes its device the current one.

    Args:
        plan: Of all processes.
        number: Of this process.
    """
    device = device_of_process(plan.device, number)
    use_device(device)
    return replace(plan, device=device)


def run_frames(benchmark: Benchmark, indices: Sequence[int], rank: int = 0) -> None:
    """Runs frames one after the other and prints a line for each.

    Raises:
        ResultFileError: If records cannot be written.
    """
    started = time.monotonic()
    for number, index in enumerate(indices, 1):
        before = time.monotonic()
        records = benchmark.run(index)
        spent = time.monotonic() - before
        left = (time.monotonic() - started) / number * (len(indices) - number)
        frame = f' ({records[0].frame})' if records else ''
        print(
            f'[{rank}] {number} of {len(indices)}: frame number {index}{frame}, '
            f'{len({r.name for r in records})} objects, {spent:.1f} s; '
            f'about {left / 60:.0f} min left',
            flush=True,
        )


@contextmanager
def catching(failed: dict[str, Exception], method: str, frame_id: str) -> Iterator[None]:
    """Keeps the error of one method on one frame from the others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a method does wrong
        _LOG.exception('%s failed on frame %r', method, frame_id)
        failed[method] = error
