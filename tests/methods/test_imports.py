import subprocess
import sys

HOSTS = ('mmdet3d', 'mmdet', 'mmengine', 'mmcv', 'pcdet', 'spconv', 'sklearn', 'matplotlib')


def test_methods_need_no_host_toolbox():
    code = f'import sys, explain3d.methods; print([m for m in {HOSTS} if m in sys.modules])'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == '[]'
