"""SimpleBEV, camera and radar with all metadata: the radar-camera set-up of LMD's Table 3.

The first convolution of the backbone and its stages begin with ImageNet's weights, as the
authors' do, if the runner initialises the model (training; not a test with a checkpoint).
"""

# The authors' volume, centred a metre below the front camera, whose frame is the reference.
grid = dict(x=(-50, 50, 200), y=(-4, 6, 8), z=(-50, 50, 200))

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
            depth=101,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(1, 2),
            norm_eval=False,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth',
            ),
        ),
        in_channels=(512, 1024),
        mid_channels=512,
        out_channels=128,
    ),
    lift=dict(type='explain3d.BilinearLift'),
    camera_pool=dict(type='explain3d.CameraMean'),
    rasterizers=dict(
        radar=dict(
            type='explain3d.PointRasterizer',
            occupancy=False,
            # Everything that nuScenes' radars measure, in its order; velocities along the axes of
            # each radar, as the authors leave them (velocities='sensor' of LoadRadarSweeps).
            features=(
                *('dyn_prop', 'id', 'rcs', 'vx', 'vy', 'vx_comp', 'vy_comp', 'is_quality_valid'),
                *('ambig_state', 'x_rms', 'y_rms', 'invalid_state', 'pdh0', 'vx_rms', 'vy_rms'),
                'time',
            ),
        ),
    ),
    fuser=dict(type='explain3d.ConcatConvFuser', out_channels=128),
    decoder=dict(type='explain3d.BEVUNet', base_channels=64),
    heads=dict(
        segmentation=dict(type='explain3d.BEVSegmentationHead'),
        center=dict(type='explain3d.BEVCenterHead'),
        offset=dict(type='explain3d.BEVOffsetHead'),
        # Trained by nothing, but part of the authors' checkpoints; several GPUs train with
        # find_unused_parameters=True because of it.
        feature=dict(type='explain3d.BEVFeatureHead'),
    ),
    # The authors' rand_flip; heads and losses see everything the right way round.
    flip_augmentation=True,
)
