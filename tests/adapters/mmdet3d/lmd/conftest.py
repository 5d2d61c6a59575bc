"""What these tests must not leave behind."""

from collections import OrderedDict

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def _no_scope_is_left(monkeypatch):
    """Runners make their default scope everybody's."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict(DefaultScope._instance_dict))
