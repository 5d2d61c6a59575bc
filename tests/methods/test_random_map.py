from dataclasses import replace

import torch

from explain3d.core.targets import parse_targets
from explain3d.methods import RandomMap
from tests.helpers.toy_detector import ToyDetector


def draw(targets='all', seed=0, frame_id='000007'):
    toy = ToyDetector()
    trace = replace(toy.trace(toy.points(500), toy.anchors(20)), frame_id=frame_id)
    return RandomMap(seed=seed).explain(trace, parse_targets(targets)).saliency


def test_numbers_are_even_in_zero_to_one():
    values = draw()['all']
    assert 0 <= values.min() < 0.01
    assert 0.99 < values.max() < 1
    counts = values.histc(10, 0, 1)
    assert (counts - 1000).abs().max() < 150


def test_detections_targets_frames_and_seeds_differ():
    values = draw(['all', 'score'])
    assert not torch.equal(values['all'][0], values['all'][1])
    assert not torch.equal(values['all'], values['score'])
    assert not torch.equal(values['all'], draw(frame_id='000008')['all'])
    assert not torch.equal(values['all'], draw(seed=1)['all'])


def test_a_target_does_not_depend_on_the_others_asked_for():
    assert torch.equal(draw(['all', 'score'])['score'], draw('score')['score'])
