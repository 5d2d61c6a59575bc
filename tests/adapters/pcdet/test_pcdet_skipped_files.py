"""A run of OpenPCDet's test script over a cloud that cannot be read."""

import shutil

from pcdet_runs import EXPLAINER, run, write

from explain3d.core.results import ResultStore


def test_clouds_that_cannot_be_read_are_skipped(checkout, folder, pcdet_kitti, tmp_path):
    data = shutil.copytree(pcdet_kitti, tmp_path / 'data')
    good, bad = sorted((data / 'training/velodyne').glob('*.bin'))[-2:]
    bad.write_bytes(bad.read_bytes()[:-4])
    write(tmp_path / 'skip.yaml', data, {**EXPLAINER, 'ON_ERROR': 'skip'})
    shutil.copy(folder / 'second.pth', tmp_path)
    place, annotations, _ = run(checkout, tmp_path, 'skip.yaml')
    assert [frame['frame_id'] for frame in annotations] == [good.stem, bad.stem]
    assert [e.frame_id for e in ResultStore(place / 'explanations')] == [good.stem]
    log = max(place.glob('log_eval_*.txt')).read_text()
    assert f"The cloud of frame '{bad.stem}' in" in log
    assert '1 failed' in log
