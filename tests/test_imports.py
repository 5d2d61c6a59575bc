"""What an import brings along: an OpenPCDet user needs no OpenMMLab package, and vice versa."""

import subprocess
import sys
from pathlib import Path

import pytest

HOSTS = ('mmdet3d', 'mmdet', 'mmengine', 'mmcv', 'pcdet', 'spconv')
PROBE = """
import importlib, pkgutil, sys

def modules(name):
    module = importlib.import_module(name)
    for found in pkgutil.iter_modules(getattr(module, '__path__', ()), name + '.'):
        importlib.import_module(found.name)

{code}
print(','.join(sorted({{name.split('.')[0] for name in sys.modules}})))
"""


def imported(code):
    done = subprocess.run(
        [sys.executable, '-c', PROBE.format(code=code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.strip().split(','))


def test_host_independent_parts_import_no_host():
    parts = ('core', 'methods', 'lmd', 'lmd.rules', 'metrics', 'visualization', 'datasets')
    found = imported('; '.join(f"modules('explain3d.{part}')" for part in parts))
    assert {'explain3d', 'torch', 'matplotlib'} <= found
    assert found.isdisjoint(HOSTS)


def test_what_the_adapters_share_imports_no_host():
    found = imported("modules('explain3d.adapters.common')")
    assert 'torch' in found
    assert found.isdisjoint(HOSTS)


def test_the_adapter_of_openpcdet_imports_no_host():
    found = imported(
        "modules('explain3d.adapters.pcdet'); modules('explain3d.adapters.pcdet.heads')"
    )
    assert 'torch' in found
    assert found.isdisjoint(HOSTS)


def test_tools_with_a_yaml_file_need_no_openmmlab_package():
    """Whoever has OpenPCDet alone runs these tools: imports of the others fail there."""
    code = f"""
import importlib.util, pathlib
for name in ('mmengine', 'mmcv', 'mmdet', 'mmdet3d'):
    sys.modules[name] = None
root = pathlib.Path({str(Path(__file__).parents[1])!r})
tools = {{}}
for name in ('test', 'benchmark', 'compare_methods', 'fit_occam_density', 'show_results'):
    spec = importlib.util.spec_from_file_location('tool_' + name, root / 'tools' / (name + '.py'))
    tools[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools[name])
config = str(root / 'configs/pcdet/benchmark_second_small_miniworld.yaml')
for name in ('benchmark', 'compare_methods'):
    assert tools[name].plan_of(tools[name].parse_args([config])).methods
assert tools['fit_occam_density'].parse_args([config]).config == config
try:
    tools['test'].main([config])
except SystemExit as error:
    assert 'no section EXPLAINER' in str(error) or 'OpenPCDet' in str(error), error
for name in ('mmengine', 'mmcv', 'mmdet', 'mmdet3d'):
    del sys.modules[name]
"""
    assert imported(code).isdisjoint({'mmdet3d', 'mmdet', 'mmengine', 'mmcv', 'pcdet'})


def test_the_package_alone_imports_neither_torch_nor_numpy():
    found = imported('import explain3d; explain3d.__version__; dir(explain3d)')
    assert found.isdisjoint({*HOSTS, 'torch', 'numpy', 'matplotlib'})


def test_load_needs_no_host():
    found = imported('import explain3d; explain3d.load')
    assert 'torch' in found
    assert found.isdisjoint({*HOSTS, 'matplotlib'})


def test_an_unknown_attribute_is_an_attribute_error():
    import explain3d

    with pytest.raises(AttributeError, match="'explain3d' has no attribute 'explian'"):
        explain3d.explian  # noqa: B018
    assert {'explain', 'load', '__version__'} <= set(dir(explain3d))
