"""What the pictures show, read back from the artists and from the files."""

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from explain3d.core.errors import (
    InputError,
    NotApplicableError,
    ResultFileError,
    UnknownNameError,
)
from explain3d.core.structures import Maps
from explain3d.visualization import (
    KINDS,
    STYLES,
    attribute_panel,
    bev,
    concept_panel,
    contact_sheet,
    global_view,
    object_view,
    render_frame,
    save_figure,
)
from explain3d.visualization.geometry import box_corners, footprint
from explain3d.visualization.perspective import neighbourhood, object_camera
from explain3d.visualization.style import relative

TURBO = matplotlib.colormaps['turbo']


def artists(figure, gid):
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def points_of(axes):
    (points,) = (c for c in axes.collections if hasattr(c, 'get_sizes') and len(c.get_offsets()))
    return points


def main_axes(figure):
    return figure.axes[0]


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    return struct.unpack('>II', data[16:24])


# --- points --------------------------------------------------------------------------------------


@pytest.mark.parametrize('style', STYLES)
def test_hot_points_are_on_top_and_in_turbos_top_colour(frame, style):
    figure = bev(frame, detection=1, extent=(-6, 31, -16, 16), style=style)
    points = points_of(main_axes(figure))
    saliency = frame.saliency[1].numpy()
    assert len(points.get_offsets()) == len(saliency)
    # Drawn in this order: the last one covers the others.
    np.testing.assert_allclose(
        points.get_offsets()[-1], frame.points[saliency.argmax(), :2], rtol=1e-6
    )
    drawn = frame.points[np.argsort(saliency, kind='stable'), :2]
    np.testing.assert_allclose(points.get_offsets(), drawn, rtol=1e-6)
    colours = points.get_facecolors()
    np.testing.assert_allclose(colours[-1], TURBO(1.0))
    half = np.abs(np.sort(saliency) / saliency.max() - 0.5).argmin()
    np.testing.assert_allclose(colours[half], TURBO(np.sort(saliency)[half] / saliency.max()))
    assert colours[0, 3] < 1


def test_cold_points_are_turbos_lowest_colour_on_white(frame):
    frame.maps.saliency['all'] *= 0
    colours = points_of(main_axes(bev(frame))).get_facecolors()
    np.testing.assert_allclose(colours[:, :3], np.tile(TURBO(0.0)[:3], (len(colours), 1)))


def test_all_detections_together_show_each_at_its_own_scale(frame):
    frame.maps.saliency['all'][2] *= 1e-3
    figure = bev(frame, extent=(-6, 31, -16, 16))
    points = points_of(main_axes(figure))
    colours = points.get_facecolors()
    top = np.isclose(colours, TURBO(1.0)).all(1)
    hottest = frame.points[frame.saliency.argmax(1), :2].numpy()
    shown = points.get_offsets()[top]
    for position in hottest:
        assert np.isclose(shown, position, rtol=1e-6).all(1).any()


def test_relative():
    np.testing.assert_array_equal(relative(np.array([0.0, 2.0, 4.0])), [0, 0.5, 1])
    np.testing.assert_array_equal(relative(np.zeros(3)), np.zeros(3))
    np.testing.assert_array_equal(relative(np.array([-1.0, 1.0])), [0, 1])
    assert relative(np.zeros(0)).shape == (0,)
    with pytest.raises(InputError, match='not finite'):
        relative(np.array([1.0, np.nan]))


# --- bird's-eye view -----------------------------------------------------------------------------


