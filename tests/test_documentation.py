"""Examples of the README and of pages without a test of their own run; links lead somewhere.

docs/ffam.md, mmdet3d.md and mini_world.md are tested beside what they describe.
"""

import re
from pathlib import Path

import pytest

from explain3d.core import results
from explain3d.core.structures import Explanation
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS
from tests.helpers.toy_detector import ToyDetector

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('checkpoints/**/*.md')])


def examples(page):
    return re.findall(r'```python\n(.*?)```', (ROOT / page).read_text('utf-8'), re.DOTALL)


@pytest.fixture
def explanation():
    toy = ToyDetector()
    trace = toy.trace(toy.points(60), toy.anchors(2))
    maps = EXPLAINERS.build(dict(type='FFAM', rank=3)).explain(trace, parse_targets(['h', 'yaw']))
    return Explanation(trace.frame_id, trace.points, trace.detections, maps, 'FFAM')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r'\]\((?!https?:|#)([^)#]+)', page.read_text('utf-8'))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_tools_that_are_named_exist(page):
    named = re.findall(
        r'\b(?<![\w./])((?:tools|configs|checkpoints|benchmarks|requirements)/[\w./-]+\.(?:py|sh|pth|txt|md))',
        page.read_text('utf-8'),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_method_of_the_page_on_extending_works(monkeypatch):
    monkeypatch.setattr(EXPLAINERS, '_entries', dict(EXPLAINERS._entries))
    exec(examples('docs/extending.md')[0], {})
    toy = ToyDetector()
    trace = toy.trace(toy.points(30), toy.anchors(4))
    maps = EXPLAINERS.build('NearestToBox').explain(trace, parse_targets(['all', 'x']))
    assert maps.saliency['x'].shape == (4, 30)
    assert (maps.saliency['all'] >= 0).all()


def test_the_metric_of_the_page_on_extending_works(monkeypatch, explanation):
    pytest.importorskip('mmengine')
    from explain3d.registry import METRICS

    METRICS.import_from_location()  # What it imports by itself would go with the patch.
    monkeypatch.setattr(METRICS, '_module_dict', dict(METRICS._module_dict))
    exec(examples('docs/extending.md')[-1], {})
    metric = METRICS.build(dict(type='explain3d.SaliencyMass'))
    metric.process({}, [{'explanation': explanation}])
    found = metric.evaluate(size=1)  # One sample, two detections.
    assert found['detections'] == 2
    assert found['mean_saliency'] == pytest.approx(explanation.saliency.mean().item(), rel=1e-5)


def test_the_examples_of_the_page_on_results_run(explanation, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for frame in ('000008', '000009'):
        explanation.frame_id = frame
        results.save(Path('work_dirs/ffam') / f'{frame}.npz', explanation)
    read, write, draw = examples('docs/results.md')
    exec(read, {})
    assert capsys.readouterr().out.count('top_inside') == 2
    frames = [type('Frame', (), {'name': '000010'})()]

    def explain(frame):
        explanation.frame_id = frame.name
        return explanation

    exec(write, dict(results=results, settings={}, frames=frames, explain=explain))
    assert Path('work_dirs/ffam/000010.npz').exists()
    monkeypatch.setattr('explain3d.visualization.sheet.imread', lambda path: _grey())
    exec(draw, dict(explanation=explanation))
    assert Path('figure3.pdf').stat().st_size > 1000
    assert Path('pictures/000010_sheet.png').exists()


def _grey():
    import numpy as np

    return np.full((20, 60, 3), 128, np.uint8)


def test_the_hook_of_the_readme_is_a_hook(tmp_path):
    pytest.importorskip('mmdet3d')
    from mmengine.config import Config
    from mmengine.registry import HOOKS

    (tmp_path / 'config.py').write_text(examples('README.md')[0])
    config = Config.fromfile(tmp_path / 'config.py')
    hook = HOOKS.build(config.custom_hooks[0])
    assert EXPLAINERS.build(hook.explainer).rank == 16
    assert config.model.type == 'VoxelNet'
