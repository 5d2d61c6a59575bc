"""Pictures of decompositions: the right values at the right place, in the right colours."""

import numpy as np
import pytest
import torch

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.lmd.components import Components
from explain3d.lmd.frame import BevArea, FrameDecomposition
from explain3d.visualization import (
    LMD_KINDS,
    decomposition_maps,
    decomposition_sheet,
    layer_maps,
    layer_shares,
    render_decomposition,
)
from explain3d.visualization.lmd_panels import component_colours, signed_scale
from explain3d.visualization.style import STYLES

AREA = BevArea((-10.0, 10.0), (-5.0, 5.0))
Z, X = 10, 20


def frame(names=('camera', 'radar', 'bias'), **changes):
    parts = torch.zeros(len(names), 1, Z, X)
    parts[0, 0, 7, 15] = 4.0  # 2 to 3 m ahead, 5 to 6 m to the right.
    parts[1, 0, 7, 15] = -1.0
    parts[-1] = -2.0
    truth = torch.zeros(Z, X, dtype=torch.uint8)
    truth[7, 15] = 1
    content = dict(
        outputs={'head': Components(parts.sum(0), parts, names)},
        shares={'fuse': torch.tensor([0.5, 0.3, 0.2]), 'head': torch.tensor([0.6, 0.0, 0.4])},
        energies={'fuse': torch.rand(3, 5, 10)},
        gradcams={'radar @ fuse': torch.rand(5, 10)},
        points={'radar': torch.tensor([[5.5, 0.0, 2.5], [300.0, 0.0, 0.0]])},
        ground_truth=truth,
        area=AREA,
    )
    return FrameDecomposition('a', **{**content, **changes})


def by_gid(figure, gid):
    return [a for axes in figure.axes for a in axes.get_children() if a.get_gid() == gid]


def test_a_map_has_forward_upwards_and_right_to_the_right():
    image = by_gid(decomposition_maps(frame(), 'signed'), 'signed-camera')[0]
    assert (image.origin, image.get_extent()) == ('lower', [-10, 10, -5, 5])
    assert image.get_array()[7, 15] == 4
    axes = image.axes
    assert axes.get_xlim() == (-10, 10)
    assert axes.get_ylim() == (-5, 5)


def test_the_outline_of_a_cell_is_its_four_edges():
    figure = decomposition_maps(frame(), 'signed')
    segments = by_gid(figure, 'truth')[0].get_segments()
    edges = {frozenset(map(tuple, s.tolist())) for s in segments}
    corners = [(5.0, 2.0), (6.0, 2.0), (6.0, 3.0), (5.0, 3.0)]
    assert edges == {frozenset((corners[i], corners[i - 1])) for i in range(4)}


def test_sigmoid_maps_show_nothing_below_one_half():
    figure = decomposition_maps(frame(), 'sigmoid')
    image = by_gid(figure, 'sigmoid-camera')[0]
    assert image.get_array()[7, 15] == pytest.approx(1 / (1 + np.exp(-4)))
    assert image.get_array()[0, 0] == 0.5
    assert image.get_clim() == (0.5, 1.0)
    shown = image.to_rgba(np.array([[0.5, 0.0]]))
    assert (shown[0, 0] == shown[0, 1]).all()


def test_signed_maps_share_a_scale_that_is_symmetric_about_zero():
    figure = decomposition_maps(frame(), 'signed')
    names = ('prediction', 'camera', 'radar', 'bias')
    limits = {by_gid(figure, f'signed-{name}')[0].get_clim() for name in names}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high < 0
    assert signed_scale(np.zeros((2, 3)), STYLES['white']).high == 1.0


def test_notes_are_the_means_where_something_is_predicted():
    figure = decomposition_maps(frame(), 'signed')
    notes = [a.get_text() for a in by_gid(figure, 'note')]
    # The only predicted cell: 4 - 1 - 2 = 1.
    assert [n.split()[1] for n in notes] == ['+1.00', '+4.00', '−1.00', '−2.00']


def test_a_sheet_has_cameras_points_maps_and_references():
    images = {n: np.zeros((9, 16, 3), np.uint8) for n in ('CAM_FRONT', 'CAM_BACK', 'other')}
    shown = frame(references={'camera only': torch.zeros(1, Z, X)})
    figure = decomposition_sheet(shown, images)
    gids = {axes.get_gid() for axes in figure.axes}
    assert {'image-CAM_FRONT', 'image-CAM_BACK', 'image-other'} <= gids
    for mode in ('sigmoid', 'signed'):
        assert by_gid(figure, f'{mode}-camera only')
    points = by_gid(figure, 'points-radar')[0]
    assert points.get_offsets().tolist() == [[5.5, 2.5], [300.0, 0.0]]
    # Points from far away do not move the map.
    assert points.axes.get_xlim() == (-10, 10)
    for axes in figure.axes:
        box = axes.get_position()
        assert box.x0 >= -1e-9
        assert box.x1 <= 1 + 1e-9
        assert box.y0 >= -1e-9


def test_seven_modalities_have_eight_colours():
    names = ('F', 'FR', 'FL', 'B', 'BL', 'BR', 'radar', 'bias')
    assert len(set(component_colours(names).values())) == 8
    assert component_colours(('camera', 'radar'))['radar'] == component_colours(names)['radar']


def test_shares_are_bars_that_end_to_end_fill_the_line():
    figure = layer_shares(frame().shares, frame().names)
    bars = [a for n in frame().names for a in by_gid(figure, f'share-{n}')]
    rows = {}
    for bar in bars:
        rows.setdefault(bar.axes, []).append((bar.get_x(), bar.get_width()))
    assert len(rows) == 2
    for row in rows.values():
        assert [x for x, _ in row] == pytest.approx(np.cumsum([0, *(w for _, w in row)])[:-1])
        assert sum(w for _, w in row) == pytest.approx(1)


def test_every_kind_gives_a_file_and_equal_frames_equal_bytes(tmp_path):
    torch.manual_seed(0)
    shown = frame()
    first = render_decomposition(shown, tmp_path / 'a', LMD_KINDS, dpi=40)
    assert [p.name for p in first] == [f'a_{kind}.png' for kind in LMD_KINDS]
    second = render_decomposition(shown, tmp_path / 'b', ['sigmoid'], dpi=40)
    assert second[0].read_bytes() == first[1].read_bytes()
    bare = frame(shares={}, energies={}, gradcams={}, ground_truth=None, points={}, area=None)
    few = render_decomposition(bare, tmp_path / 'c', LMD_KINDS, dpi=40, style='dark')
    assert [p.name for p in few] == ['a_sheet.png', 'a_sigmoid.png', 'a_signed.png']


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"\['sheets'\]: expected some of"):
        render_decomposition(frame(), tmp_path, ['sheets'])
    with pytest.raises(UnknownNameError, match="Unknown mode 'log'"):
        decomposition_maps(frame(), 'log')
    flat = Components(torch.zeros(4), torch.zeros(3, 4), ('camera', 'radar', 'bias'))
    with pytest.raises(InputError, match='expected a BEV map'):
        decomposition_maps(frame(outputs={'head': flat}))
    with pytest.raises(InputError, match='Capture layers'):
        layer_maps(frame(energies={}))
    with pytest.raises(InputError, match='capture layers'):
        layer_shares({}, frame().names)
