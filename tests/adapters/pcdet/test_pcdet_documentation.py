"""The YAML of README and docs is run through OpenPCDet's test script."""

import logging
import pickle

import numpy as np
import pytest
import yaml
from pcdet_runs import run, write

from explain3d.adapters.pcdet.config import _merged, read_config
from explain3d.metrics.saliency_table import load_records
from tests.helpers.snippets import all_snippets, parameters


def _content(snippet):
    """What a snippet says; the base that it names is the small one here."""
    content = yaml.safe_load(snippet.text)
    content.pop('_BASE_CONFIG_', None)
    return content


def _agree(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_agree(a[key], b[key]) for key in a.keys() & b.keys())
    return a == b


def _fits(group, snippet):
    return all(_agree(_content(other), _content(snippet)) for other in group)


@pytest.fixture
def one_object(pcdet_kitti, tmp_path):
    """A frame of the data set with the nearest of its cars, and what stands around it."""
    name, training = 'pcdet_infos_val.pkl', tmp_path / 'training'
    (training / 'velodyne').mkdir(parents=True)
    for path in pcdet_kitti.iterdir():
        if path.name not in (name, 'training'):
            (tmp_path / path.name).symlink_to(path)
    for path in (pcdet_kitti / 'training').iterdir():
        if path.name != 'velodyne':
            (training / path.name).symlink_to(path)
    info = pickle.loads((pcdet_kitti / name).read_bytes())[0]
    annos, count = info['annos'], len(info['annos']['name'])
    order = annos['location'][:, 2].argsort()
    nearest = next(i for i in order if annos['name'][i] == 'Car')
    for key, values in annos.items():
        if len(values) == count:
            annos[key] = values[[nearest]]
    (tmp_path / name).write_bytes(pickle.dumps([info]))
    file = f'training/velodyne/{info["point_cloud"]["lidar_idx"]}.bin'
    points = np.fromfile(pcdet_kitti / file, np.float32).reshape(-1, 4)
    around = np.linalg.norm(points[:, :2] - annos['gt_boxes_lidar'][0, :2], axis=1) < 20
    points[around].tofile(tmp_path / file)
    return tmp_path


@pytest.mark.parametrize('snippets', parameters('yaml', _fits))
def test_yaml_runs(snippets, checkout, folder, one_object):
    content = {}
    for snippet in snippets:
        content = _merged(content, _content(snippet))
    explainer = content['EXPLAINER']
    write(folder / 'documented.yaml', one_object, explainer)
    place, annotations, metrics = run(checkout, folder, 'documented.yaml', '--batch_size', '1')
    assert len(annotations) == 1
    results = list((place / 'explanations').glob('*.npz'))
    assert len(results) == 1
    if explainer.get('OUTPUTS', {}).get('PICTURES'):
        assert list((place / 'explanations/pictures').glob('*.png'))
    if explainer.get('METRICS'):
        records = load_records(place / 'explanations/metrics/records.json')
        assert records
        assert all(set(explainer['METRICS']) <= record.figures.keys() for record in records)
        # The host's own figures: average precision, counts in the stand-in.
        assert any('objects:' in line or 'AP' in line for line in metrics)


def _programs(page, word):
    return [x.text for x in all_snippets('program') if x.page == page and word in x.text]


def test_programs_of_the_page_run(pcdet_host, folder, one_object):
    """docs/openpcdet.md: a frame is explained from Python, in the CPU mode."""
    from pcdet.config import EasyDict
    from pcdet.datasets import build_dataloader
    from pcdet.models import build_network

    cfg = EasyDict(read_config(write(folder / 'python.yaml', one_object)))
    dataset, _, _ = build_dataloader(
        dataset_cfg=cfg.DATA_CONFIG, class_names=cfg.CLASS_NAMES, batch_size=1, dist=False,
        workers=0, logger=None, training=False,
    )  # fmt: skip
    model = build_network(model_cfg=cfg.MODEL, num_class=3, dataset=dataset)
    model.load_params_from_file(str(folder / 'second.pth'), logging.getLogger('pcdet'), True)
    (explain,) = _programs('docs/openpcdet.md', 'import explain\n')
    (cpu,) = _programs('docs/openpcdet.md', 'cpu_mode')
    names = dict(model=model, dataset=dataset)
    exec(explain, names)
    exec(cpu, names)
    assert names['explanation'].saliency.shape[1] == len(names['explanation'].points)
    assert len(names['explanation'].detections)