def test_bev_boxes(frame):
    figure = bev(frame)
    (boxes,) = artists(figure, 'detections')
    (truth,) = artists(figure, 'truth')
    for drawn, detections in ((boxes, frame.detections), (truth, frame.ground_truth)):
        expected = [footprint(box) for box in detections.boxes.double().numpy()]
        for segment, corners in zip(drawn.get_segments(), expected, strict=True):
            np.testing.assert_allclose(segment, [*corners, corners[0]])
    assert to_rgba(STYLES['white'].detection) == tuple(boxes.get_colors()[0])
    assert to_rgba(STYLES['white'].truth) == tuple(truth.get_colors()[0])
    assert boxes.get_linestyles()[0][1] is None
    assert truth.get_linestyles()[0][1] is not None
    (ticks,) = artists(figure, 'detections-heading')
    box = frame.detections.boxes[0].double().numpy()
    direction = np.array([np.cos(box[6]), np.sin(box[6])])
    start, end = ticks.get_segments()[0]
    np.testing.assert_allclose(start, box[:2] + direction * box[3] / 2)
    np.testing.assert_allclose(end - start, direction * box[3] / 4)


def test_bev_is_to_scale(frame):
    figure = bev(frame)
    axes = main_axes(figure)
    figure.canvas.draw()
    (bar,) = artists(figure, 'scale-bar')
    length = np.ptp(bar.get_xdata())
    assert f'{length:g} m' in texts(figure)
    origin, right, up = axes.transData.transform([(0, 0), (1, 0), (0, 1)])
    assert right[0] - origin[0] == pytest.approx(up[1] - origin[1], rel=1e-6)
    (sensor,) = artists(figure, 'sensor')
    np.testing.assert_array_equal(sensor.get_xydata(), [[0, 0]])
    # Everything that matters is in the picture.
    (x_min, x_max), (y_min, y_max) = axes.get_xlim(), axes.get_ylim()
    for box in frame.detections.boxes.double().numpy():
        corners = footprint(box)
        assert (corners > (x_min, y_min)).all()
        assert (corners < (x_max, y_max)).all()


def test_bev_extent(frame):
    axes = main_axes(bev(frame, extent=(0, 20, -5, 10)))
    assert (*axes.get_xlim(), *axes.get_ylim()) == (0, 20, -5, 10)
    inside = (frame.points[:, 0] >= 0) & (frame.points[:, 0] <= 20)
    inside &= (frame.points[:, 1] >= -5) & (frame.points[:, 1] <= 10)
    assert len(points_of(axes).get_offsets()) == inside.sum()
    wide = main_axes(bev(frame, extent='points'))
    assert wide.get_xlim()[0] < -4.5
    for wrong in ('everything', (0, 1, 2), (5, 0, 0, 5)):
        with pytest.raises(InputError, match="expected 'boxes', 'points'"):
            bev(frame, extent=wrong)


def test_captions_stand_beside_their_boxes_without_overlap(make):
    generator = np.random.default_rng(0)
    boxes = [[*generator.uniform((3, -15), (30, 15)), -1, 4, 1.8, 1.5, a] for a in range(25)]
    frame = make(boxes, surface_points=2)
    figure = bev(frame)
    figure.canvas.draw()
    captions = artists(figure, 'caption')
    assert 8 <= len(captions) <= 25
    assert captions[0].get_text() == 'Car 0.90'
    renderer = figure.canvas.get_renderer()
    places = [caption.get_window_extent(renderer) for caption in captions]
    frame_box = main_axes(figure).get_window_extent(renderer)
    for i, place in enumerate(places):
        assert frame_box.x0 <= place.x0
        assert place.x1 <= frame_box.x1
        assert not any(place.overlaps(other) for other in places[:i])
    ranges = [label.get_window_extent(renderer) for label in artists(figure, 'range')]
    assert ranges
    assert not any(place.overlaps(other) for place in places for other in ranges)


def test_names_are_not_taken_for_formulas(frame, tmp_path):
    frame = replace(frame, frame_id='$frac_1', method='$\\broken')
    path = save_figure(bev(frame), tmp_path / 'a.png')
    assert path.exists()


# --- one object ----------------------------------------------------------------------------------


