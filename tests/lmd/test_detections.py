"""Reading the parts of detections out of decomposed maps."""

import pytest
import torch

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.results import load, save
from explain3d.core.structures import Detections
from explain3d.lmd import Components
from explain3d.lmd.detections import (
    DetectionParts,
    Effect,
    Reading,
    SensorShares,
    read_out,
    read_values,
)

NAMES = ('camera', 'lidar', 'bias')


def decomposed(channels, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(3, channels, 4, 5, generator=generator, dtype=torch.float64)
    return Components(parts.sum(0), parts, NAMES, residual=seed * 1e-13)


def index(*values):
    return torch.tensor(values).long()


@pytest.fixture
def outputs():
    return {
        'first.heat': decomposed(2, 1),
        'second.heat': decomposed(1, 2),
        'box': decomposed(3, 3),
    }


@pytest.fixture
def readings():
    """Detections 0 and 2 are of the first task, 1 of the second."""
    cells = torch.tensor([[0, 1], [3, 4], [2, 0]])
    return [
        Reading('logit', 'first.heat', index(0, 2), index(1, 0), cells[[0, 2]]),
        Reading('logit', 'second.heat', index(1), index(0), cells[[1]]),
        Reading('z', 'box', index(0, 1, 2), index(2, 2, 2), cells),
    ]


def test_parts_are_those_of_the_cells_and_sum_to_the_values(outputs, readings):
    found = read_out(outputs, readings, 3)
    assert found.attributes == ('logit', 'z')
    assert torch.equal(found['logit'][0], outputs['first.heat'].parts[:, 1, 0, 1])
    assert torch.equal(found['logit'][1], outputs['second.heat'].parts[:, 0, 3, 4])
    assert torch.equal(found['logit'][2], outputs['first.heat'].parts[:, 0, 2, 0])
    assert torch.equal(found['z'][2], outputs['box'].parts[:, 2, 2, 0])
    assert found.conservation_error() < 1e-15
    assert found.residual == outputs['box'].residual
    values = {name: output.value for name, output in outputs.items()}
    assert torch.equal(read_values(values, readings, found.attributes, 3), found.value)
    torch.testing.assert_close(found.parts.sum(1), found.value, rtol=0, atol=1e-15)


def test_shares_count_magnitudes_the_bias_too(outputs, readings):
    parts = torch.tensor([[[3.0], [-1.0], [0.0]], [[0.0], [0.0], [0.0]]])
    found = DetectionParts(('logit',), NAMES, parts.sum(1), parts)
    assert found.shares()[0].tolist() == [0.75, 0.25, 0.0]
    assert found.shares()[1].isnan().all()


def test_an_error_in_one_attribute_is_not_hidden_by_large_others():
    parts = torch.tensor([[[1e6, 1.0], [0.0, 0.0], [0.0, 0.0]]])
    value = parts.sum(1)
    value[0, 1] += 1e-2
    assert DetectionParts(('x', 'y'), NAMES, value, parts).conservation_error() > 5e-3


def test_what_is_read_never_or_twice_is_refused(outputs, readings):
    with pytest.raises(InputError, match="'logit' of detection 1 was read 0 times"):
        read_out(outputs, [readings[0], readings[2]], 3)
    with pytest.raises(InputError, match="'logit' of detection 0 was read 2 times"):
        read_out(outputs, [*readings, readings[0]], 3)
    with pytest.raises(UnknownNameError, match="No output 'nowhere'"):
        read_out(outputs, [Reading('z', 'nowhere', index(0), index(0), index(0, 0)[None])], 1)


def test_no_detections_are_a_defined_empty_result(outputs):
    nothing = Reading('logit', 'box', index(), index(), index().view(0, 2))
    found = read_out(outputs, [nothing], 0)
    assert found.parts.shape == (0, 3, 1)
    assert found.shares().shape == (0, 3)
    assert found.conservation_error() == 0


def test_unknown_attributes_and_wrong_shapes_are_refused(outputs, readings):
    found = read_out(outputs, readings, 3)
    with pytest.raises(UnknownNameError, match="'yaw'.*'logit', 'z'"):
        found.shares('yaw')
    with pytest.raises(InputError, match='Expected parts'):
        DetectionParts(('logit',), NAMES, found.value, found.parts)
    with pytest.raises(InputError, match="'bias' as the last component"):
        DetectionParts(found.attributes, ('bias', 'a', 'b'), found.value, found.parts)


def frame(outputs, readings):
    parts = read_out(outputs, readings, 3)
    boxes = torch.arange(21).view(3, 7).float()
    detections = Detections(boxes, torch.tensor([0.9, 0.5, 0.3]), index(0, 1, 0), ('car', 'bus'))
    effect = Effect(
        torch.tensor([True, False, True]), torch.tensor([0.8, 0, 0.2]),
        torch.tensor([0.9, 0, 0.4]), parts.value * 0.5,
    )  # fmt: skip
    return SensorShares('f', detections, parts, {'lidar': effect}, index(4, 5, 9), {'a': 1})


def test_a_file_gives_back_what_was_written(tmp_path, outputs, readings):
    written = frame(outputs, readings)
    found = load(save(tmp_path / 'f.npz', written))
    assert found.kind == 'sensor_shares'
    assert (found.frame_id, found.names, found.settings) == ('f', NAMES, {'a': 1})
    assert found.parts.attributes == written.parts.attributes
    assert found.parts.residual == written.parts.residual
    assert torch.equal(found.parts.parts, written.parts.parts)
    assert torch.equal(found.parts.value, written.parts.value)
    assert torch.equal(found.detection_indices, written.detection_indices)
    assert found.detections.names() == ['car', 'bus', 'car']
    for name, value in vars(written.effects['lidar']).items():
        assert torch.equal(getattr(found.effects['lidar'], name), value)


def test_values_that_are_not_finite_are_not_written(tmp_path, outputs, readings):
    broken = frame(outputs, readings)
    broken.parts.parts[1, 0, 0] = torch.nan
    with pytest.raises(InputError, match="Frame 'f': parts holds values that are not finite"):
        save(tmp_path / 'f.npz', broken)
    assert not list(tmp_path.iterdir())


def test_effects_of_other_numbers_of_detections_are_refused(outputs, readings):
    whole = frame(outputs, readings)
    with pytest.raises(InputError, match='all 3 detections'):
        SensorShares('f', whole.detections, read_out(outputs, [readings[2]], 3), {
            'lidar': Effect(*(torch.zeros(2) for _ in range(4)))
        })  # fmt: skip
