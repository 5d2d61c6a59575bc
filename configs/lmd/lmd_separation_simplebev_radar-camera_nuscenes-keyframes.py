"""How well LMD separates camera and radar on real nuScenes keyframes (EXPLAIN3D_REAL_DATA)."""

_base_ = [
    '../simplebev/simplebev_small_radar-camera_nuscenes-keyframes.py',
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
