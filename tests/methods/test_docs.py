"""The examples of docs/ffam.md, in order, in one namespace."""

import re
from pathlib import Path

from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS, FFAM

PAGE = (Path(__file__).parents[2] / 'docs' / 'ffam.md').read_text(encoding='utf-8')


def test_examples_run():
    names = {}
    for block in re.findall(r'```python\n(.*?)```', PAGE, flags=re.DOTALL):
        exec(block, names)
    assert isinstance(EXPLAINERS.build(names['explainer']), FFAM)
    assert [target.name for target in parse_targets(names['targets'])] == ['all', 'yaw', 'extent']
    assert names['saliency'].shape == (2, 1)


def test_every_option_and_default_is_on_the_page():
    plain, reference = FFAM().settings(), FFAM(reference=True).settings()
    rows = set(re.findall(r'^\| `(\w+)` \|', PAGE, flags=re.MULTILINE))
    # Radius and k share a row.
    assert plain.keys() - {'type', 'reference', 'radius', 'k'} <= rows
    for name in ('rank', 'tol', 'loss', 'init', 'negative', 'unit_concepts', 'max_weight'):
        cells = re.search(rf'^\| `{name}` \| (.*?) \| (.*?) \|', PAGE, re.MULTILINE).groups()
        assert list(cells) == [as_written(plain[name]), as_written(reference[name])], name


def as_written(value):
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, str):
        return f'`{value!r}`'
    return '1e-4' if value == 1e-4 else f'{value:g}'
