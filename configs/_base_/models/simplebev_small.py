"""SimpleBEV sized for a CPU: camera and radar (occupancy, velocity, cross section), 1 m cells."""

# y points down from the ego origin on the ground: four layers of a metre, where vehicles are.
grid = dict(x=(-50, 50, 100), y=(-3, 1, 4), z=(-50, 50, 100))
# Radar measures no height: one layer for it.
flat_grid = dict(x=(-50, 50, 100), y=(-5, 5, 1), z=(-50, 50, 100))

model = dict(
    type='explain3d.SimpleBEV',
    data_preprocessor=dict(
        type='explain3d.BEVDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    grid=grid,
    img_encoder=dict(
        type='explain3d.ResNetImageEncoder',
        backbone=dict(
            type='mmdet.ResNet',
            depth=18,
            base_channels=24,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(1, 2),
            norm_eval=False,
        ),
        in_channels=(48, 96),
        mid_channels=64,
        out_channels=32,
    ),
    lift=dict(type='explain3d.BilinearLift'),
    camera_pool=dict(type='explain3d.CameraMean'),
    rasterizers=dict(
        radar=dict(
            type='explain3d.PointRasterizer',
            grid=flat_grid,
            # Velocities along x and z of the reference frame, metres a second; dBsm.
            features=('vx_comp', 'vz_comp', 'rcs'),
            scale=(0.1, 0.1, 0.05),
        ),
    ),
    fuser=dict(type='explain3d.ConcatConvFuser', out_channels=48),
    decoder=dict(type='explain3d.BEVUNet', base_channels=32),
    heads=dict(
        segmentation=dict(type='explain3d.BEVSegmentationHead'),
        center=dict(type='explain3d.BEVCenterHead'),
        offset=dict(type='explain3d.BEVOffsetHead'),
    ),
)
