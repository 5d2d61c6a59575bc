"""What the two scripts on BEVFusion share: BatchNorm's statistics, measuring, printing."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from side_by_side import Turns
from torch import nn

from explain3d.adapters.common.query_readings import HEATMAP
from explain3d.lmd import Decomposition, LayerReport
from explain3d.lmd.detections import LOGIT, DetectionParts, SensorShares


def normalise(model: nn.Module, run: Callable[[], Any]) -> None:
    """Gives batch normalisations the statistics of one pass, and random shifts.

    Random weights without them shrink what goes through, until only constants are left.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
        nn.init.normal_(norm.bias, 0, 0.1)
    with torch.no_grad():
        run()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Returns what the work gives, its seconds, and the largest memory of the process so far."""
    start, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        found = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return found, dict(seconds=seconds, cpu_seconds=cpu, peak_gb=peak)


def in_turns(
    plain: Callable[[], Any], decomposed: Callable[[], Any], fuser: nn.Module, rounds: int
) -> dict[str, Any]:
    """Prints and returns what a decomposition costs next to its inference, in turns, on a CPU.

    The bound is that of computing all that comes behind the fusion point for camera, LiDAR and
    bias, which is M + 1 = 3 times. A round before the others warms up.

    Args:
        plain: Predicts.
        decomposed: Predicts, with the decomposition in production mode.
        fuser: The fusion point.
        rounds: How many.
    """
    turns, marks, behind = Turns('cpu'), [0.0], []
    handle = fuser.register_forward_pre_hook(lambda *_: marks.append(time.process_time()))
    for number in range(rounds + 1):
        with torch.no_grad():
            turns.take('inference', plain)
            behind.append(time.process_time() - marks[-1])
            turns.take('production', decomposed)
        if number == 0:
            turns.forget()
    handle.remove()
    seconds = turns.seconds['inference']
    part = statistics.median(b / t for b, t in zip(behind[1:], seconds, strict=True))
    print(turns.table('inferences', 'inference'))
    print(f'behind the fusion point: {part:.0%}; the bound: {1 + 2 * part:.2f}')
    return {'seconds': turns.seconds, 'behind_fusion': part, 'bound': 1 + 2 * part}


def checked(run: Decomposition, parts: DetectionParts) -> dict[str, Any]:
    """Prints and returns what a decomposition in check mode measured."""
    found = dict(
        stages=_stages(run.layers),
        attributes=_attributes(parts),
        tensors=len(run.layers),
        residual=run.residual,
    )
    for name in ('stages', 'attributes'):
        print(f'\n{name}')
        for key, row in found[name].items():
            shares = '  '.join(f'{n} {100 * share:5.1f} %' for n, share in row['shares'].items())
            print(f'{key:32s} residual {row["residual"]:.1e}  {shares}')
    print(f'\nlargest residual of {len(run.layers)} tensors: {run.residual:.2g}', flush=True)
    return found


def score_deviation(shares: SensorShares) -> float:
    """Returns how far the scores are from what the two logits say that were read, at most.

    Logits of other queries or other cells would say something else.
    """
    parts = shares.parts
    score = parts.of_value(LOGIT).sigmoid() * parts.of_value(HEATMAP).sigmoid()
    return float((score - shares.detections.scores).abs().max())


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Writes the figures as JSON, if a path is given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + '\n')


def _stages(layers: list[LayerReport]) -> dict[str, dict[str, Any]]:
    """Sums up the layers by the first two parts of their module's path, in their order."""
    found: dict[str, list[LayerReport]] = {}
    for layer in layers:
        found.setdefault('.'.join(layer.module.split('.')[:2]), []).append(layer)
    return {
        stage: dict(residual=max(layer.residual for layer in each), shares=each[-1].shares)
        for stage, each in found.items()
    }


def _attributes(parts: DetectionParts) -> dict[str, dict[str, Any]]:
    """Returns each attribute's residual over the boxes and its components' mean shares."""
    found = {}
    for column, attribute in enumerate(parts.attributes):
        one = DetectionParts(
            (attribute,), parts.names, parts.value[:, [column]], parts.parts[:, :, [column]]
        )
        shares = one.shares(attribute).nanmean(0).tolist()
        found[attribute] = dict(
            residual=one.conservation_error(), shares=dict(zip(parts.names, shares, strict=True))
        )
    return found
