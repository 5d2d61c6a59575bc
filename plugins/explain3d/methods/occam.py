"""OccAM (Schinagl et al., CVPR 2022): which points keep a detection alive in random sub-clouds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.checks import require_number, require_numbers, require_text, require_whole
from ..core.errors import NotApplicableError, ResultFileError
from ..core.normalize import require_finite
from ..core.results_archive import Arrays, open_archive, refuse_folder, write_archive
from ..core.results_atomic import atomic_write, remove_stale
from ..core.results_check import ArrayCheck, check_keys, seal, unseal
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS, Explainer
from .feature_maps import naming_frame
from .occam_sampling import VoxelSampling
from .occam_search import Search
from .occam_similarity import FACTOR_OF, FACTORS

_LOG = logging.getLogger('explain3d')


@EXPLAINERS.register('OccAM')
class OccAM(Explainer):
    """Takes the mean similarity of a detection over the sub-clouds that a point is in.

    map[k, i] = E[similarity of detection k | point i is kept]. Voxels are kept at random with a
    probability that depends on their distance (``occam_sampling``); the similarity is the largest
    overlap x class x score x translation x scale x rotation over the boxes that the detector
    finds (``occam_similarity``), before NMS. All detections of a frame share the sub-clouds.

    The original explains a detection as a whole: that is ``all``. For a target made of fewer
    attributes the factors that they stand for are multiplied alone (``score`` for score and
    logit, ``translation`` for x, y, z, ``scale`` for l, w, h, ``rotation`` for yaw). Signs and
    weights of a target play no part.

    With ``radius``, boxes count for a detection whose anchors or cells stand around it, and of each
    sub-cloud the detector computes what they see, where that is less than the frame: for a few
    detections a small part. The map is then that of these boxes alone; of a detector that reports
    an object from where it stands, these are all that are similar.

    Needs a trace with the detector as a function of the cloud (``Trace.black_box``).

    Args:
        layer: Not used; the layer that the trace is made for.
        seed: Of the sub-clouds.
        samples: Largest number of sub-clouds.
        voxel_size: As in ``VoxelSampling``.
        density: Likewise.
        bounds: Likewise.
        score_thr: Boxes with a score above this count as found.
        radius: Around a detection's centre, metres; None: all boxes count.
        tolerance: A detection is done when the root mean square, over the points, of its map's
            standard error is below this part of the map's range. None: all samples are drawn.
        check_every: Samples from one check, checkpoint and line of the log to the next.
        checkpoint: Folder in which an interrupted frame goes on where it was. Samples are
            numbered, so the result is the same as without the interruption.

    Raises:
        InputError: If a value is out of its range.
    """

    def __init__(
        self,
        layer: str = 'stride4',
        seed: int = 0,
        *,
        samples: int = 3000,
        voxel_size: float = 0.2,
        density: Sequence[float] = (0.4,),
        bounds: Sequence[float] = (0.05, 0.95),
        score_thr: float = 0.1,
        radius: float | None = None,
        tolerance: float | None = 0.02,
        check_every: int = 100,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(layer, seed)
        self.samples = require_whole('samples', samples)
        self.check_every = require_whole('check_every', check_every)
        self.tolerance = require_number('tolerance', tolerance, above=0, optional=True)
        self.radius = require_number('radius', radius, above=0, optional=True)
        self.voxel_size = require_number('voxel_size', voxel_size, above=0)
        self.score_thr = require_number('score_thr', score_thr)
        self.density = list(require_numbers('density', density))
        self.bounds = list(require_numbers('bounds', bounds, 2))
        self.checkpoint = require_text('checkpoint', checkpoint, 'work_dirs/occam')
        self._sampling()

    def settings(self) -> dict:
        """Returns what decides the result; where it is kept on the way does not."""
        settings = super().settings()
        del settings['checkpoint']
        return settings

    def explain(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Explains every detection of ``trace``; see ``Explainer.explain``.

        Raises:
            NotApplicableError: If the trace has no black box.
            InputError: If a point is not finite.
        """
        # A host's autocast would change what the detector finds.
        exact = torch.autocast(trace.points.device.type, enabled=False)
        with naming_frame(trace.frame_id), torch.no_grad(), exact:
            if trace.black_box is None:
                raise NotApplicableError(
                    'OccAM asks the detector about thousands of sub-clouds: expected a trace with '
                    '"black_box", received one without. Use an adapter that gives it '
                    '(those of one-stage detectors do).'
                )
            require_finite(trace.points[:, :3], 'point coordinate')
            factors = [_factors(target) for target in targets]
            different = list(dict.fromkeys(factors))
            sums = self._run(trace, different)
            maps = sums.maps()
        kept = {
            target.name: maps[:, different.index(names)].to(trace.points.dtype)
            for target, names in zip(targets, factors, strict=True)
        }
        return Maps(kept, info=sums.info())

    def _sampling(self) -> VoxelSampling:
        return VoxelSampling(self.voxel_size, tuple(self.density), tuple(self.bounds), self.seed)

    def _run(self, trace: Trace, factors: Sequence[tuple[str, ...]]) -> _Sums:
        K, N = len(trace.detections), len(trace.points)
        sums = _Sums.empty(K, len(factors), N, trace.points.device)
        if K == 0 or N == 0:
            return sums
        path = self._path(trace, factors)
        sums.load(path)
        sampling = self._sampling()
        while sums.drawn < self.samples and bool(sums.active.any()):
            last = min(sums.drawn + self.check_every, self.samples)
            search = Search(trace, sums.active, self.score_thr, self.radius)
            while sums.drawn < last:
                numbers = range(sums.drawn, min(sums.drawn + trace.black_box.batch_size, last))
                masks = sampling.masks(trace.points, numbers)
                sums.add(masks, search([trace.points[mask] for mask in masks], factors))
            error = sums.relative_errors()
            if self.tolerance is not None:
                sums.active &= ~(error < self.tolerance)
            sums.save(path)
            _LOG.info(
                'OccAM, frame %r: %d of at most %d sub-clouds, %d of %d detections done, largest '
                'standard error %.3g of the map',
                trace.frame_id, sums.drawn, self.samples, int((~sums.active).sum()), K,
                float(error.amax()),
            )  # fmt: skip
        if path is not None:
            path.unlink(missing_ok=True)
        return sums

    def _path(self, trace: Trace, factors: Sequence[tuple[str, ...]]) -> Path | None:
        """Returns the file of an interrupted frame; its name says what it belongs to."""
        if self.checkpoint is None:
            return None
        digest = hashlib.blake2b(digest_size=12)
        digest.update(repr((self.settings(), factors, trace.black_box.name)).encode())
        for value in (trace.points, trace.detections.boxes, trace.detections.labels):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return Path(self.checkpoint) / f'{digest.hexdigest()}.npz'


