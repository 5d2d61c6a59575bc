"""How well LMD separates camera and LiDAR: Eq. 14-15 with the paper's pairs, on nuScenes."""

_base_ = [
    '../simplebev/simplebev_r101_lidar-camera_nuscenes.py',
    '../_base_/explainers/lmd_separation.py',
]
test_cfg = dict(
    _delete_=True,
    type='explain3d.SeparationTestLoop',
    rules={{_base_.lmd_rules}},
    modes=['relinearized', 'frozen'],
    blanked=True,
    seeds='sensors',
    outputs=['heads.segmentation'],
    memoize=['img_encoder'],
)
