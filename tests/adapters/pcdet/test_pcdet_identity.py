"""Who a frame is in OpenPCDet, what its file depends on, and which data have no annotation."""

import logging
from types import SimpleNamespace

import numpy as np
import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.common.data_facts import UNKNOWN
from explain3d.adapters.pcdet.data_facts import annotation_digest, facts_of
from explain3d.adapters.pcdet.detector import head_classes
from explain3d.adapters.pcdet.evaluation import ExplainedEvaluation
from explain3d.adapters.pcdet.frames import frames_of, name_of
from explain3d.adapters.pcdet.settings import settings_of
from explain3d.core.errors import InputError
from explain3d.core.results import ResultStore

METHOD = {
    'METHOD': 'ChannelSum',
    'ARGS': {'LAYER': 'stride4'},
    'SELECT': {'SCORE_THR': 0.0, 'TOP_N': 2},
}
CLASSES = ['Pedestrian', 'Cyclist', 'Car']
LABELLED, UNLABELLED = {'annos': {'name': np.array(['Car'])}}, {'point_cloud': {}}


@pytest.fixture(scope='module')
def model(pcdet_host):
    return scenes.build('second')


class Data(list):
    """Infos and batches of a data set."""

    def __init__(self, *infos, classes=CLASSES, **more):
        super().__init__(infos)
        self.infos, self.class_names = list(infos), classes
        vars(self).update(more)


def evaluate(model, folder, batches, dataset=None, **section):
    settings = settings_of({'EXPLAINER': {**METHOD, **section}})
    logger = logging.getLogger('test')
    run = ExplainedEvaluation(model, len(batches), logger, folder, settings, dataset)
    with run, torch.no_grad():
        for batch in batches:
            model(dict(batch))
    return run


def single(model, *seeds, truth=None, **names):
    """A batch for each seed, as a loader of batch size 1 gives them."""
    more = {} if truth is None else {'gt_boxes': truth}
    batches = [scenes.batch(model, scenes.cloud(seed), **more) for seed in seeds]
    for i, batch in enumerate(batches):
        del batch['frame_id']
        batch.update({key: np.array([values[i]]) for key, values in names.items()})
    return batches


def stored(folder):
    return [found.frame_id for found in ResultStore(folder)]


def test_frames_without_a_name_have_files_of_their_own(model, tmp_path, caplog):
    batches = single(model, 1, 2, 3)
    for _ in range(2):
        run = evaluate(model, tmp_path, batches)
        assert stored(tmp_path) == [f'frame_{i:06d}' for i in range(3)]
    assert run.attachment.recorder.counts.resumed == 3
    assert '__getitem__ give each frame a frame_id of its own' in caplog.text


def test_pandaset_names_sequence_and_frame(model):
    assert name_of({'sequence': '001', 'frame_idx': 3}) == '001_000003'
    (batch,) = single(model, 1, sequence=['001'])
    batch['frame_idx'] = torch.tensor([3.0])  # As it comes to the device.
    assert [frame.frame_id for frame in frames_of(batch)] == ['001_000003']
    infos = [{'sequence': s, 'frame_idx': i, 'cuboids_path': 'x'} for s in '12' for i in (0, 1)]
    facts = facts_of(Data(*infos))
    assert facts.names == ('1_000000', '1_000001', '2_000000', '2_000001')
    assert facts.annotated is None


def test_names_that_repeat(model, tmp_path, caplog):
    batches = single(model, 1, 2, 2, frame_id=['7', '7', '8'])
    with pytest.raises(InputError, match="Two frames are called '7'.*frame_id of its own"):
        evaluate(model, tmp_path / 'unknown', batches)
    assert stored(tmp_path / 'unknown') == ['7']
    dataset = Data({'frame_id': '7'}, {'frame_id': '7'}, {'frame_id': '8'})
    for _ in range(2):
        evaluate(model, tmp_path / 'known', batches, dataset)
        assert stored(tmp_path / 'known') == ['7+000000', '7+000001', '8']
    assert "such as '7': the number of the frame is appended" in caplog.text
    # A sampler's repetition is no second frame.
    evaluate(model, tmp_path / 'again', [*batches[:1], *batches[:1]], Data({'frame_id': '7'}))
    assert stored(tmp_path / 'again') == ['7']


