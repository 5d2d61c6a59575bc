"""What overrides says so, and what says so overrides: a renamed method of a base is noticed."""

import importlib
import pkgutil
from functools import cached_property
from inspect import isclass, isfunction

import pytest

from explain3d.core.override import override

HOSTS = ('common', 'generic', 'mmdet3d', 'pcdet')


def classes(host):
    """The classes that a host's adapter defines."""
    try:
        package = importlib.import_module(f'explain3d.adapters.{host}')
    except ModuleNotFoundError as error:
        if error.name == f'explain3d.adapters.{host}':
            return
        pytest.skip(f'needs {error.name}')
    for found in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
        if found.name.endswith('__main__'):
            continue
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            if isclass(value) and value.__module__ == found.name:
                yield value


def methods(cls):
    """The functions of a class by their names, without those that Python itself calls."""
    for name, value in vars(cls).items():
        if isinstance(value, property):
            value = value.fget
        elif isinstance(value, cached_property):
            value = value.func
        value = getattr(value, '__func__', value)
        if isfunction(value) and not (name.startswith('__') and name.endswith('__')):
            yield name, value


def mistakes(cls):
    for name, function in methods(cls):
        overrides = any(name in vars(base) for base in cls.__mro__[1:])
        if overrides != getattr(function, '__override__', False):
            said = 'says @override, but no base has it' if not overrides else 'lacks @override'
            yield f'{cls.__module__}.{cls.__qualname__}.{name} {said}'


@pytest.mark.parametrize('host', HOSTS)
def test_overrides_say_so(host):
    found = list(classes(host))
    assert [mistake for cls in found for mistake in mistakes(cls)] == []


def test_both_mistakes_are_found():
    class Base:
        def kept(self): ...

        @property
        def value(self): ...

        @classmethod
        def made(cls): ...

    class Right(Base):
        @override
        def kept(self): ...

        @property
        @override
        def value(self): ...

        @classmethod
        @override
        def made(cls): ...

        def own(self): ...

    class Wrong(Base):
        def kept(self): ...

        @property
        def value(self): ...

        @classmethod
        def made(cls): ...

        @override
        def gone(self): ...

    assert not list(mistakes(Right))
    assert [mistake.split(' ', 1)[0].rsplit('.')[-1] for mistake in mistakes(Wrong)] == [
        'kept', 'value', 'made', 'gone',
    ]  # fmt: skip
