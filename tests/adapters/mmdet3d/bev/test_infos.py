"""What is added to info files, from tables that are written here."""

import pickle

import numpy as np
import pytest
from pyquaternion import Quaternion

from explain3d.adapters.mmdet3d.bev.infos import add_bev_infos, sample_additions, target_path
from explain3d.adapters.mmdet3d.bev.radar import RADARS
from explain3d.core.errors import InputError

#: The ego pose at each record's time: the vehicle drives and turns.
POSES = [
    (np.array([100.0 + 2 * i, 50 - i, 0.1 * i]), Quaternion(axis=[0.1, 0.2, 1], angle=0.1 * i))
    for i in range(4)
]
MOUNT = np.array([3.0, -1.0, 0.5]), Quaternion(axis=[0, 0, 1], angle=-1.2)


class Tables:
    """As much of the devkit's NuScenes as is read: ``get(table, token)``."""

    def __init__(self):
        data = {'LIDAR_TOP': 'lidar', **{name: f'{name}-3' for name in RADARS}}
        anns = ['van', 'walker', 'bike']
        self.tables = dict(
            sample={'s': dict(data=data, anns=anns, scene_token='scene')},
            scene={'scene': dict(name='scene-0061')},
            ego_pose={
                str(i): dict(translation=list(t), rotation=list(q))
                for i, (t, q) in enumerate(POSES)
            },
            calibrated_sensor={'m': dict(translation=list(MOUNT[0]), rotation=list(MOUNT[1]))},
            sample_data={'lidar': dict(ego_pose_token='3', timestamp=1_000_000)},
            sample_annotation={
                'van': dict(
                    category_name='vehicle.truck',
                    translation=[112.0, 45, 1],
                    size=[2.0, 6.0, 3.0],
                    rotation=list(Quaternion(axis=[0, 0, 1], angle=0.7)),
                    visibility_token='1',
                    instance_token='i1',
                ),
                'walker': dict(category_name='human.pedestrian.adult'),
                'bike': dict(
                    category_name='vehicle.bicycle',
                    translation=[90.0, 52, 0.8],
                    size=[0.6, 1.8, 1.3],
                    rotation=[1, 0, 0, 0],
                    visibility_token='4',
                    instance_token='i2',
                ),
            },
        )
        for name in RADARS:
            for i in range(4):
                self.tables['sample_data'][f'{name}-{i}'] = dict(
                    filename=f'sweeps/{name}/{i}.pcd',
                    ego_pose_token=str(i),
                    calibrated_sensor_token='m',
                    timestamp=1_000_000 - 70_000 * (3 - i),
                    prev=f'{name}-{i - 1}' if i else '',
                )

    def get(self, table, token):
        return self.tables[table][token]


def to_ego(point, index):
    shift, turn = POSES[index]
    return turn.inverse.rotate(np.asarray(point) - shift)


def test_every_sweep_sees_a_standing_point_at_one_place():
    radars = sample_additions(Tables(), 's', sweeps=3)['radars']
    assert tuple(radars) == RADARS
    front = radars['RADAR_FRONT']
    assert front['paths'] == [f'sweeps/RADAR_FRONT/{i}.pcd' for i in (3, 2, 1)]
    assert front['times'].tolist() == pytest.approx([0, 0.07, 0.14])
    world = np.array([120.0, 40.0, 1.0])
    for index, matrix in zip((3, 2, 1), front['radar2ego'], strict=True):
        seen = MOUNT[1].inverse.rotate(to_ego(world, index) - MOUNT[0])
        np.testing.assert_allclose(matrix[:, :3] @ seen + matrix[:, 3], to_ego(world, 3), atol=1e-4)


def test_sweeps_end_with_the_scene():
    radars = sample_additions(Tables(), 's', sweeps=9)['radars']
    assert len(radars['RADAR_FRONT']['paths']) == 4
    assert radars['RADAR_FRONT']['max_sweeps'] == 9


def test_vehicles_of_every_kind_and_nothing_else():
    added = sample_additions(Tables(), 's', sweeps=1)
    assert added['scene'] == 'scene-0061'
    vehicles = added['vehicles']
    assert vehicles['category'] == ['vehicle.truck', 'vehicle.bicycle']
    assert vehicles['visibility'].tolist() == [1, 4]
    np.testing.assert_allclose(vehicles['size'], [[6, 2, 3], [1.8, 0.6, 1.3]], rtol=1e-6)
    # The front right corner of the truck's roof.
    corner = Quaternion(axis=[0, 0, 1], angle=0.7).rotate(np.array([3.0, -1, 1.5])) + [112.0, 45, 1]
    np.testing.assert_allclose(
        vehicles['box2ego'][0] @ [3, -1, 1.5, 1], [*to_ego(corner, 3), 1], atol=1e-4
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    infos = dict(metainfo=dict(version='v1.0-mini'), data_list=[dict(token='s', lidar_points={})])
    (tmp_path / 'nuscenes_infos_val.pkl').write_bytes(pickle.dumps(infos))
    opened = []

    def open_tables(version, root, verbose):
        opened.append(version)
        return Tables()

    monkeypatch.setattr('nuscenes.NuScenes', open_tables)
    return tmp_path, opened


def test_files_are_made_once(folder):
    root, opened = folder
    names, said = ['nuscenes_infos_val.pkl'], []
    (made,) = add_bev_infos(root, names, sweeps=2, report=said.append)
    assert made == target_path(root / names[0]) == root / 'nuscenes_infos_val_bev.pkl'
    before = made.read_bytes()
    (info,) = pickle.loads(before)['data_list']
    assert {'token', 'lidar_points', 'radars', 'vehicles', 'scene'} == set(info)
    add_bev_infos(root, names, sweeps=2, report=said.append)
    assert (opened, made.read_bytes()) == (['v1.0-mini'], before)
    assert said == [f'{made}: 1 samples', f'{made}: up to date']
    add_bev_infos(root, names, sweeps=3, report=said.append)
    assert len(opened) == 2
    assert [path.name for path in sorted(root.iterdir())] == [*names, made.name]
    sound = made.read_bytes()
    made.write_bytes(sound[:-10])
    add_bev_infos(root, names, sweeps=3, report=said.append)
    assert f'{made} is no info file' in said[-2]
    assert made.read_bytes() == sound


def test_what_infos_need(folder):
    root, _ = folder
    with pytest.raises(InputError, match='create_data.py nuscenes'):
        add_bev_infos(root, ['nuscenes_infos_train.pkl'])
    (root / 'half.pkl').write_bytes(pickle.dumps(dict(metainfo={}))[:-4])
    with pytest.raises(InputError, match=r'half\.pkl is no info file .*make it again'):
        add_bev_infos(root, ['half.pkl'])
    bare = pickle.dumps(dict(metainfo={}, data_list=[]))
    (root / 'bare.pkl').write_bytes(bare)
    with pytest.raises(InputError, match='give it with --version'):
        add_bev_infos(root, ['bare.pkl'])
