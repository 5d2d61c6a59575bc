"""SimpleBEV, camera and radar without metadata: one flat map of where there are points."""

_base_ = './simplebev_r101.py'

model = dict(
    rasterizers=dict(
        _delete_=True,
        radar=dict(
            type='explain3d.PointRasterizer',
            grid=dict(x=(-50, 50, 200), y=(-4, 6, 1), z=(-50, 50, 200)),
        ),
    )
)
