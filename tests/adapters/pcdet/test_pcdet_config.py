"""YAML configurations whose bases are found from anywhere, and the section EXPLAINER."""

import re
from pathlib import Path

import pytest
import yaml

from explain3d.adapters.common.frame_explainer import selection_of
from explain3d.adapters.pcdet.config import data_path, read_config
from explain3d.adapters.pcdet.settings import ExplainerSettings, settings_of
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def tree(tmp_path):
    """A checkout's tools folder, and a configuration elsewhere that builds on two levels of it."""
    tools = tmp_path / 'OpenPCDet' / 'tools'
    write(
        tools / 'cfgs/dataset_configs/kitti.yaml',
        'DATASET: KittiDataset\nDATA_PATH: ../data/kitti\nSPLIT: {train: train, test: val}\n',
    )
    write(
        tools / 'cfgs/kitti_models/second.yaml',
        'CLASS_NAMES: [Car, Cyclist]\n'
        'DATA_CONFIG:\n  _BASE_CONFIG_: cfgs/dataset_configs/kitti.yaml\n  SPLIT: {test: mine}\n'
        'MODEL: {NAME: SECONDNet, HEAD: {CLASSES: 2, STRIDE: 8}}\n',
    )
    own = write(
        tmp_path / 'own/base.yaml',
        '_BASE_CONFIG_: cfgs/kitti_models/second.yaml\nMODEL: {HEAD: {STRIDE: 4}}\n',
    )
    write(tmp_path / 'own/ffam.yaml', '_BASE_CONFIG_: base.yaml\nEXPLAINER: {METHOD: FFAM}\n')
    return own.parent / 'ffam.yaml', tools


def test_bases_of_bases_are_joined_key_by_key(tree, monkeypatch, tmp_path):
    path, tools = tree
    monkeypatch.chdir(tmp_path)
    assert read_config(path, tools) == {
        'CLASS_NAMES': ['Car', 'Cyclist'],
        'DATA_CONFIG': {
            'DATASET': 'KittiDataset',
            'DATA_PATH': '../data/kitti',
            'SPLIT': {'train': 'train', 'test': 'mine'},
        },
        'MODEL': {'NAME': 'SECONDNet', 'HEAD': {'CLASSES': 2, 'STRIDE': 4}},
        'EXPLAINER': {'METHOD': 'FFAM'},
    }


def test_the_folder_of_the_file_comes_before_the_working_directory(tree, monkeypatch, tmp_path):
    path, tools = tree
    write(tmp_path / 'elsewhere/base.yaml', 'CLASS_NAMES: [Wrong]\n')
    monkeypatch.chdir(tmp_path / 'elsewhere')
    assert read_config(path, tools)['CLASS_NAMES'] == ['Car', 'Cyclist']


def test_a_base_that_is_nowhere_is_named_with_the_places(tree):
    path, _ = tree
    with pytest.raises(InputError, match=r"base.yaml builds on 'cfgs/kitti_models/second.yaml'"):
        read_config(path)


def test_a_file_that_builds_on_itself(tmp_path):
    one = write(tmp_path / 'one.yaml', '_BASE_CONFIG_: two.yaml\n')
    write(tmp_path / 'two.yaml', 'A: {_BASE_CONFIG_: one.yaml}\n')
    with pytest.raises(InputError, match='builds on itself: .*one.yaml -> .*two.yaml -> .*one'):
        read_config(one)


@pytest.mark.parametrize(
    ('text', 'message'),
    [('- 1\n', 'a list at its top'), ('A: [1\n', 'is no YAML'), ('', 'a NoneType at its top')],
)
def test_files_that_are_no_configuration(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_config(write(tmp_path / 'bad.yaml', text))


def test_a_note_behind_a_base_is_told_by_openpcdets_own_reader(tmp_path, pcdet_host):
    write(tmp_path / 'base.yaml', 'A: 1')
    write(tmp_path / 'base (2).yaml', 'A: 2')
    noted = write(tmp_path / 'noted.yaml', '_BASE_CONFIG_: base.yaml (run with explain3d)\nB: 3')
    assert read_config(noted) == {'A': 1, 'B': 3}
    assert read_config(write(tmp_path / 'own.yaml', '_BASE_CONFIG_: base (2).yaml')) == {'A': 2}
    from pcdet.config import EasyDict, cfg_from_yaml_file

    with pytest.raises(FileNotFoundError, match=r'base.yaml \(run with explain3d\)'):
        cfg_from_yaml_file(str(noted), EasyDict())
    for path in SHIPPED:
        with pytest.raises(FileNotFoundError, match='run with python -m explain3d.adapters.pcdet'):
            cfg_from_yaml_file(str(path), EasyDict())


def test_a_configuration_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match='No configuration .*missing.yaml'):
        read_config(tmp_path / 'missing.yaml')


