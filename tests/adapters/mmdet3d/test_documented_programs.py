"""The Python of README and docs that is no configuration: run here, or by a test of its own."""

import re
import shutil
from collections import Counter
from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_detectors as tiny
import torch
from torch import nn

from explain3d.core import results
from tests.helpers.snippets import ROOT, all_snippets
from tests.helpers.toy_explanation import toy_explanation

#: How many programs of a page are run by a test of their own, and where.
ELSEWHERE = {
    'docs/average_maps.md': (1, 'tests/tools/test_average_maps_tool.py'),
    'docs/extending.md': (2, 'tests/test_documentation.py'),
    'docs/ffam.md': (1, 'tests/methods/test_docs.py'),
    'docs/lmd.md': (2, 'tests/lmd/test_decomposition.py'),
    'docs/mini_world.md': (1, 'tests/datasets/test_mini_kitti.py'),
    'docs/mmdet3d.md': (1, 'tests/adapters/mmdet3d/test_documentation.py'),
    'docs/openpcdet.md': (2, 'tests/adapters/pcdet/test_pcdet_documentation.py'),
    'docs/results.md': (3, 'tests/test_documentation.py'),
    'docs/sensor_shares.md': (2, 'tests/adapters/mmdet3d/lmd/test_sensor_report.py'),
}
HERE = [each for each in all_snippets('program') if each.page not in ELSEWHERE and not each.reason]


def test_a_program_that_is_new_on_a_page_is_noticed():
    found = Counter(each.page for each in all_snippets('program') if not each.reason)
    for page, (count, test) in ELSEWHERE.items():
        assert found[page] == count, f'{page}: run its new program in {test}'
        assert page.split('/')[1] in (ROOT / test).read_text('utf-8')


class Net(nn.Module):
    """Any network of PyTorch with a layer that fuses, and a head."""

    def __init__(self):
        super().__init__()
        self.fuse, self.head = nn.Conv2d(16, 4, 3), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.head(self.fuse(x).relu())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What the programs find in the working directory."""
    folder = tmp_path_factory.mktemp('programs')
    path = documented.write(folder, '')
    path.write_text(f'{path.read_text()}class_names = {tiny.CLASSES!r}\n')
    shutil.copy(folder / 'weights.pth', folder / 'checkpoint.pth')
    (folder / 'work_dirs/second').mkdir(parents=True)
    shutil.copy(folder / 'weights.pth', folder / 'work_dirs/second/epoch_40.pth')
    tiny.cloud(0).astype(np.float32).tofile(folder / 'cloud.bin')
    explanation = toy_explanation()
    results.save(folder / 'work_dirs/ffam/000042.npz', explanation)
    return folder


@pytest.mark.parametrize('snippet', HERE, ids=lambda snippet: snippet.name)
def test_programs_run(snippet, folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    model = documented.DocumentedBEVModel().eval()
    names = dict(
        model=model,
        fusion_model=model,
        dataset=documented.DocumentedBEVFrame(),
        net=Net().eval(),
        x=torch.randn(1, 16, 8, 8),
    )
    exec(re.sub(r'cuda:\d', 'cpu', snippet.text), names)
    left = {name: each for name, each in names.items() if not name.startswith('__')}
    for name in ('explanation', 'frame', 'checkpoint'):
        assert left.get(name, True), name
    assert Path.cwd() == folder
