"""The fenced blocks of README and docs: found by themselves, so that a new one is run, too.

A block that cannot be run where tests are has a line before its fence that says why::

    <!-- not run: needs nuScenes -->
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ('README.md', *sorted(f'docs/{path.name}' for path in ROOT.glob('docs/*.md')))
_FENCE = re.compile(
    r'^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>python|yaml)\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)

#: Keys of MMEngine's configurations that say what a run does; what has one of them is one.
KEYS = {
    '_base_', 'model', 'custom_hooks', 'default_hooks', 'test_evaluator', 'test_cfg', 'benchmark',
}  # fmt: skip
#: Arguments of the hooks that a page may show by themselves.
ARGUMENTS = {'explainer', 'targets', 'select', 'outputs', 'seeds', 'rules', 'results'}


@dataclass(frozen=True)
class Snippet:
    """A block of a page.

    Attributes:
        page: The page's path from the repository's root.
        line: Where its text begins.
        language: 'python' or 'yaml'.
        text: What stands in it.
        reason: Why it is not run; None: it is.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None = None

    @property
    def name(self) -> str:
        return f'{self.page}:{self.line}'

    @property
    def values(self) -> dict[str, str]:
        """What a Python block assigns at its top, by name; empty if it does anything else."""
        found = {}
        for statement in ast.parse(self.text).body:
            if isinstance(statement, (ast.With, ast.ImportFrom)) and 'read_base' in self.text:
                continue  # A configuration that imports what it names.
            plain = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            if not plain:
                return {}
            found[statement.targets[0].id] = ast.unparse(statement.value)
        return found

    @property
    def kind(self) -> str:
        """'yaml', 'configuration', 'arguments' of a hook, or 'program'."""
        if self.language == 'yaml':
            return 'yaml'
        names = self.values.keys()
        if names & KEYS and self.values.get('model', 'dict(').startswith('dict('):
            return 'configuration'
        return 'arguments' if names and names <= ARGUMENTS else 'program'


def snippets_of(text: str, page: str) -> Iterator[Snippet]:
    """Yields the blocks of a page."""
    for found in _FENCE.finditer(text):
        line = text[: found.start('text')].count('\n') + 1
        yield Snippet(page, line, found['language'], found['text'], found['reason'])


def all_snippets(kind: str) -> list[Snippet]:
    """Returns the blocks of a kind on all pages."""
    pages = [((ROOT / page).read_text('utf-8'), page) for page in PAGES]
    return [each for text, page in pages for each in snippets_of(text, page) if each.kind == kind]


def grouped(
    snippets: Sequence[Snippet], fits: Callable[[list[Snippet], Snippet], bool]
) -> list[list[Snippet]]:
    """Puts snippets that do not contradict each other into one run."""
    groups: list[list[Snippet]] = []
    for snippet in snippets:
        place = next((group for group in groups if fits(group, snippet)), None)
        if place is None:
            groups.append([snippet])
        else:
            place.append(snippet)
    return groups


def parameters(kind: str, fits: Callable[[list[Snippet], Snippet], bool]) -> list[Any]:
    """Returns the runs of a kind of snippet as parameters of a test; a marked one is skipped."""
    every = all_snippets(kind)
    runs = grouped([each for each in every if each.reason is None], fits)
    left = [each for each in every if each.reason is not None]
    return [
        *(pytest.param(run, id='+'.join(each.name for each in run)) for run in runs),
        *(pytest.param([x], id=x.name, marks=pytest.mark.skip(reason=x.reason)) for x in left),
    ]
