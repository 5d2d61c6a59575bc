"""The simulated mini nuScenes for bird's-eye-view segmentation on a CPU: camera and radar.

``tools/make_mini_dataset.py nuscenes`` makes the data. The radar carries what plain keyframes have
too: compensated velocity and radar cross section. The parts below make the pipelines of other sets
of sensors.
"""

dataset_type = 'explain3d.NuScenesBEVDataset'
data_root = '{{$EXPLAIN3D_MINI_NUSCENES:data/mini_nuscenes}}/'
bev_grid = dict(x=(-50, 50, 100), y=(-3, 1, 4), z=(-50, 50, 100))
img_size = (128, 224)

load_cameras = dict(type='explain3d.LoadSurroundCameras')
augment_cameras = dict(
    type='explain3d.ResizeCropCameras', size=img_size, scale=(0.9, 1.15), shift=10
)
resize_cameras = dict(type='explain3d.ResizeCropCameras', size=img_size)
radar_features = ('vx_comp', 'vy_comp', 'rcs')
# Any number of sweeps: the real keyframes have one.
load_some_radar = dict(type='explain3d.LoadRadarSweeps', sweeps=(1, 5), features=radar_features)
load_radar = dict(type='explain3d.LoadRadarSweeps', sweeps=5, features=radar_features)
load_lidar = dict(type='explain3d.LoadLidarSweeps', sweeps=1)
augment_frame = dict(type='explain3d.ToReferenceFrame', rotate=0.4, mirror=0.5)
to_ego = dict(type='explain3d.ToReferenceFrame')
make_maps = dict(type='explain3d.VehicleBEVMaps', grid=bev_grid)
pack = dict(type='explain3d.PackBEVInputs')

# Without sensor dropout the network leans on the sensor that measures positions.
train_pipeline = [
    load_cameras,
    augment_cameras,
    load_some_radar,
    augment_frame,
    make_maps,
    dict(type='explain3d.BlankSensor', sensors=dict(radar=0.3, camera=0.15)),
    pack,
]
test_pipeline = [load_cameras, resize_cameras, load_radar, to_ego, make_maps, pack]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
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
    num_workers=0,
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
