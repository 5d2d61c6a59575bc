"""Tiny data sets of the mini world in nuScenes's and Waymo's form."""

from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def mini_nuscenes(tmp_path_factory) -> Path:
    """One training and one validation scene of v1.0-mini: two keyframes, small pictures."""
    pytest.importorskip('embreex')
    pytest.importorskip('PIL')
    from explain3d.datasets.mini.build_nuscenes import NuScenesParameters, build_nuscenes

    parameters = NuScenesParameters(
        scenes_train=1, scenes_val=1, scenes_test=0, keyframes=2, version='v1.0-mini',
        radar_sweeps=3, lidar_sweeps=1, image_size=(160, 90),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp('mini_nuscenes')
    return build_nuscenes(folder, parameters, report=lambda text: None)


@pytest.fixture(scope='session')
def mini_waymo(tmp_path_factory) -> Path:
    """One training and one validation segment: three frames, few columns, small pictures."""
    pytest.importorskip('embreex')
    pytest.importorskip('PIL')
    from explain3d.datasets.mini.build_waymo import WaymoParameters, build_waymo

    parameters = WaymoParameters(
        segments_train=1, segments_val=1, frames=3, columns=500, images=True, image_size=(96, 64)
    )
    return build_waymo(tmp_path_factory.mktemp('mini_waymo'), parameters, report=lambda text: None)
