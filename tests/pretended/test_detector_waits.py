"""How often the host waits for a GPU in a whole detector: for windows, and for perturbed clouds."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip('mmdet3d')
import mmdet3d.models  # noqa: F401  Compiled operators are found where they are loaded.

from explain3d.adapters.common.shared_gradients import SharedGradients, sharing
from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox
from explain3d.adapters.mmdet3d.frames import detections_of, one_frame
from explain3d.adapters.mmdet3d.tracer import Tracer
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS
from explain3d.metrics.curves import perturbation_curves
from explain3d.metrics.protocol import Protocol
from tests.adapters.mmdet3d import tiny_detectors as tiny

TARGETS = parse_targets(['all', 'score'])
#: What PyramidFFAM may wait for a frame of one batch of windows: what it does without them (checks,
#: sizes, looks at two factorisations), and to cut, decode and compare the batch.
WINDOWS = 60
#: What a perturbed cloud may wait for: to be cut out of the frame and to the window, for what is
#: found of each object, and for the host's voxels.
CLOUD = 9


def test_by_windows_a_batch_of_many_detections_waits_as_often_as_one_of_two(here):
    model = tiny.build(tiny.wider(tiny.second()))
    low, high = torch.tensor([0, -25.6, -2.5, 0]), torch.tensor([51.2, 25.6, 0.5, 1])
    cloud = low + torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) * (high - low)
    with torch.no_grad():
        data = model.data_preprocessor(tiny.batch(cloud), False)
        (answer,) = model.predict(data['inputs'], data['data_samples'])
    frame, sample = one_frame(data['inputs'], 0, 1), data['data_samples'][0]
    tracers = [Tracer(model, layer) for layer in ('stride4', 'stride8')]
    explainer = EXPLAINERS.build(dict(type='PyramidFFAM', rank=4))

    def traced(detections):
        first, further = (t.trace(model.predict, frame, sample, detections, '0') for t in tracers)
        return replace(first, further=tuple(sharing(first, [further])))

    detections = detections_of(answer, tiny.CLASSES, '0')
    members = max((b.members for b in traced(detections).gradients._batches), key=len)
    assert len(members) > 2
    found = []
    for some in (members[:2], members[:2], members):  # Constants are copied in the first.
        trace = traced(detections[torch.tensor(some)])
        (further,) = trace.further
        assert isinstance(further.gradients, SharedGradients)
        here.waits.clear()
        explainer.explain(trace, TARGETS)
        # The host's preprocessor waits for each of the clouds that it gets.
        found.append({at: n for at, n in here.waits.items() if not at[0].endswith(' raw')})
        assert further.gradients.passes == 0  # By the windows of the explained layer alone.
        assert trace.gradients.passes == 3  # One batch: forwards, backwards for each target.
    assert found[1] == found[2]
    assert sum(found[1].values()) <= WINDOWS, here.report()


def test_a_perturbed_cloud_waits_to_be_cut_and_for_what_is_found_in_it(here):
    box = MMDet3DBlackBox(tiny.build(tiny.pointpillars()))
    points = torch.as_tensor(tiny.cloud(0), device='cuda:0')
    objects = torch.tensor([[5.0, 0, -0.8, 2, 2, 2, 0], [8.0, 2, -0.8, 2, 2, 2, 0.3]])
    maps = {'a': torch.rand(2, len(points), generator=torch.Generator().manual_seed(0))}
    found = []
    for steps in (3, 3, 6):
        passes = box.passes
        here.waits.clear()
        curves = perturbation_curves(box, points, maps, objects, [0, 0], Protocol(steps=steps))
        assert (curves['a'].deletion > 0).any()
        found.append((box.passes - passes, sum(here.waits.values())))
    clouds, waits = (b - a for a, b in zip(*found[1:], strict=True))
    assert clouds >= 6
    assert waits <= CLOUD * clouds, here.report()
