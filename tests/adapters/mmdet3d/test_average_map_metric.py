"""Average maps as an evaluator: frames in, figures and files out."""

import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from mmengine.logging import MMLogger

pytest.importorskip('mmdet3d')

from explain3d.core.errors import InputError
from explain3d.metrics.average_files import load_averages
from explain3d.registry import METRICS
from tests.helpers.average_cases import frame, random_frames

PROTOCOL = dict(cells=(8, 4, 4), scale='none', iou_thr=0.5, draws=20)


def metric(**settings):
    config = dict(type='explain3d.AverageMapMetric', protocol=PROTOCOL, pictures=False)
    return METRICS.build(config | settings)


def samples(frames):
    return [{'explanation': f} for f in frames]


def same(a, b):
    return a.keys() == b.keys() and all(
        a[key] == b[key] or (math.isnan(a[key]) and math.isnan(b[key])) for key in a
    )


def test_figures_do_not_depend_on_batches_or_processes(tmp_path):
    frames = random_frames(5)
    one = metric(dir=str(tmp_path))
    for f in frames:
        one.process({}, samples([f]))
    found = one.evaluate(size=5)
    assert found['average_maps/Car/tp/count'] == 5
    assert found['average_maps/Car/fp/count'] == 10
    assert found['average_maps/Car/fp/tp/all/similarity_region_low'] < 1
    assert not any('/h/' in name for name in found)  # The second target is in the files alone.
    assert 'h' in {
        f['target'] for f in json.loads((tmp_path / 'table.json').read_text())['figures']
    }
    assert load_averages(tmp_path / 'Car.npz')['tp'].count == 5
    # What MMEngine makes of two processes: frames take turns, the last round is padded.
    left, right = metric(), metric()
    left.process({}, samples([frames[0], frames[2], frames[4]]))
    right.process({}, samples([frames[1], frames[3], frames[0]]))
    turns = [share for pair in zip(left.results, right.results, strict=True) for share in pair]
    assert same({f'average_maps/{k}': v for k, v in left.compute_metrics(turns).items()}, found)


def test_frames_without_maps(caplog):
    with pytest.raises(InputError, match='add an explain3d.ExplainerHook'):
        metric().process({}, [{}])
    failed = random_frames(1)[0]
    failed.maps.info['error'] = 'no points'
    with caplog.at_level(logging.WARNING):
        alone = metric()
        alone.process({}, samples([failed]))
        assert alone.evaluate(size=1) == {'average_maps/detections': 0}
    both = metric()
    both.process({}, samples([failed, frame('b', [], [], {'all': torch.zeros(0, 0)})]))
    assert both.evaluate(size=2)['average_maps/all/tp/count'] == 0


def test_a_map_that_is_not_finite_names_its_frame():
    bad = random_frames(1)[0]
    bad.maps.saliency['h'][0, 0] = math.nan
    with pytest.raises(InputError, match="Frame '000000', FFAM, target 'h'"):
        metric().process({}, samples([bad]))


def test_pictures_are_drawn_if_wanted(tmp_path):
    drawn = metric(dir=str(tmp_path), pictures=True)
    drawn.process({}, samples(random_frames(1)))
    drawn.evaluate(size=1)
    assert (tmp_path / 'true_false.png').exists()


@pytest.fixture
def told(caplog):
    """The lines of the log, whose logger of MMEngine passes nothing on."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_a_run_without_an_annotated_object_and_another_runs_folder_are_told(tmp_path, told):
    def measured(*frames):
        one = metric(dir=str(tmp_path))
        one.process({}, samples(frames))
        one.evaluate(size=len(frames))
        text, table = told.text, (tmp_path / 'table.md').read_text()
        told.clear()
        return text, table

    empty = [replace(f, ground_truth=f.ground_truth[[]]) for f in random_frames(2)]
    text, table = measured(*empty)
    assert 'without an annotated object' in text
    assert 'Choose an annotated split' in table
    text, table = measured(random_frames(1)[0], empty[1])  # One frame is empty, the split is not.
    assert 'annotated' not in text + table
    others = [replace(f, method='ODAM') for f in random_frames(2)]
    assert 'holds the averages of another run: they are replaced' in measured(*others)[0]
    assert 'another run' not in measured(*others)[0]
