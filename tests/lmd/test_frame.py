"""A frame's decomposition on disk, its shares, and what is refused."""

import numpy as np
import pytest
import torch

import explain3d
from explain3d.core.errors import InputError, ResultFileError, UnknownNameError
from explain3d.core.results import AsyncWriter, ResultStore, save
from explain3d.core.structures import Explanation
from explain3d.lmd.components import Components
from explain3d.lmd.frame import BevArea, FrameDecomposition, frame_of
from explain3d.lmd.shares import energy, mean_parts, mean_shares, shares

NAMES = ('camera', 'radar', 'bias')


def components(*shape, seed=0, residual=None):
    parts = torch.randn(len(NAMES), *shape, generator=torch.Generator().manual_seed(seed))
    return Components(parts.sum(0), parts, NAMES, residual)


def make_frame(frame_id='scene/1', **changes):
    layer = components(3, 4, 6, seed=1)
    rng = torch.Generator().manual_seed(7)
    content = dict(
        outputs={'head': components(1, 8, 12, residual=1e-7), 'aux': components(2)},
        captured={'decoder.layer1': layer},
        shares={'fuse': torch.tensor([0.25, 0.5, 0.25]).double(), 'decoder.layer1': shares(layer)},
        energies={'decoder.layer1': energy(layer)},
        gradcams={'radar @ decoder.layer1': torch.rand(4, 6, generator=rng)},
        references={'camera only': torch.randn(1, 8, 12, generator=rng)},
        points={'radar': torch.randn(5, 6, generator=rng)},
        ground_truth=(torch.rand(8, 12, generator=rng) > 0.5).to(torch.uint8),
        ground_truth_valid=torch.rand(8, 12, generator=rng) > 0.1,
        area=BevArea((-6.0, 6.0), (-4.0, 4.0)),
        settings={'rules': {'activation': 'identity'}},
        versions={'explain3d': '0.1'},
        info={'cameras': ['CAM_FRONT']},
    )
    return FrameDecomposition(frame_id, **{**content, **changes})


def assert_same(a, b):
    for field in ('outputs', 'captured'):
        assert list(getattr(a, field)) == list(getattr(b, field))
        for name, found in getattr(a, field).items():
            other = getattr(b, field)[name]
            assert torch.equal(found.value, other.value)
            assert torch.equal(found.parts, other.parts)
            assert (found.names, found.residual) == (other.names, other.residual)
    for field in ('points', 'references', 'shares'):
        assert list(getattr(a, field)) == list(getattr(b, field))
        for name, tensor in getattr(a, field).items():
            torch.testing.assert_close(
                tensor, getattr(b, field)[name], rtol=0, atol=0, equal_nan=True
            )
    for field in ('energies', 'gradcams'):
        for name, tensor in getattr(a, field).items():
            other = getattr(b, field)[name]
            torch.testing.assert_close(
                tensor, other, rtol=2**-10, atol=float(tensor.max()) * 2**-24
            )
    assert torch.equal(a.ground_truth, b.ground_truth)
    assert torch.equal(a.ground_truth_valid, b.ground_truth_valid)
    for field in ('frame_id', 'area', 'settings', 'versions', 'info'):
        assert getattr(a, field) == getattr(b, field)


def test_what_is_written_comes_back(tmp_path):
    frame = make_frame()
    frame.shares['empty'] = torch.full((3,), torch.nan).double()
    assert_same(frame, explain3d.load(save(tmp_path / 'a.npz', frame)))
    assert explain3d.load(tmp_path / 'a.npz').kind == 'decomposition' != Explanation.kind
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as arrays:
        assert arrays['outputs.head.parts'].shape == (3, 1, 8, 12)


def test_equal_frames_give_equal_bytes_and_half_captures_are_smaller(tmp_path):
    paths = [save(tmp_path / f'{i}.npz', make_frame(gradcams={})) for i in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    small = save(tmp_path / 'c.npz', make_frame(gradcams={}), saliency_dtype='float16')
    assert small.stat().st_size < paths[0].stat().st_size
    layer, exact = explain3d.load(small).captured['decoder.layer1'], components(3, 4, 6, seed=1)
    assert 0 < (layer.parts - exact.parts).abs().max() < exact.parts.abs().max() * 2**-10
    assert torch.equal(explain3d.load(small).output.parts, make_frame().output.parts)


def test_a_store_takes_frames_and_finds_the_damaged(tmp_path):
    store = ResultStore(tmp_path, settings=make_frame().settings)
    with AsyncWriter(store) as writer:
        writer.save(make_frame())
    assert store.has('scene/1')
    assert list(store.paths()) == ['scene/1']
    path = store.path_of('scene/1')
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert not store.has('scene/1')
    with pytest.raises(ResultFileError):
        explain3d.load(path)


def test_values_that_are_not_finite_are_not_written(tmp_path):
    frame = make_frame()
    frame.outputs['head'].parts[1, 0, 2, 2] = torch.nan
    with pytest.raises(InputError, match="'scene/1': outputs.head.parts holds values.*not finite"):
        save(tmp_path / 'a.npz', frame)
    assert not list(tmp_path.iterdir())


def test_malformed_frames_are_refused():
    with pytest.raises(InputError, match='no outputs'):
        make_frame(outputs={})
    other = Components(torch.zeros(1), torch.zeros(2, 1), ('camera', 'bias'))
    with pytest.raises(InputError, match="received .*for 'x'"):
        make_frame(captured={'x': other})
    with pytest.raises(UnknownNameError, match="no output 'haed': expected one of"):
        make_frame().find_output('haed')
    with pytest.raises(InputError, match='edges in order'):
        BevArea.of_grid(dict(x=(50, -50, 200), z=(-50, 50, 200)))


def test_a_frame_of_a_batch():
    batch = components(4, 2, 3, 3)
    one = frame_of(batch, 2)
    assert torch.equal(one.value, batch.value[2])
    assert torch.equal(one['radar'], batch['radar'][2])


def test_shares_and_means_by_hand():
    parts = torch.tensor([[[1.0, -1.0]], [[0.0, 4.0]], [[-1.0, 1.0]]])[:, :, None]
    found = Components(parts.sum(0), parts, NAMES)
    assert shares(found).tolist() == [0.25, 0.5, 0.25]
    assert energy(found).flatten(1).tolist() == [[1, 1], [0, 4], [1, 1]]
    region = torch.tensor([[False, True]])
    assert mean_parts(found, region).tolist() == [-1, 4, 1]
    assert mean_parts(found, ~region).sum() == found.value[0, 0, 0]
    frames = [{'a': torch.tensor([0.5, 0.5])}, {'a': torch.tensor([1.0, 0.0]), 'b': torch.ones(2)}]
    means = mean_shares(frames)
    assert {k: v.tolist() for k, v in means.items()} == {'a': [0.75, 0.25], 'b': [1, 1]}