def test_object_view(frame):
    figure = object_view(frame, 0)
    axes = main_axes(figure)
    box = frame.detections.boxes[0].double().numpy()
    radius = np.hypot(box[3], box[4])
    camera = object_camera(box, radius)
    near = neighbourhood(frame.points[:, :3].double().numpy(), box, radius)
    points = points_of(axes)
    assert 0 < near.sum() == len(points.get_offsets())
    hottest = frame.points[frame.saliency[0].argmax(), :3].double().numpy()
    np.testing.assert_allclose(points.get_offsets()[-1], camera.project(hottest[None])[0][0])
    (seen,), (hidden,) = artists(figure, 'box'), artists(figure, 'box-hidden')
    assert (len(seen.get_segments()), len(hidden.get_segments())) == (9, 3)
    assert hidden.get_zorder() < points.get_zorder() < seen.get_zorder()
    assert hidden.get_alpha() < seen.get_alpha()
    corners, _ = camera.project(box_corners(box))
    drawn = np.concatenate([*seen.get_segments(), *hidden.get_segments()])
    for corner in corners:
        assert np.isclose(drawn, corner).all(1).sum() == 3
    low, high = np.transpose((axes.get_xlim(), axes.get_ylim()))
    assert ((corners > low) & (corners < high)).all()
    assert 'Car 0.90' in texts(figure)


@pytest.mark.parametrize('height', [0.5, 1.7, 4.0])
def test_the_caption_is_above_the_object_and_the_note_below_it(make, height):
    figure = object_view(make([[9.0, -2.5, height / 2 - 1.7, 0.8, 0.7, height, -1.0]]), 0)
    figure.canvas.draw()
    axes, renderer = main_axes(figure), figure.canvas.get_renderer()
    (caption,) = artists(figure, 'caption')
    (note,) = (text for text in axes.texts if 'away' in text.get_text())
    lines = [line for gid in ('box', 'box-hidden', 'truth') for line in artists(figure, gid)]
    corners = np.concatenate([part for line in lines for part in line.get_segments()])
    seen = axes.transData.transform(corners)[:, 1]
    assert seen.max() < caption.get_window_extent(renderer).y0
    assert seen.min() > note.get_window_extent(renderer).y1


def test_every_colour_bar_says_what_it_measures(frame):
    for figure in (object_view(frame, 0), attribute_panel(frame, 0), bev(frame)):
        (bar,) = (axes for axes in figure.axes if axes.get_gid() == 'colour-bar')
        words = ' '.join(text.get_text() for text in bar.texts).split()
        assert sorted(words) == ['0', 'max', 'saliency']


def test_near_points_are_larger(frame):
    frame.maps.saliency['all'] *= 0
    points = points_of(main_axes(object_view(frame, 0)))
    # Without saliency they are drawn from far to near.
    assert (np.diff(points.get_sizes()) >= 0).all()
    assert points.get_sizes()[-1] > 1.2 * points.get_sizes()[0]


def test_target_selects_the_map(frame):
    shown = {}
    for target in ('all', 'h'):
        shown[target] = points_of(main_axes(object_view(frame, 0, target))).get_offsets()[-1]
    assert not np.allclose(shown['all'], shown['h'])
    default = points_of(main_axes(object_view(frame, 0))).get_offsets()[-1]
    np.testing.assert_array_equal(default, shown['all'])


def test_neighbours_and_annotations_are_drawn(make):
    frame = make([[10, 0, -1, 4, 1.8, 1.5, 0], [10, 3, -1, 4, 1.8, 1.5, 0]])
    figure = object_view(frame, 0)
    assert len(artists(figure, 'neighbour')) == 1
    assert len(artists(figure, 'truth')) == 2


# --- panels --------------------------------------------------------------------------------------


