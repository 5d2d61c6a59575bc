"""What was made is taken as there only if it is as it was made; damaged inputs name themselves."""

import json
import os

import pytest

from explain3d.core.errors import InputError
from explain3d.datasets import mmdet3d_infos
from explain3d.datasets.contents import is_current, write_stamp
from explain3d.datasets.kitti_layout import check_frames
from explain3d.datasets.pcdet_infos import make_pcdet_infos

WANTED = {'version': '1', 'splits': {'train': ['000000']}}


@pytest.fixture
def root(tmp_path):
    """A KITTI layout of two frames, as far as it is looked at."""
    for kind, suffix in (
        ('velodyne', 'bin'),
        ('image_2', 'png'),
        ('calib', 'txt'),
        ('label_2', 'txt'),
    ):
        (tmp_path / 'training' / kind).mkdir(parents=True)
        for name in ('000000', '000001'):
            (tmp_path / 'training' / kind / f'{name}.{suffix}').write_bytes(bytes(32))
    (tmp_path / 'ImageSets').mkdir()
    (tmp_path / 'ImageSets' / 'train.txt').write_text('000000\n')
    (tmp_path / 'ImageSets' / 'val.txt').write_text('000001\n')
    return tmp_path


@pytest.fixture
def stamp(tmp_path):
    (tmp_path / 'a.pkl').write_bytes(b'abc')
    (tmp_path / 'database').mkdir()
    (tmp_path / 'database' / 'x.bin').write_bytes(b'abc')
    found = tmp_path / 'stamp.json'
    write_stamp(found, WANTED, [tmp_path / 'a.pkl', tmp_path / 'database'])
    return found


def test_a_stamp_stands_for_what_was_made(stamp):
    said = []
    assert is_current(stamp, WANTED, said.append)
    assert not is_current(stamp, {**WANTED, 'version': '2'}, said.append)
    assert not is_current(stamp.with_name('other.json'), WANTED, said.append)
    assert said == []
    assert [p.name for p in stamp.parent.iterdir() if p.name.startswith('.')] == []


@pytest.mark.parametrize('what', ['byte', 'gone', 'fewer', 'longer', 'half', 'list', 'old', 'text'])
def test_what_has_changed_is_made_again(stamp, what):
    folder, text = stamp.parent, stamp.read_text()
    if what == 'byte':
        (folder / 'a.pkl').write_bytes(b'abd')
    elif what == 'gone':
        (folder / 'a.pkl').unlink()
    elif what == 'fewer':
        (folder / 'database' / 'x.bin').unlink()
    elif what == 'longer':
        (folder / 'database' / 'x.bin').write_bytes(b'abcd')
    elif what == 'half':
        stamp.write_text(text[:20])
    elif what == 'list':
        stamp.write_text('[]')
    elif what == 'old':
        stamp.write_text(json.dumps(WANTED))
    else:
        stamp.write_bytes(b'\xff\xfe')
    said = []
    assert not is_current(stamp, WANTED, said.append)
    (line,) = said
    assert line.endswith('made again')
    assert str(folder) in line


def test_infos_are_converted_again_only_if_they_have_changed(root, monkeypatch):
    calls = []

    def convert(folder):
        calls.append(folder)
        (folder / 'kitti_infos_train.pkl').write_bytes(b'infos')
        (folder / 'kitti_gt_database').mkdir(exist_ok=True)

    monkeypatch.setattr(mmdet3d_infos, '_convert', convert)
    monkeypatch.setattr(mmdet3d_infos, '_version', lambda: '1.4')
    for _ in range(2):
        mmdet3d_infos.make_mmdet3d_infos(root)
    assert len(calls) == 1
    (root / 'kitti_infos_train.pkl').write_bytes(b'inf')
    mmdet3d_infos.make_mmdet3d_infos(root)
    (root / 'mmdet3d_infos.json').write_text('{"ver')
    mmdet3d_infos.make_mmdet3d_infos(root)
    assert len(calls) == 3
    mmdet3d_infos.make_mmdet3d_infos(root)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ('path', 'content', 'text'),
    [
        ('velodyne/000001.bin', bytes(30), '30 bytes: expected a whole file of points of 16 bytes'),
        ('image_2/000000.png', b'', '0 bytes: expected a whole file'),
        ('calib/000001.txt', None, 'is not there: expected it for val'),
    ],
)
def test_half_written_frames_name_the_file(root, path, content, text):
    check_frames(root)
    broken = root / 'training' / path
    if content is None:
        broken.unlink()
    else:
        broken.write_bytes(content)
    for make in (mmdet3d_infos.make_mmdet3d_infos, make_pcdet_infos):
        with pytest.raises(InputError, match=f'{path}.*{text}.*make_mini_dataset.py again'):
            make(root)


def test_a_broken_picture_names_itself(root):
    with pytest.raises(InputError, match=r'000000\.png is no picture .*expected a PNG file'):
        make_pcdet_infos(root)


def test_a_broken_table_names_itself(tmp_path):
    (tmp_path / 'v1.0-mini').mkdir()
    (tmp_path / 'samples' / 'LIDAR_TOP').mkdir(parents=True)
    for name in ('scene', 'sample'):
        (tmp_path / 'v1.0-mini' / f'{name}.json').write_text('[{"tok')
    with pytest.raises(InputError, match=r'sample\.json is damaged.*a table of nuScenes'):
        mmdet3d_infos.make_nuscenes_infos(tmp_path, 'v1.0-mini')


def test_what_killed_runs_leave_goes_with_the_first_file_that_is_written(tmp_path):
    stale = tmp_path / '.explain3d-elsewhere-77-0123abcd.tmp'
    stale.write_bytes(b'x')
    os.utime(stale, (0, 0))
    write_stamp(tmp_path / 'stamp.json', WANTED, [])
    assert [path.name for path in tmp_path.iterdir()] == ['stamp.json']
