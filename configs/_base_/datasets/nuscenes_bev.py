"""nuScenes for bird's-eye-view segmentation, as SimpleBEV's authors and LMD's Table 3 have it.

Images of 224 x 400, 200 x 8 x 200 cells around the front camera, 5 sweeps of radar with all
metadata. ``tools/add_bev_infos.py`` makes the info files. The parts below make the pipelines of
other sets of sensors.
"""

dataset_type = 'explain3d.NuScenesBEVDataset'
data_root = '{{$EXPLAIN3D_NUSCENES:data/nuscenes}}/'
# The authors' volume is centred a metre below the front camera.
bev_grid = dict(x=(-50, 50, 200), y=(-4, 6, 8), z=(-50, 50, 200))
img_size = (224, 400)

# The authors place cameras by their calibration alone.
load_cameras = dict(type='explain3d.LoadSurroundCameras', compensate=False)
augment_cameras = dict(
    type='explain3d.ResizeCropCameras',
    size=img_size,
    scale=(0.8, 1.2),
    shift=44,
    interpolation='bicubic',
    backend='pillow',
)
resize_cameras = dict(
    type='explain3d.ResizeCropCameras', size=img_size, interpolation='bicubic', backend='pillow'
)
# Velocities along each radar's own axes are what the authors' weights know.
load_radar = dict(type='explain3d.LoadRadarSweeps', sweeps=5, velocities='sensor')
load_lidar = dict(type='explain3d.LoadLidarSweeps', sweeps=5)
# The authors train in the frame of a random camera.
to_random_camera = dict(type='explain3d.ToReferenceFrame', origin='random_camera')
to_front_camera = dict(type='explain3d.ToReferenceFrame', origin='CAM_FRONT')
make_maps = dict(type='explain3d.VehicleBEVMaps', grid=bev_grid, fill='polygon')
pack = dict(type='explain3d.PackBEVInputs')

train_pipeline = [load_cameras, augment_cameras, load_radar, to_random_camera, make_maps, pack]
test_pipeline = [load_cameras, resize_cameras, load_radar, to_front_camera, make_maps, pack]

train_dataloader = dict(
    batch_size=5,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='nuscenes_infos_train_bev.pkl',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='nuscenes_infos_val_bev.pkl',
        pipeline=test_pipeline,
        test_mode=True,
        # --cfg-options "test_dataloader.dataset.blank_sensors=['camera']" takes a sensor away.
        blank_sensors=[],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='explain3d.BEVSegMetric')
test_evaluator = val_evaluator
