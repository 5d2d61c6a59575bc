import torch

from explain3d.lmd.components import Components
from explain3d.lmd.frame import FrameDecomposition
from explain3d.lmd.shares import shares
from explain3d.lmd.summary import summarize_frames


def frame(name, camera, radar, bias):
    parts = torch.tensor([camera, radar, bias], dtype=torch.float64)[:, None]
    components = Components(parts.sum(0), parts, ('camera', 'radar', 'bias'))
    shares = {'layer': torch.tensor([0.5, 0.5, 0.0]).double()}
    return FrameDecomposition(name, {'head': components}, shares=shares)


def test_parts_of_the_predicted_cells_add_up_to_their_mean():
    # One cell of two is predicted in the first frame, none in the second.
    first = frame('a', [[3.0, -1.0]], [[1.0, 0.0]], [[-2.0, 0.0]])
    second = frame('b', [[-1.0, -1.0]], [[0.0, 0.0]], [[-3.0, -3.0]])
    logit, share, layer = summarize_frames([first, second])
    assert logit == dict(
        of='head', figure='logit', camera=3.0, radar=1.0, bias=-2.0, total=2.0, frames=1
    )
    assert share['camera'] == (4 / 7 + 2 / 8) / 2
    assert abs(share['total'] - 1) < 1e-12
    assert share['frames'] == 2
    assert (layer['of'], layer['camera'], layer['frames']) == ('layer', 0.5, 2)


def test_shares_that_a_frame_has_are_not_computed_again(monkeypatch):
    one = frame('a', [[3.0, -1.0]], [[1.0, 0.0]], [[-2.0, 0.0]])
    one.shares['head'] = shares(one.outputs['head'])
    expected = summarize_frames([one])
    monkeypatch.setattr('explain3d.lmd.summary.shares', None)
    assert summarize_frames([one]) == expected


def test_nothing_predicted_and_no_frames():
    nothing = frame('b', [[-1.0, -1.0]], [[0.0, 0.0]], [[-3.0, -3.0]])
    assert [row['figure'] for row in summarize_frames([nothing])] == ['share', 'share']
    assert summarize_frames([]) == []
