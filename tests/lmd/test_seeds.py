"""Where a decomposition begins: whole tensors, slices, entries by the value of a channel."""

import pytest
import torch
from torch import nn

from explain3d.core.errors import InputError
from explain3d.lmd import Decomposition, Seed
from explain3d.lmd.linearized import LinearNetwork
from tests.lmd.networks import decompose

SWEEPS = dict(keyframe=(None, 0.01), sweeps=(0.01, None))


class VoxelNet(nn.Module):
    """The mean of each voxel's points (V, P, 4), the last channel their time lag, and a layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        nn.init.constant_(self.layer.bias, 0.4)

    def forward(self, voxels, counts):
        return self.layer(voxels.sum(1) / counts[:, None]).relu()


def voxels(dtype=torch.float64):
    """Six voxels of up to five points; what is missing is zero."""
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(6, 5, 4, generator=generator, dtype=dtype)
    points[..., 3] = torch.randint(0, 3, (6, 5), generator=generator) * 0.05
    counts = torch.tensor([5, 1, 3, 2, 4, 5])
    points[torch.arange(5) >= counts[:, None]] = 0
    return points, counts.to(dtype)


def seed(**changes):
    return Seed('', path='voxels', dim=-1, channel=3, **{'intervals': SWEEPS, **changes})


@pytest.mark.parametrize('mode', ['production', 'check'])
def test_points_of_one_voxel_belong_to_whom_their_time_lag_says(mode):
    model, (points, counts) = VoxelNet().double(), voxels()
    found = decompose(model, points, counts, seeds=[seed()], mode=mode).outputs['']
    assert found.names == ('keyframe', 'sweeps', 'bias')
    assert found.conservation_error() < 1e-12
    on = found.value > 0
    assert 4 < on.sum() < on.numel()
    for name, mask in (('keyframe', points[..., 3] < 0.01), ('sweeps', points[..., 3] >= 0.01)):
        mean = (points * mask[..., None]).sum(1) / counts[:, None]
        expected = mean @ model.layer.weight.T * on
        torch.testing.assert_close(found[name], expected.detach(), rtol=0, atol=1e-12)


def test_a_replay_of_the_record_conserves():
    model, (points, counts) = VoxelNet().double(), voxels()
    recorded = decompose(model, points, counts, seeds=[seed()], record=True).record
    again = decompose(
        model, points * 0.9, counts, seeds=[seed()], frozen=recorded, mode='check'
    ).outputs['']
    assert again.conservation_error() < 1e-12
    assert again['sweeps'].any()


def test_modalities_of_several_seeds_keep_their_order():
    model, (points, counts) = VoxelNet().double(), voxels()
    swapped = seed(intervals=dict(reversed(SWEEPS.items())))
    found = decompose(model, points, counts, seeds=[swapped]).outputs['']
    plain = decompose(model, points, counts, seeds=[seed()]).outputs['']
    assert found.names == ('sweeps', 'keyframe', 'bias')
    assert torch.equal(found['sweeps'], plain['sweeps'])


def test_entries_of_nobody_or_of_several_are_refused():
    model, args = VoxelNet().double(), voxels()
    gap = seed(intervals=dict(keyframe=(None, 0.01), sweeps=(0.06, None)))
    with pytest.raises(InputError, match=r'channel 3, received 0.05, which is in 0 of them'):
        decompose(model, *args, seeds=[gap])
    both = seed(intervals=dict(keyframe=(None, 0.06), sweeps=(0.01, None)))
    with pytest.raises(InputError, match=r'which is in 2 of them'):
        decompose(model, *args, seeds=[both])
    with pytest.raises(InputError, match=r'channel 7 along dimension -1'):
        decompose(model, *args, seeds=[Seed('', path='0', dim=-1, channel=7, intervals=SWEEPS)])


def test_a_seed_says_one_thing():
    with pytest.raises(InputError, match='either modality or split or intervals'):
        Seed('fuser')
    with pytest.raises(InputError, match='either modality or split or intervals'):
        Seed('fuser', modality='camera', intervals=SWEEPS, channel=3)
    with pytest.raises(InputError, match='intervals and their channel'):
        Seed('fuser', intervals=SWEEPS)
    with pytest.raises(InputError, match='intervals and their channel'):
        Seed('fuser', modality='camera', channel=3)


def test_the_linear_network_takes_such_seeds_as_one():
    model, args = VoxelNet().double(), voxels()
    run = LinearNetwork(model, [], '', seeds=[seed()])
    assert run.modalities == ('activation',)
    with torch.no_grad(), Decomposition(model, [seed()], ['']) as whole:
        model(*args)
    assert whole.outputs[''].names[:2] == ('keyframe', 'sweeps')
