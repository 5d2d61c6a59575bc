"""Radar and LiDAR files into the ego frame."""

import struct

import numpy as np
import pytest

pytest.importorskip('nuscenes')

from explain3d.adapters.mmdet3d.bev.lidar import LoadLidarSweeps
from explain3d.adapters.mmdet3d.bev.radar import (
    ALL_FEATURES,
    PCD_FIELDS,
    LoadRadarArray,
    LoadRadarSweeps,
    read_radar,
)
from explain3d.core.errors import InputError

_CODES = 'fffbhfffffbbbbbbbb'


def write_pcd(path, rows):
    """Writes a nuScenes radar file; each row is a dict of some fields, the others are 0."""
    sizes = ' '.join(str(struct.calcsize(code)) for code in _CODES)
    kinds = ' '.join('F' if code == 'f' else 'I' for code in _CODES)
    header = (
        f'# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS {" ".join(PCD_FIELDS)}\n'
        f'SIZE {sizes}\nTYPE {kinds}\nCOUNT {" ".join("1" * 18)}\nWIDTH {len(rows)}\nHEIGHT 1\n'
        f'VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA binary\n'
    )
    body = b''.join(
        struct.pack('<' + _CODES, *(row.get(name, 0) for name in PCD_FIELDS)) for row in rows
    )
    # The devkit wants a byte after the last point.
    path.write_bytes(header.encode() + body + b'\n')


def about_z(angle, shift):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0, shift[0]], [sin, cos, 0, shift[1]], [0, 0, 1, shift[2]]])


GOOD = dict(invalid_state=0, dyn_prop=1, ambig_state=3)
ROWS = [
    dict(x=10, y=1, z=0, vx=5, vy=0, vx_comp=3, vy_comp=-4, rcs=12.5, id=7, pdh0=1, **GOOD),
    dict(x=30, y=-6, vx_comp=1, rcs=-3, invalid_state=4, dyn_prop=0, ambig_state=3),
    dict(x=2.0, y=-2.1, rcs=1, **GOOD),
]


@pytest.fixture
def results(tmp_path):
    write_pcd(tmp_path / 'now.pcd', ROWS)
    write_pcd(tmp_path / 'before.pcd', ROWS[:1])
    left = dict(
        paths=[str(tmp_path / 'now.pcd'), str(tmp_path / 'before.pcd')],
        radar2ego=np.stack([about_z(np.pi / 2, (1, 2, 0.5)), about_z(np.pi / 2, (0, 2, 0.5))]),
        times=np.array([0.01, 0.09]),
        max_sweeps=2,
    )
    return dict(radars=dict(RADAR_FRONT_LEFT=left))


def test_all_fields_of_all_sweeps(results):
    done = LoadRadarSweeps(sweeps=2).transform(results)
    assert done['radar_fields'] == ('x', 'y', 'z', *ALL_FEATURES)
    radar = done['radar']
    assert radar.dtype == np.float32
    assert radar.shape == (3, 19)  # the third row is too near to its radar
    first = dict(zip(done['radar_fields'], radar[0], strict=True))
    # Turned by 90 degrees: x ahead of the radar is y of the ego, y left of it is -x.
    assert [first[n] for n in 'xyz'] == pytest.approx([0, 12, 0.5])
    assert (first['vx_comp'], first['vy_comp']) == pytest.approx((4, 3))
    assert (first['vx'], first['vy']) == pytest.approx((0, 5))
    assert (first['rcs'], first['id'], first['pdh0']) == (12.5, 7, 1)
    assert radar[:, -1].tolist() == pytest.approx([0.01, 0.01, 0.09])
    assert radar[2, :3].tolist() == pytest.approx([-1, 12, 0.5])


def test_velocities_can_stay_along_the_radars_axes(results):
    done = LoadRadarSweeps(1, features=('vx_comp', 'vy_comp'), velocities='sensor').transform(
        results
    )
    assert done['radar'][0, 3:].tolist() == [3, -4]
    assert done['radar_velocities'] == 'sensor'