class _Sums:
    """Running sums of K detections, U similarities and N points.

    Attributes:
        drawn: Samples so far.
        resumed: Those of them that an earlier run had drawn.
        active: (K,) detections that go on.
        samples: (K,) samples that went into each detection.
        moments: (3, K, U, N) sums over the samples with the point of 1, similarity, and its square.
    """

    def __init__(self, drawn: int, active: Tensor, samples: Tensor, moments: Tensor) -> None:
        self.drawn, self.active, self.samples, self.moments = drawn, active, samples, moments
        self.resumed = 0

    @classmethod
    def empty(cls, K: int, U: int, N: int, device: torch.device) -> _Sums:
        return cls(
            0,
            torch.ones(K, dtype=torch.bool, device=device),
            torch.zeros(K, dtype=torch.long, device=device),
            torch.zeros(3, K, U, N, dtype=torch.float64, device=device),
        )

    def add(self, masks: Tensor, similarity: Tensor) -> None:
        """Takes (B, N) masks and the (B, K, U) similarities found with them."""
        self.drawn += len(masks)
        self.samples += len(masks) * self.active
        kept = masks.double()
        for power in range(3):
            part = torch.einsum('bku,bn->kun', similarity**power, kept)
            self.moments[power] += part * self.active[:, None, None]

    def maps(self) -> Tensor:
        """(K, U, N) conditional means; 0 for a point that was never kept."""
        count, total, _ = self.moments
        return total / count.clamp(min=1)

    def relative_errors(self) -> Tensor:
        """(K,) largest over the similarities of the maps' standard error over their range.

        Infinite while a point has not been kept twice, and for a map without a range.
        """
        count, total, squares = self.moments
        mean = total / count.clamp(min=1)
        variance = (squares / count.clamp(min=1) - mean**2).clamp(min=0)
        error = (variance / (count - 1).clamp(min=1)).mean(dim=2).sqrt()
        span = mean.amax(dim=2) - mean.amin(dim=2)
        relative = torch.where(span > 0, error / span, torch.inf)
        return relative.masked_fill((count < 2).any(dim=2), torch.inf).amax(dim=1)

    def info(self) -> dict:
        """Plain numbers for ``Maps.info``."""
        counts = {'samples': self.drawn, 'samples_per_detection': self.samples.tolist()}
        return {**counts, 'resumed': self.resumed} if self.resumed else counts

    def save(self, path: Path | None) -> None:
        """Writes the state, complete or not at all.

        Raises:
            ResultFileError: If it cannot be written.
        """
        if path is None:
            return
        values = {name: getattr(self, name).cpu().numpy() for name in _SAVED}
        with atomic_write(path, 'the state of OccAM') as file:
            write_archive(file, seal({'drawn': self.drawn, 'frame': path.stem}, values))

    def load(self, path: Path | None) -> None:
        """Goes on from a file, if there is a sound one.

        Raises:
            ResultFileError: If a folder has the file's name.
        """
        if path is None:
            return
        refuse_folder(path, 'state of OccAM')
        remove_stale(path.parent)
        try:
            with open_archive(path, 'state of OccAM', 'The frame is begun again.') as archive:
                values = archive.read_all()
                drawn = self._check(unseal(values), values, path.stem)
        except FileNotFoundError:
            return
        except ResultFileError as error:
            _LOG.warning('%s', error)
            return
        self.drawn = self.resumed = drawn
        for name in _SAVED:
            setattr(self, name, torch.from_numpy(values[name]).to(self.moments.device))

    def _check(self, meta: dict, values: Arrays, frame: str) -> int:
        """Returns the samples drawn; raises ResultFileError unless all fits these sums."""
        check_keys(meta, {'drawn': int, 'frame': str})
        drawn, (_, K, U, N) = meta['drawn'], self.moments.shape
        if meta['frame'] != frame or drawn < 1:
            raise ResultFileError(f'it is of {meta["frame"]!r} after {drawn} sub-clouds')
        check = ArrayCheck(values)
        check('active', (K,), 'b')
        samples = check('samples', (K,), 'i', low=0, high=drawn)
        count = check('moments', (3, K, U, N), low=0)[0]
        if (count > samples[:, None, None]).any() or (count != np.floor(count)).any():
            raise ResultFileError('its counts are not those of its samples')
        check.only(_SAVED)
        return drawn


_SAVED = ('active', 'samples', 'moments')


def _factors(target: Target) -> tuple[str, ...]:
    """Returns the factors of the similarity that a target's attributes stand for."""
    wanted = {FACTOR_OF[name] for name in target.attributes if name in FACTOR_OF}
    if not wanted:
        raise NotApplicableError(
            f'Target {target.name!r} is made of {target.attributes}: OccAM measures only '
            f'{sorted(FACTOR_OF)}.'
        )
    return tuple(name for name in FACTORS if name in wanted)
