"""Where the files that ship with explain3d are."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_path(name: str = '') -> Path:
    """Returns a config file that ships with explain3d, in a wheel or in a checkout.

    Args:
        name: Its path below ``configs/``, for example ``ffam/ffam_second_kitti.py``; empty for the
            folder itself.

    Raises:
        FileNotFoundError: If there is no such file; the message lists those that are there.
    """
    for root in (_PACKAGE / '.mim' / 'configs', _PACKAGE.parents[1] / 'configs'):
        if root.is_dir():
            if (root / name).exists():
                return root / name
            known = sorted(str(p.relative_to(root)) for p in root.glob('[!_]*/*.py'))
            raise FileNotFoundError(
                f'No config {name!r} ships with explain3d: expected one of {known}.'
            )
    raise FileNotFoundError(
        'The configs of explain3d are neither in the package nor beside it: install the wheel, or '
        'install a checkout with `pip install -e .`.'
    )
