"""FFAM on MMDetection3D's own SECOND and KITTI, for the model zoo's checkpoint."""

_base_ = [
    'mmdet3d::second/second_hv_secfpn_8xb6-80e_kitti-3d-3class.py',
    '../_base_/explainers/ffam.py',
]
custom_imports = dict(imports=['explain3d.adapters.mmdet3d'], allow_failed_imports=False)
