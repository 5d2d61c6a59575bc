"""FFAM on MMDetection3D's own voxel CenterPoint and nuScenes, for the model zoo's checkpoint."""

_base_ = [
    'mmdet3d::centerpoint/centerpoint_voxel01_second_secfpn_8xb4-cyclic-20e_nus-3d.py',
    '../_base_/explainers/ffam.py',
]
custom_imports = dict(imports=['explain3d.adapters.mmdet3d'], allow_failed_imports=False)