def test_data_are_looked_for_in_both_folders(tmp_path, monkeypatch):
    tools = tmp_path / 'OpenPCDet/tools'
    (tmp_path / 'OpenPCDet/data/kitti').mkdir(parents=True)
    tools.mkdir()
    monkeypatch.chdir(tmp_path)
    assert data_path('../data/kitti', tools) == str(tools / '../data/kitti')
    (tmp_path / 'mine').mkdir()
    assert data_path('mine', tools) == 'mine'
    with pytest.raises(InputError, match=r"'../data/waymo' \(DATA_CONFIG.DATA_PATH\) is not there"):
        data_path('../data/waymo', tools)


def test_settings_in_capitals_become_the_arguments():
    settings = settings_of(
        {
            'EXPLAINER': {
                'METHOD': 'FFAM',
                'ARGS': {'LAYER': 'stride4', 'Rank': 16},
                'TARGETS': ['all', {'NAME': 'place', 'ATTRIBUTES': ['x', 'y']}],
                'SELECT': {'SCORE_THR': 0.4, 'MATCHED': 'tp', 'IOU_THR': {'Car': 0.5}},
                'OUTPUTS': {'DIR': 'out'},
                'ON_ERROR': 'skip',
            }
        }
    )
    assert settings.explainer == {'type': 'FFAM', 'layer': 'stride4', 'rank': 16}
    assert settings.targets == ['all', {'name': 'place', 'attributes': ['x', 'y']}]
    assert settings.select == {'score_thr': 0.4, 'matched': 'tp', 'iou_thr': {'car': 0.5}}
    assert (settings.outputs, settings.on_error, settings.resume) == ({'dir': 'out'}, 'skip', True)
    assert settings_of({'EXPLAINER': {'ARGS': None}}).explainer == {'type': 'FFAM'}


def test_a_configuration_without_an_explainer():
    with pytest.raises(InputError, match='no section EXPLAINER: expected one, .*METHOD: FFAM'):
        settings_of({'MODEL': {}})


def test_unknown_keys_and_values_of_the_wrong_kind():
    with pytest.raises(UnknownNameError, match='Unknown key TARGET in .*Did you mean TARGETS'):
        settings_of({'EXPLAINER': {'TARGET': 'all'}})
    with pytest.raises(InputError, match=r'EXPLAINER.SELECT is 0.3: expected a mapping'):
        settings_of({'EXPLAINER': {'SELECT': 0.3}})


@pytest.mark.parametrize(
    ('section', 'error', 'message'),
    [
        ({'METHOD': 'FAM'}, UnknownNameError, "Unknown explainer 'FAM'"),
        ({'ARGS': {'LAYR': 'stride4'}}, UnknownNameError, 'layr'),
        ({'TARGETS': ['scor']}, UnknownNameError, 'scor'),
        ({'SELECT': {'TOPN': 3}}, UnknownNameError, "Unknown argument 'topn' of the selection"),
        ({'OUTPUTS': {'DIRECTORY': 'x'}}, UnknownNameError, "'directory' of OUTPUTS.*'dir'"),
        ({'HEAD': 'CentreHead'}, UnknownNameError, "HEAD.*'CenterHead'"),
        ({'THROUGH_PROPOSALS': 'yes'}, InputError, "THROUGH_PROPOSALS.*'yes'"),
        ({'RESUME': 'no'}, InputError, "resume.*'no'"),
        ({'CHECK_CHECKPOINT': 1}, InputError, 'check_checkpoint.* 1'),
        ({'ON_ERROR': 'ignore'}, UnknownNameError, "on_error.*'ignore'|'ignore'.*'raise', 'skip'"),
        ({'INTERVAL': 0}, InputError, 'interval >= 1.*received 0'),
    ],
)
def test_every_key_is_checked_before_a_detector_is_built(section, error, message):
    with pytest.raises(error, match=message):
        settings_of({'EXPLAINER': section})


SHIPPED = sorted((Path(__file__).parents[3] / 'configs' / 'pcdet').glob('ffam_*.yaml'))


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_explainers_of_the_configurations_that_ship_build(path):
    settings = settings_of(yaml.safe_load(path.read_text()))
    layer = 'pillars' if 'pointpillars' in path.stem else 'stride4'
    assert EXPLAINERS.build(settings.explainer).layer == layer
    assert parse_targets(settings.targets)
    assert selection_of(settings.select).score_thr == 0.3


def test_the_yaml_of_the_documentation_is_a_section():
    page = (Path(__file__).parents[3] / 'docs' / 'openpcdet.md').read_text()
    settings = settings_of(yaml.safe_load(re.search(r'```yaml\n(.*?)```', page, re.DOTALL)[1]))
    assert EXPLAINERS.build(settings.explainer).settings()['rank'] == 16
    for name in re.findall(r'^\| `([A-Z_]+)` \|', page, re.MULTILINE):
        assert name.lower() in ExplainerSettings.__dataclass_fields__
