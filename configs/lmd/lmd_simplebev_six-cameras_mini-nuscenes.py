"""LMD with each camera as a modality of its own, beside the radar (Appendix F of LMD)."""

_base_ = './lmd_simplebev_radar-camera_mini-nuscenes.py'

_base_.custom_hooks[0].update(
    seeds='cameras', results=dict(pictures=['sheet', 'signed', 'shares', 'layers'])
)