def test_filter_near_points_and_number_of_sweeps(results):
    features = ('rcs', 'time')
    one = LoadRadarSweeps(1, features, filtered=True).transform(results)['radar']
    assert one[:, 3].tolist() == [12.5]
    near = LoadRadarSweeps(1, features, min_distance=0).transform(results)['radar']
    assert near[:, 3].tolist() == [12.5, -3, 1]
    counts = {len(LoadRadarSweeps((1, 2), features).transform(results)['radar']) for _ in range(40)}
    assert counts == {2, 3}


def test_reading_keeps_the_devkits_filters(results):
    from nuscenes.utils.data_classes import RadarPointCloud

    before = RadarPointCloud.invalid_states, RadarPointCloud.ambig_states
    assert len(read_radar(results['radars']['RADAR_FRONT_LEFT']['paths'][0])) == 3
    assert (RadarPointCloud.invalid_states, RadarPointCloud.ambig_states) == before


def test_what_radar_loading_refuses(results):
    with pytest.raises(InputError, match=r"received \['speed'\]"):
        LoadRadarSweeps(features=('speed',))
    with pytest.raises(InputError, match='add_bev_infos.py --sweeps 3'):
        LoadRadarSweeps(sweeps=3).transform(results)
    with pytest.raises(InputError, match='received none: run tools/add_bev_infos.py'):
        LoadRadarSweeps().transform({})


def test_no_echo_at_all(results):
    done = LoadRadarSweeps(1, min_distance=100).transform(results)
    assert done['radar'].shape == (0, 19)


def test_radar_array(tmp_path):
    rows = np.arange(12, dtype=np.float64).reshape(2, 6)
    np.save(tmp_path / 'radar.npy', rows)
    done = LoadRadarArray(features=('rcs', 'vx_comp')).transform(
        dict(radar_path=tmp_path / 'radar.npy')
    )
    assert done['radar'].tolist() == [[0, 1, 2, 5, 3], [6, 7, 8, 11, 9]]
    assert done['radar_fields'] == ('x', 'y', 'z', 'rcs', 'vx_comp')
    with pytest.raises(InputError, match='pdh0'):
        LoadRadarArray(features=('pdh0',))


def test_lidar_sweeps_see_a_standing_point_at_one_place(tmp_path):
    """The vehicle moves and turns; a point of the world stays where it is in the ego frame."""
    world = np.array([20.0, 5.0, 1.0, 1.0])
    lidar2ego = np.eye(4)
    lidar2ego[:3] = about_z(-1.5, (0.9, 0, 1.8))
    poses = [
        np.vstack([about_z(a, (d, 0, 0)), [0, 0, 0, 1]]) for a, d in ((0.3, 4), (0.1, 2), (0, 0))
    ]
    info = dict(timestamp=10.0, lidar_sweeps=[])
    for index, pose in enumerate(poses):
        seen = np.linalg.inv(pose @ lidar2ego) @ world
        rows = np.array([[*seen[:3], 50 + index, 3], [0.5, 0.5, 0, 1, 1]], np.float32)
        path = tmp_path / f'{index}.bin'
        rows.tofile(path)
        if index == 0:
            info['lidar_points'] = dict(lidar_path=str(path), lidar2ego=lidar2ego.tolist())
        else:
            back = np.linalg.inv(pose @ lidar2ego) @ poses[0] @ lidar2ego
            info['lidar_sweeps'].append(
                dict(
                    timestamp=10.0 - 0.05 * index,
                    lidar_points=dict(lidar_path=str(path), lidar2sensor=back.tolist()),
                )
            )
    points = LoadLidarSweeps(sweeps=10).transform(info)['points']
    expected = (np.linalg.inv(poses[0]) @ world)[:3]
    assert points.shape == (3, 5)
    np.testing.assert_allclose(points[:, :3], np.tile(expected, (3, 1)), atol=1e-5)
    assert points[:, 3].tolist() == [50, 51, 52]
    assert points[:, 4].tolist() == pytest.approx([0, 0.05, 0.1])
    assert len(LoadLidarSweeps(sweeps=2).transform(info)['points']) == 2
    assert len(LoadLidarSweeps(sweeps=1, min_distance=0).transform(info)['points']) == 2
