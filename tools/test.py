"""Tests, and explains, a 3D detector: of OpenPCDet with a YAML file, of MMDetection3D with others.

tools/test.py CONFIG.py CHECKPOINT [options of MMDetection3D's tools/test.py] [--out-dir DIR]
tools/test.py CONFIG.yaml CHECKPOINT [--pcdet CHECKOUT] [--device cpu] [--out-dir DIR]
[options of OpenPCDet's tools/test.py]
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> Any:
    """Runs the test; for MMDetection3D it returns the metrics."""
    argv = sys.argv[1:] if argv is None else argv
    config = next((a for a in argv if str(a).endswith(('.py', '.yaml', '.yml'))), '')
    if str(config).endswith('.py') or not config:
        return importlib.import_module('explain3d.adapters.mmdet3d.test_command').main(argv)
    return importlib.import_module('explain3d.adapters.pcdet.launcher').run_tool(argv)


if __name__ == '__main__':
    main()
