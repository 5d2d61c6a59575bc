"""The same numbers as the authors' code, recorded in double precision, and their checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d')

from explain3d.models.simplebev.authors_names import convert, theirs

from . import simplebev_cases as cases

GOLDEN = Path(__file__).parents[1] / 'golden' / 'simple_bev.npz'
MEAN, STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]


@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.mark.parametrize('sensors', ['camera', 'radar', 'radar_occupancy', 'lidar'])
def test_every_output_is_the_authors(golden, sensors):
    model = cases.authors_model(sensors).double().eval()
    state = {
        theirs(name): torch.as_tensor(cases.weight(theirs(name), tuple(value.shape)))
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(convert(state, model), strict=True)
    batch = cases.batch()
    data = model.data_preprocessor(batch)
    rgb = cases.images(0)[:, ::-1] / 255.0
    data['inputs']['imgs'] = torch.from_numpy((rgb - MEAN) / STD)[None]
    with torch.no_grad():
        outputs = model(**data, mode='tensor')
    for name in ('segmentation', 'center', 'offset', 'feature'):
        expected = golden[f'{sensors}/{name}']
        # The recorded arrays are rounded to single precision.
        found = outputs[name][:, : expected.shape[1]].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7, err_msg=name)


def test_golden_outputs_differ_between_the_sensor_sets(golden):
    for other in ('radar', 'radar_occupancy', 'lidar'):
        difference = golden[f'{other}/segmentation'] - golden['camera/segmentation']
        assert np.abs(difference).mean() > 0.1
