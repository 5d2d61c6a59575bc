"""How well LMD separates camera and radar: Eq. 14-15 on the mini nuScenes, all rules, one table.

Three partners a sample keep it to minutes on a CPU; shifts=12 is the paper's.
"""

_base_ = [
    '../simplebev/simplebev_small_radar-camera_mini-nuscenes.py',
    '../_base_/explainers/lmd_separation.py',
]
load_from = 'checkpoints/simplebev_small_radar-camera_mini-nuscenes.pth'
test_cfg = dict(
    _delete_=True,
    type='explain3d.SeparationTestLoop',
    rules={{_base_.lmd_rules}},
    modes=['relinearized', 'frozen'],
    blanked=True,
    seeds='sensors',
    outputs=['heads.segmentation'],
    memoize=['img_encoder'],
    shifts=3,
)