def test_attribute_panel(frame):
    figure = attribute_panel(frame, 1)
    shown = texts(figure)
    for heading in ('d (all)', 'h', 'r (yaw)'):
        assert heading in shown
    panels = [axes for axes in figure.axes if axes.get_gid() != 'colour-bar']
    assert len(panels) == 2 * 3
    box = frame.detections.boxes[1].double().numpy()
    for target, lower in zip(('all', 'h', 'yaw'), panels[1::2], strict=True):
        # From above, in the box's frame: the hottest point near the box is on top.
        points = frame.points[:, :3].double().numpy()
        hottest = points[frame.maps.saliency[target][1].argmax(), :2] - box[:2]
        cos, sin = np.cos(box[6]), np.sin(box[6])
        local = [hottest[0] * cos + hottest[1] * sin, hottest[1] * cos - hottest[0] * sin]
        np.testing.assert_allclose(points_of(lower).get_offsets()[-1], local, atol=1e-9)
    assert len(attribute_panel(frame, 1, targets=['h']).axes) == 2 + 1


def test_concepts_come_strongest_first(frame):
    titles = [text for text in texts(concept_panel(frame)) if text.startswith('concept ')]
    assert [title.split()[1] for title in titles] == ['3', '1', '2', '0', '4']
    assert titles[-1].endswith('(0.0%)')
    few = concept_panel(frame, limit=2)
    assert any('2 of 5 concepts' in text for text in texts(few))


def test_global_view(frame):
    figure = global_view(frame, extent=(-6, 31, -16, 16))
    points = points_of(main_axes(figure))
    np.testing.assert_allclose(points.get_facecolors()[-1], TURBO(1.0))
    assert len(points.get_offsets()) == len(frame.points)
    for wireframe in artists(figure, 'box'):
        corners = np.concatenate(wireframe.get_segments())
        low, high = np.transpose((main_axes(figure).get_xlim(), main_axes(figure).get_ylim()))
        assert ((corners > low) & (corners < high)).all()
    from_above = global_view(frame, view='bev', extent=(-6, 31, -16, 16))
    hottest = frame.points[frame.maps.global_map.argmax(), :2]
    np.testing.assert_allclose(
        points_of(main_axes(from_above)).get_offsets()[-1], hottest, rtol=1e-6
    )
    with pytest.raises(UnknownNameError, match="'side'.*'perspective'"):
        global_view(frame, view='side')


def test_methods_without_concepts(frame):
    bare = replace(frame, maps=Maps(frame.maps.saliency), method='GradCAM')
    with pytest.raises(NotApplicableError, match='GradCAM has no global map'):
        global_view(bare)
    with pytest.raises(NotApplicableError, match='GradCAM has no concepts'):
        concept_panel(bare)


# --- the sheet -----------------------------------------------------------------------------------


