"""Which OpenPCDet the tests run on: the real one where there is one, else the stand-in."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STAND_IN = Path(__file__).parent / 'pcdet_standin'


@dataclass(frozen=True)
class PcdetHost:
    """A checkout that ``pcdet`` is imported from.

    Attributes:
        root: Its folder, with ``pcdet`` and ``tools``.
        real: Whether it is OpenPCDet itself.
    """

    root: Path
    real: bool

    @property
    def name(self) -> str:
        if self.real:
            return f'OpenPCDet in {self.root}'
        return 'the stand-in (PCDET_ROOT is not set and pcdet does not import)'

    @contextmanager
    def importable(self) -> Iterator[PcdetHost]:
        """Lets ``pcdet`` be imported, in the CPU mode where there is no GPU; all is undone."""
        from explain3d.adapters.common.spconv_compat import ensure_cpu_backward
        from explain3d.adapters.pcdet.cpu import cpu_mode

        ensure_cpu_backward()
        path = sys.path[:]
        with ExitStack() as stack:
            if not torch.cuda.is_available():
                stack.enter_context(cpu_mode())
            sys.path.insert(0, str(self.root))
            try:
                yield self
            finally:
                sys.path[:] = path


def find_host() -> PcdetHost:
    """Returns the checkout in ``PCDET_ROOT``, else where ``pcdet`` is installed, else ours."""
    root = os.environ.get('PCDET_ROOT')
    if not root:
        spec = importlib.util.find_spec('pcdet')
        # A folder of tests with this name on sys.path is a namespace, and has no origin.
        root = Path(spec.origin).parents[1] if spec is not None and spec.origin else None
    return PcdetHost(Path(root), True) if root else PcdetHost(STAND_IN, False)