def test_measured_with_todays_annotation(model, tmp_path, caplog):
    with torch.no_grad():
        found = model(scenes.batch(model, scenes.cloud(1)))[0][0]
    labels = found['pred_labels'][:2, None].float()
    truth = torch.cat([found['pred_boxes'][:2, :7], labels], 1)[None]
    nothing = truth[:, :0]

    def measured(truth, count):
        run = evaluate(
            model, tmp_path, single(model, 1, truth=truth, frame_id=['1']), METRICS=['vea']
        )
        assert run.report({})['saliency/objects'] == count
        assert len(ResultStore(tmp_path).load('1').ground_truth) == count
        return run.attachment.recorder.counts

    measured(nothing, 0)
    assert 'There is nothing to measure in a data set without an annotated object' in caplog.text
    assert measured(truth, 2).updated == 1
    assert measured(truth[:, :1], 1).updated == 1
    counts = measured(truth[:, :1], 1)
    assert (counts.resumed, counts.updated) == (1, 0)


def test_a_split_without_annotation(model, tmp_path, caplog):
    batches, dataset = single(model, 1, truth=torch.zeros(1, 0, 8)), Data(UNLABELLED)
    for section in ({'METRICS': ['vea']}, {'SELECT': {'MATCHED': 'fp'}}):
        with pytest.raises(InputError, match='without an annotated object of the classes.*DATA_SP'):
            evaluate(model, tmp_path, batches, dataset, **section)
    run = evaluate(model, tmp_path, batches, dataset)
    assert 'choose an annotated split' in caplog.text
    assert run.attachment.recorder.counts.annotated == 0
    assert next(iter(ResultStore(tmp_path))).ground_truth is None
    # A frame that is empty in an annotated split is empty.
    evaluate(model, tmp_path, batches, Data(LABELLED))
    assert len(next(iter(ResultStore(tmp_path))).ground_truth) == 0


def test_what_data_sets_say(tmp_path):
    assert facts_of(SimpleNamespace()) == UNKNOWN
    kitti = Data({**LABELLED, 'point_cloud': {'lidar_idx': '000008'}}, split='val')
    facts = facts_of(kitti)
    assert (facts.names, facts.annotated, facts.count) == (('000008',), True, 1)
    assert facts.kind == {'data set': 'Data', 'split': 'val'}
    assert facts_of(Data(LABELLED, classes=['Vehicle'])).annotated is None  # It may rename them.
    assert facts_of(Data({'annos': {'name': np.array(['DontCare'])}})).annotated is False
    nuscenes = Data({'lidar_path': 'a/b.bin', 'gt_boxes': np.zeros((2, 7))})
    assert (facts_of(nuscenes).names, facts_of(nuscenes).annotated) == (('b',), True)
    assert facts_of(Data(LABELLED, sample_id_list=['x'])).names == ('x',)
    digests = {annotation_digest(kitti), annotation_digest(nuscenes), annotation_digest(Data())}
    assert len(digests) == 3
    (tmp_path / 'infos.pkl').write_bytes(b'1')
    files = dict(
        root_path=tmp_path, mode='test', dataset_cfg={'INFO_PATH': {'test': ['infos.pkl']}}
    )
    before = annotation_digest(Data(LABELLED, **files))
    (tmp_path / 'infos.pkl').write_bytes(b'2')
    assert annotation_digest(Data(LABELLED, **files)) != before


def test_classes_in_another_order_are_refused(model, tmp_path):
    with pytest.raises(InputError, match=r"'Car', 'Cyclist'.*CLASS_NAMES.*'Pedestrian', 'Cyclist'"):
        evaluate(model, tmp_path, [], Data(LABELLED, classes=['Car', 'Cyclist', 'Pedestrian']))
    assert head_classes(model) == []
    head = SimpleNamespace(class_names_each_head=[['b'], ['a', 'c']])
    assert head_classes(SimpleNamespace(dense_head=head)) == ['a', 'b', 'c']


def test_thresholds_of_the_protocol_say_who_is_true():
    def select(**section):
        return settings_of({'EXPLAINER': {'METHOD': 'FFAM', **section}}).select

    protocol = {'IOU_THR': {'Vehicle': 0.4}, 'IOU': 'bev'}
    for matched in ('tp', 'fp'):
        found = select(SELECT={'MATCHED': matched}, PROTOCOL=protocol)
        assert found == {'matched': matched, 'iou_thr': {'vehicle': 0.4}, 'iou': 'bev'}
    own = {'MATCHED': 'tp', 'IOU_THR': 0.2}
    assert select(SELECT=own, PROTOCOL=protocol)['iou_thr'] == 0.2
    assert select(SELECT={'MATCHED': 0.3}, PROTOCOL=protocol) == {'matched': 0.3}
    assert select(PROTOCOL=protocol) == {}
