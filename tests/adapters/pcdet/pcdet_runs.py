"""Runs of a host's test script with a small detector on two frames, and what they leave."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import torch
import yaml

from explain3d.adapters.pcdet import launcher

ROOT = Path(__file__).parents[3]
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
EXPLAINER = {
    'METHOD': 'ODAM',
    'ARGS': {'LAYER': 'stride4'},
    'TARGETS': ['score'],
    'SELECT': {'SCORE_THR': 0.2, 'TOP_N': 2},
    'INTERVAL': 1,
}
MEASURED = {'METRICS': ['deletion', 'vea', 'pg'], 'PROTOCOL': {'STEPS': 3, 'IOU_THR': 0.3}}


def write(path, data, explainer=None, name='second'):
    base = ROOT / 'configs' / 'pcdet' / f'{name}_small_miniworld.yaml'
    content = {'_BASE_CONFIG_': str(base), 'DATA_CONFIG': {'DATA_PATH': str(data)}}
    if explainer is not None:
        content['EXPLAINER'] = explainer
    path.write_text(yaml.safe_dump(content))
    return path


def run(checkout, folder, config='odam.yaml', *options, ckpt='second.pth', **settings):
    """Runs the script in this process; returns its results and what it logged of them."""
    tag = Path(config).stem
    arguments = ['--cfg_file', str(folder / config), '--ckpt', str(folder / ckpt)]
    arguments += ['--workers', '0', '--extra_tag', tag, *options]
    launcher.run(checkout / 'tools/test.py', arguments, DEVICE, **settings)
    return results(checkout, tag)


def results(checkout, tag):
    """The detections of a run, and the lines of its log that have metrics."""
    (found,) = (checkout / 'output').glob(f'**/{tag}/eval/**/result.pkl')
    annotations = pickle.loads(found.read_bytes())
    log = max(found.parent.glob('log_eval_*.txt'), key=os.path.getmtime).read_text()
    lines = [re.sub(r'^[\d\- :,]+INFO  ', '', line) for line in log.splitlines()]
    return found.parent, annotations, [x for x in lines if re.search(r'AP|recall.r|objects:', x)]


def assert_same(a, b):
    assert len(a) == len(b) == 2
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            assert np.array_equal(x[key], y[key]), key
