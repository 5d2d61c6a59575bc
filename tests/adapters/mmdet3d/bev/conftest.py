"""A tiny nuScenes-format data set with everything that the data sets here read."""

from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def bev_nuscenes(tmp_path_factory) -> Path:
    """One training scene of two keyframes with info files, radars added."""
    pytest.importorskip('embreex')
    pytest.importorskip('nuscenes')
    pytest.importorskip('mmdet3d')
    from explain3d.adapters.mmdet3d.bev.infos import add_bev_infos
    from explain3d.datasets.mini.build_nuscenes import NuScenesParameters, build_nuscenes
    from explain3d.datasets.mmdet3d_infos import make_nuscenes_infos

    parameters = NuScenesParameters(
        scenes_train=1, scenes_val=0, scenes_test=0, keyframes=2, version='v1.0-mini',
        radar_sweeps=2, lidar_sweeps=1, image_size=(160, 90),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp('bev_nuscenes')
    build_nuscenes(folder, parameters, report=lambda text: None)
    make_nuscenes_infos(folder, 'v1.0-mini')
    add_bev_infos(folder, ['nuscenes_infos_train.pkl'], sweeps=3, report=lambda text: None)
    return folder
