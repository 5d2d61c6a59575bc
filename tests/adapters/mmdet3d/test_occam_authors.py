"""OccAM in a detector: batched, one by one, in windows, and as its authors compute it."""

import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet3d')

import tiny_detectors as tiny
import torch
from test_black_box import short_second

from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox
from explain3d.core.errors import InputError
from explain3d.core.structures import Trace
from explain3d.core.targets import parse_targets
from explain3d.methods.occam import OccAM
from explain3d.methods.occam_similarity import FACTORS, similarities

BENCHMARKS = Path(__file__).parents[3] / 'benchmarks'
SAMPLES = 10


class Scene:
    """A detector, a frame, and what the authors' way finds in it."""

    def __init__(self, authors, keeps_all):
        self.model = tiny.build(short_second())
        self.points = torch.from_numpy(tiny.cloud(3))
        box = MMDet3DBlackBox(self.model)
        scores = [found.scores for found in box.candidates([self.points], 0.0)]
        self.score_thr = float(torch.cat(scores).sort(descending=True).values[60])
        settings = dict(score_thr=self.score_thr, nms_pre=10**5, max_num=10**5)
        if keeps_all:
            settings['nms_thr'] = 2.0
        self.model.bbox_head.test_cfg.update(settings)
        self.authors = authors.AuthorsOccAM(self.model)
        self.detections = self.authors.detect([self.points])[0][:6]

    def maps(self, batch_size=4, windows=True, **options):
        method = OccAM(
            samples=SAMPLES, tolerance=None, score_thr=self.score_thr, density=[0.7], **options
        )
        box = MMDet3DBlackBox(self.model, batch_size=batch_size, windows=windows)
        nothing = self.points.new_zeros(0)
        trace = Trace(self.points, None, self.detections, {}, nothing, None, 'frame', black_box=box)
        self.work = box
        return method.explain(trace, parse_targets('all')).saliency['all']

    def theirs(self, batch_size=8):
        self.authors.batch_size = batch_size
        sampling = OccAM(density=[0.7])._sampling()
        return self.authors.maps(self.points, self.detections, sampling, SAMPLES)


@pytest.fixture(scope='module')
def authors():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import occam_authors

        yield occam_authors
    sys.modules.pop('occam_authors')


@pytest.fixture(scope='module')
def scene(authors):
    """Without NMS, of which ours has none."""
    return Scene(authors, keeps_all=True)


def close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-5, rtol=1e-4)


def test_batches_are_one_by_one_and_the_authors_way(scene):
    alone = scene.maps(batch_size=1)
    assert alone.amax() > 0.1
    assert len(alone.unique()) > 100
    for batch_size in (3, 8):
        close(scene.maps(batch_size=batch_size), alone)
    for batch_size in (1, 8):
        close(scene.theirs(batch_size), alone)


def test_what_nms_removes_may_be_the_most_similar(authors):
    scene = Scene(authors, keeps_all=False)
    ours, theirs = scene.maps(), scene.theirs()
    assert (ours - theirs).amin() > -1e-6
    assert (ours - theirs).amax() > 1e-3


def test_what_is_left_is_scored_alike(authors, scene):
    sampling = OccAM(density=[0.7])._sampling()
    masks = sampling.masks(scene.points, range(5))
    found = scene.authors.detect([scene.points[mask] for mask in masks])
    ours = similarities(scene.detections, found, [FACTORS])[:, :, 0]
    assert (ours > 0).any()
    torch.testing.assert_close(authors.most_similar(scene.detections, found), ours)
    nothing = [found[0][:0], found[0]]
    torch.testing.assert_close(
        authors.most_similar(scene.detections, nothing), ours[:1] * torch.tensor([[0.0], [1]])
    )


def test_around_the_detections_windows_are_whole_passes(scene):
    for radius in (0.8, 2.5):
        whole = scene.maps(windows=False, radius=radius)
        assert scene.work.work == scene.work.passes == 1 + SAMPLES
        close(scene.maps(radius=radius), whole)
        close(scene.maps(radius=radius, batch_size=1), whole)
    everything = scene.maps()
    close(scene.maps(radius=100.0), everything)
    assert not scene.maps(radius=1e-6).any()  # Where no anchor stands.


def test_a_detection_takes_a_part_of_the_frame(scene):
    every = scene.detections
    try:
        scene.detections = every[:1]
        scene.maps(radius=0.8)
    finally:
        scene.detections = every
    assert scene.work.passes == 1 + SAMPLES
    assert scene.work.work < 1 + 0.6 * SAMPLES


def test_a_radius_out_of_range():
    with pytest.raises(InputError, match='radius > 0, a finite number or None, received 0'):
        OccAM(radius=0)
