"""Code that numba compiles is compiled once, not in every process."""

import importlib.util

import numpy as np
import pytest

from explain3d.adapters.mmdet3d.compiled import keep_compiled

SOURCE = """
import numba

@numba.jit(nopython=True)
def inner(x):
    return 2 * x

@numba.jit(nopython=True)
def double(values):
    total = 0.0
    for value in values:
        total += inner(value)
    return total

number = 3
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / 'jitted.py'
    path.write_text(SOURCE)

    def once():
        spec = importlib.util.spec_from_file_location('jitted', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        keep_compiled(module)
        return module

    return once


def test_the_second_process_takes_it_from_disk(load, tmp_path, monkeypatch):
    monkeypatch.setattr('numba.config.CACHE_DIR', str(tmp_path / 'cache'))
    first, second = load(), load()
    assert first.double(np.arange(3.0)) == second.double(np.arange(3.0)) == 6
    assert sum(first.double.stats.cache_misses.values()) == 1
    assert sum(second.double.stats.cache_hits.values()) == 1


def test_without_a_folder_it_is_compiled_as_ever(load, monkeypatch):
    monkeypatch.setattr('numba.core.caching.CacheImpl._locator_classes', [])
    module = load()
    assert module.double(np.arange(3.0)) == 6
    assert module.double.stats.cache_path is None
