"""What the pictures of average maps show, read back from the artists and from the files."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.metrics.average_maps import MapCollection
from explain3d.metrics.average_protocol import AverageProtocol
from explain3d.metrics.average_shares import share_of
from explain3d.visualization import average_panel, average_rows
from explain3d.visualization.average_render import write_averages, write_detectors
from tests.helpers.average_cases import SIZE, frame, random_frames, world

PROTOCOL = AverageProtocol(cells=(8, 4, 4), scale='none', iou_thr=0.5, draws=20)


def collect(frames):
    return MapCollection([share_of(f, PROTOCOL) for f in frames], PROTOCOL)


def artists(figure, gid):
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def texts(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def corner_map():
    """Two cars with all of their saliency at the front left at the top."""
    places = torch.cartesian_prod(*[torch.tensor([-0.9, 0.9])] * 3)
    values = (places.sum(1) > 2).float()[None]
    boxes = [[20.0, 0, 0, *SIZE, 0.4], [30.0, 9, 0, *SIZE, -2.0]]
    return collect(
        [frame(f'{i}', [b], world(places, b), {'all': values}) for i, b in enumerate(boxes)]
    )


def test_views_show_front_left_and_top_where_they_are():
    figure = average_panel(corner_map().average('Car'))
    for view, corner in (('top', (1, 1)), ('side', (1, 1)), ('front', (1, 1))):
        (axes,) = artists(figure, view)
        (image,), (box,) = axes.images, artists(axes, 'box')
        pixels = image.get_array()
        (row, column) = np.argwhere((pixels[..., 3] > 0) & (pixels[..., 0] > pixels[..., 2]))[0]
        x0, x1, y0, y1 = image.get_extent()
        x = x0 + (column + 0.5) / pixels.shape[1] * (x1 - x0)
        y = y0 + (row + 0.5) / pixels.shape[0] * (y1 - y0)
        assert (np.sign([x, y]) == corner).all()
        # The outline is the box of the mean size, and the corner lies in it.
        length = dict(zip(('top', 'side', 'front'), SIZE[:1] * 2 + SIZE[1:2], strict=True))[view]
        assert box.get_width() == pytest.approx(length)
        assert box.contains_point(axes.transData.transform((x, y)))
        assert np.abs([x, y]).max() > 0.4


def test_panel_has_a_column_for_each_target_and_a_row_for_each_view():
    average = collect(random_frames(3)).average('Car', 'fp')
    figure = average_panel(average)
    assert [len(artists(figure, view)) for view in ('top', 'side', 'front')] == [2, 2, 2]
    shown = texts(figure)
    assert {'d (all)', 'h', 'top', 'Car, mean of 6 detections'} <= set(shown)
    assert len(artists(average_panel(average, ['h'], style='dark'), 'side')) == 1
    with pytest.raises(UnknownNameError, match=r"Unknown targets \['w'\]: expected some of"):
        average_panel(average, ['w'])


def test_cells_of_a_single_detection_are_pale():
    box = [20.0, 0, 0, *SIZE, 0]
    both, one = [[0.6, 0.6, 0.6]], [[0.6, 0.6, 0.6], [-0.6, -0.6, -0.6]]
    collection = collect(
        frame(str(i), [box], world(places, box), {'all': torch.ones(1, len(places))})
        for i, places in enumerate((both, one))
    )
    (axes,) = artists(average_panel(collection.average('Car')), 'top')
    alpha = axes.images[0].get_array()[..., 3]
    assert sorted(alpha[alpha > 0].round(6)) == [0.4, 1.0]


def test_rows_are_sets_and_columns_classes():
    collection = collect(random_frames(2))
    averages = {name: {'Car': collection.average('Car', name)} for name in ('tp', 'fp')}
    empty = collection.average('Pedestrian', 'fp')
    figure = average_rows({**averages, 'more': {'Car': averages['tp']['Car'], 'Pedestrian': empty}})
    shown = texts(figure)
    assert {'tp', 'fp', 'more', 'Car', 'Pedestrian'} <= set(shown)
    assert sum(text.startswith('n = 2, max ') for text in shown) == 2
    assert sum(text.startswith('n = 4, max ') for text in shown) == 1
    assert shown.count('no detections') == 3
    assert len(artists(figure, 'side')) == 3
    with pytest.raises(InputError, match='at least one class, received none'):
        average_rows({'tp': {}})


def test_a_map_without_saliency_or_points_is_drawn():
    average = corner_map().average('Car')
    zero = dataclasses.replace(average, saliency=average.saliency * 0)
    (axes,) = artists(average_panel(zero), 'side')
    assert np.isfinite(axes.images[0].get_array()).all()
    no_points = collect([frame('a', [[9.0, 0, 0, *SIZE, 0]], [], {'all': torch.zeros(1, 0)})])
    (axes,) = artists(average_panel(no_points.average('Car')), 'side')
    assert (axes.images[0].get_array()[..., 3] == 0).all()


def test_all_files(tmp_path):
    collection = collect(random_frames(2))
    text = write_averages(collection, tmp_path / 'a', dpi=50)
    assert text.startswith('**Ratio of classes** (Car)')
    assert {path.name for path in (tmp_path / 'a').iterdir()} == {
        'Car.npz', 'Car_all.png', 'Car_fp.png', 'Car_tp.png', 'detections.csv', 'table.csv',
        'table.json', 'table.md', 'true_false.png',
    }  # fmt: skip
    picture = write_detectors({'one': collection, 'other': corner_map()}, tmp_path, dpi=50)
    assert picture.name == 'detectors.png'


def test_files_without_detections(tmp_path):
    nothing = collect([frame('a', [], torch.zeros(3, 3), {'all': torch.zeros(0, 3)})])
    write_averages(nothing, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        'detections.csv', 'table.csv', 'table.json', 'table.md',
    }  # fmt: skip
    assert write_detectors({'a': nothing}, tmp_path) is None
