#!/usr/bin/env python
"""Prints what a folder holds that explain3d wrote, whatever wrote it.

    show_results.py work_dirs/ffam

Saliency maps, decompositions, sensor shares, average maps, tables of benchmarks, reports and
separation tests; of other folders it says what they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from explain3d.adapters.common.result_folder import describe
from explain3d.core.errors import Explain3DError


def main(argv: Sequence[str] | None = None) -> int:
    """Prints; returns 1 if something could not be read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='folder of result files')
    parser.add_argument('--targets', nargs='+', help='default: all in the files')
    parser.add_argument('--each', action='store_true', help='a row for each detection')
    args = parser.parse_args(argv)
    try:
        text, faults = describe(args.folder, args.targets, args.each)
    except Explain3DError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print('\n\n'.join(text))
    for fault in faults:
        print(f'not shown: {fault}', file=sys.stderr)
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