@pytest.mark.parametrize('shape', [(60, 200, 3), (60, 200, 4), (60, 200), (300, 200, 3)])
def test_sheet_with_image(frame, shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    figure = contact_sheet(frame, image)
    (axes,) = artists(figure, 'image')
    (shown,) = axes.images
    assert shown.get_array().shape[:2] == shape[:2]
    assert len(figure.axes) == 1 + 1 + 3 + 1
    assert any(text.startswith('All 3 explained detections') for text in texts(figure))
    places = [a.get_position() for a in figure.axes]
    for i, place in enumerate(places):
        assert 0 <= place.x0 < place.x1 <= 1
        assert 0 <= place.y0 < place.y1 <= 1
        assert not any(
            place.x0 < other.x1 - 1e-9
            and other.x0 < place.x1 - 1e-9
            and place.y0 < other.y1 - 1e-9
            and other.y0 < place.y1 - 1e-9
            for other in places[:i]
        )


def test_sheet_reads_image_files(frame, tmp_path):
    image = np.linspace(0, 1, 20 * 30 * 3).reshape(20, 30, 3)
    matplotlib.image.imsave(tmp_path / 'a.png', image)
    (axes,) = artists(contact_sheet(frame, tmp_path / 'a.png'), 'image')
    np.testing.assert_allclose(axes.images[0].get_array()[..., :3], image, atol=1 / 255)


@pytest.mark.parametrize('wrong', [np.zeros(5), np.zeros((4, 4, 2)), np.zeros((0, 4, 3))])
def test_sheet_refuses_what_is_no_image(frame, wrong):
    with pytest.raises(InputError, match=r'expected \(height, width, 3\)'):
        contact_sheet(frame, wrong)


def test_sheet_says_how_many_it_leaves_out(make):
    boxes = [[5 + i % 10 * 4, i // 10 * 4 - 20, -1, 3, 1.5, 1.5, i] for i in range(100)]
    frame = make(boxes, ground=100, surface_points=3, targets=('all',))
    figure = contact_sheet(frame, max_objects=4)
    assert len(figure.axes) == 1 + 4 + 1
    assert any('The 4 with the highest scores of 100' in text for text in texts(figure))


# --- degenerate frames ---------------------------------------------------------------------------


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('case', ['nothing', 'no points', 'no detections', 'zeros', 'one point'])
def test_degenerate_frames_are_drawn(make, empty, tmp_path, case):
    frame = {
        'nothing': lambda: empty,
        'no points': lambda: make(ground=0, surface_points=0),
        'no detections': lambda: make(boxes=[]),
        'zeros': lambda: make(targets=('all',)),
        'one point': lambda: make(ground=1, surface_points=0),
    }[case]()
    if case == 'zeros':
        frame.maps.saliency['all'] *= 0
        frame.maps.global_map *= 0
        frame.maps.concepts *= 0
        assert 'the map is zero everywhere' in texts(bev(frame))
        assert 'the map is zero everywhere' in texts(object_view(frame, 0))
    paths = render_frame(frame, tmp_path, KINDS, max_objects=1, dpi=40)
    per_object = 2 if len(frame.detections) else 0
    assert len(paths) == 4 + per_object
    if not len(frame.detections):
        assert 'No detections to explain.' in texts(contact_sheet(frame))


@pytest.mark.parametrize(
    'box', [[0, 0, 0, 4, 2, 2, 0], [5, 0, 0, 0, 0, 0, 0], [5, 1, 0, 9, 9, 9, 99]]
)
def test_odd_boxes_are_drawn(make, tmp_path, box):
    frame = make([box], ground=50, surface_points=5)
    assert len(render_frame(frame, tmp_path, ('sheet', 'attributes'), dpi=40)) == 2


def test_no_target(frame, tmp_path):
    frame.maps.saliency.clear()
    with pytest.raises(UnknownNameError, match='expected one of'):
        bev(frame)


@pytest.mark.parametrize('draw', [bev, object_view])
def test_unknown_detection_and_target(frame, draw):
    for wrong in (3, -1):
        with pytest.raises(InputError, match=f'no detection {wrong}: expected .* 0 to 2'):
            draw(frame, wrong)
    with pytest.raises(UnknownNameError, match=r"'z': expected one of \['all', 'h', 'yaw'\]"):
        draw(frame, 0, 'z')
    with pytest.raises(UnknownNameError, match="'sepia'.*dark.*white"):
        draw(frame, 0, style='sepia')


def test_saliency_that_is_not_finite(frame):
    frame.maps.saliency['all'][0, 0] = float('nan')
    with pytest.raises(InputError, match='not finite'):
        object_view(frame, 0)


# --- files ---------------------------------------------------------------------------------------


def test_files_of_a_frame(frame, tmp_path):
    frame = replace(frame, frame_id='scene/7')
    paths = render_frame(
        frame, tmp_path / 'new', ('sheet', 'objects', 'bev'), max_objects=2, dpi=50
    )
    names = [path.name.split('_', 2)[2] for path in paths]
    assert names == ['sheet.png', 'object_000.png', 'object_001.png', 'bev.png']
    assert all(path.name.startswith('scene_7~') for path in paths)
    assert sorted(paths) == sorted((tmp_path / 'new').iterdir())
    figure = bev(frame)
    width, height = figure.get_size_inches() * 50
    assert png_size(paths[-1]) == (int(width), int(height))


def test_maps_that_are_not_there_give_no_picture(frame, tmp_path):
    bare = replace(frame, maps=Maps(frame.maps.saliency))
    assert render_frame(bare, tmp_path, ('global', 'concepts')) == []
    with pytest.raises(UnknownNameError, match=r"\['movie'\]: expected some of \['sheet'"):
        render_frame(bare, tmp_path, ('sheet', 'movie'))
    with pytest.raises(UnknownNameError, match="'z'"):
        render_frame(bare, tmp_path, target='z')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('suffix', 'start'), [('.png', b'\x89PNG'), ('.pdf', b'%PDF')])
def test_equal_figures_give_equal_files(frame, tmp_path, suffix, start):
    files = [save_figure(object_view(frame, 0), tmp_path / f'{i}{suffix}') for i in 'ab']
    assert files[0].read_bytes().startswith(start)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_svg_and_unknown_formats(frame, tmp_path):
    figure = object_view(frame, 0)
    assert b'<svg' in save_figure(figure, tmp_path / 'a.svg').read_bytes()
    with pytest.raises(InputError, match='ends in one of'):
        save_figure(figure, tmp_path / 'a.gif')


def test_files_that_cannot_be_written(frame, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ResultFileError, match='Could not write the picture a.png'):
        save_figure(object_view(frame, 0), tmp_path / 'file' / 'a.png')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.gpu
def test_tensors_on_a_gpu(frame, tmp_path):
    on_gpu = replace(
        frame, points=frame.points.cuda(), detections=frame.detections.to('cuda'),
        maps=Maps({name: values.cuda() for name, values in frame.maps.saliency.items()}),
    )  # fmt: skip
    assert len(render_frame(on_gpu, tmp_path)) == 1


# --- nobody else's business ----------------------------------------------------------------------

# Only lines.scale_dashes would be seen: matplotlib reads it nowhere but from the settings.
HOSTILE = {
    'savefig.bbox': 'tight',
    'savefig.dpi': 30,
    'savefig.facecolor': 'red',
    'text.usetex': True,
    'font.size': 30,
    'font.family': 'serif',
    'axes.facecolor': 'red',
    'axes.linewidth': 9,
    'axes.xmargin': 0.4,
    'lines.linewidth': 9,
    'lines.markersize': 30,
    'image.origin': 'lower',
    'legend.fontsize': 30,
    'legend.shadow': True,
    'legend.fancybox': False,
    'legend.labelspacing': 3,
    'scatter.edgecolors': 'red',
    'patch.linewidth': 9,
    'figure.autolayout': True,
    'xtick.labelsize': 30,
}


def test_the_users_settings_change_nothing(frame, tmp_path):
    image = np.zeros((30, 90, 3), np.uint8)

    def render(folder):
        return render_frame(frame, tmp_path / folder, KINDS, image, max_objects=1, dpi=60)

    plain = render('plain')
    with matplotlib.rc_context(HOSTILE):
        hostile = render('hostile')
    for a, b in zip(plain, hostile, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


SOLITARY = """
import os, sys
os.environ.pop('DISPLAY', None)
import matplotlib
before = str(matplotlib.rcParams.copy())
sys.path.insert(0, sys.argv[1])
from conftest import build
from explain3d.visualization import KINDS, render_frame
assert render_frame(build(), sys.argv[2], KINDS, max_objects=1, dpi=40)
assert str(matplotlib.rcParams.copy()) == before
loaded = {name.split('.')[0] for name in sys.modules}
hosts = {'mmdet3d', 'mmengine', 'mmcv', 'mmdet', 'pcdet', 'spconv'}
assert not loaded & hosts, loaded & hosts
assert 'matplotlib.pyplot' not in sys.modules
"""


def test_neither_pyplot_nor_hosts_nor_settings_are_touched(tmp_path):
    # conftest imports pytest, but neither pyplot nor a host.
    folder = str(Path(__file__).parent)
    subprocess.run([sys.executable, '-c', SOLITARY, folder, str(tmp_path)], check=True)
