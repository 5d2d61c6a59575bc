"""What a stored frame depends on, who a frame is, and which name a label has."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import test_hook
import tiny_detectors as tiny
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from test_hook import SELECT, Counting, batches, run, runner

import explain3d
from explain3d.adapters.mmdet3d.data_facts import annotation_digest, facts_of, kind_of
from explain3d.adapters.mmdet3d.hook import ExplainerHook
from explain3d.core.errors import InputError
from explain3d.core.results import ResultStore

NAMES = list(tiny.CLASSES)


@pytest.fixture(autouse=True)
def _fresh():
    Counting.calls, Counting.fail_at = 0, None


@pytest.fixture(scope='module')
def second():
    return tiny.build(tiny.second())


@pytest.fixture
def told(caplog):
    """The lines of the log, whose logger of MMEngine passes nothing on."""
    logger = test_hook.MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


class Scenes:
    """A data set that tells of its frames beforehand, as MMDetection3D's do."""

    def __init__(self, infos, classes=tuple(NAMES), **more):
        self.infos, self.metainfo = infos, dict(classes=classes)
        vars(self).update(more)

    def __len__(self):
        return len(self.infos)

    def get_data_info(self, index):
        return {'sample_idx': index, **self.infos[index]}


@pytest.fixture
def dataset(monkeypatch):
    """Lets the runs of ``test_hook`` have a data set of these infos."""

    def use(*infos, **more):
        def of(*args, **kwargs):
            host = runner(*args, **kwargs)
            host.test_dataloader.dataset = Scenes(infos, **more)
            return host

        monkeypatch.setattr(test_hook, 'runner', of)

    return use


def annotated(batch, *frames):
    """Gives the frames of a batch annotations: (boxes (G, 7) with bottom centres, labels)."""
    for sample, (boxes, labels) in zip(batch['data_samples'], frames, strict=True):
        boxes = LiDARInstance3DBoxes(torch.tensor(boxes).reshape(-1, 7))
        sample.eval_ann_info = dict(gt_bboxes_3d=boxes, gt_labels_3d=np.array(labels, int))
    return batch


BOX = [5.0, 0.0, -1.7, 4.0, 1.6, 1.5, 0.3]
NOTHING = ([], [])


def test_a_stored_frame_has_todays_annotation_and_class_names(second, tmp_path, told, dataset):
    def explained(frames, classes=tuple(NAMES), **more):
        dataset(classes=classes)
        batch = annotated(batches(2)[0], *frames)
        return run(second, tmp_path, [batch], explainer='Counting', **more)

    def stored():
        return list(ResultStore(tmp_path / 'explanations'))

    drawn = dict(outputs=dict(pictures=['bev']))
    first = explained([NOTHING, NOTHING], **drawn)
    picture = tmp_path / 'explanations/pictures/000000_bev.png'
    before = picture.read_bytes()
    assert not len(stored()[0].ground_truth)
    repaired = [([BOX], [2]), NOTHING]
    again = explained(repaired, **drawn)
    for found in (again[0].explanation, stored()[0]):
        assert found.ground_truth.names() == [NAMES[2]]
        assert found.ground_truth.boxes[0, 2] == pytest.approx(BOX[2] + BOX[5] / 2)
        assert torch.equal(found.saliency, first[0].explanation.saliency)
    assert picture.read_bytes() != before
    assert 'annotation or the class names of frame' in told.text
    assert '2 frames from files, 1 of them with a new annotation' in told.text
    told.clear()
    files = [path.read_bytes() for path in ResultStore(tmp_path / 'explanations').paths().values()]
    explained(repaired, **drawn)  # Nothing differs: nothing is written.
    assert files == [
        p.read_bytes() for p in ResultStore(tmp_path / 'explanations').paths().values()
    ]
    assert 'new annotation' not in told.text
    renamed = explained(repaired, classes=('Van', *NAMES[1:]))
    for found in (renamed[0].explanation, stored()[0]):
        assert found.detections.class_names == ('Van', *NAMES[1:])
    assert 'Van' in stored()[1].detections.class_names
    assert Counting.calls == 2
    # Who is true and who is false by the annotation is explained by today's.
    true = dict(score_thr=0.0, matched=0.1)
    explained([NOTHING, NOTHING], select=true, outputs=dict(dir=str(tmp_path / 'tp')))
    assert Counting.calls == 2
    box = first[0].explanation.detections.boxes[0].clone()
    box[2] -= box[5] / 2
    label = int(first[0].explanation.detections.labels[0])
    matched = [([box.tolist()], [label]), NOTHING]
    (found, _) = explained(matched, select=true, outputs=dict(dir=str(tmp_path / 'tp')))
    assert Counting.calls == 3
    assert len(found.explanation.detections) == 1


def test_frames_without_a_name_have_files_of_their_own(second, tmp_path, told, dataset):
    dataset(*[dict(lidar_path=f'data/{i}.bin') for i in range(3)])
    nameless = batches(1, 2)
    for batch in nameless:  # As meta_keys without lidar_path leaves them.
        meta = dict(box_type_3d=LiDARInstance3DBoxes)
        batch['data_samples'] = [Det3DDataSample(metainfo=meta) for _ in batch['data_samples']]
    for _ in range(2):
        run(second, tmp_path, nameless, explainer='Counting')
        names = [found.frame_id for found in ResultStore(tmp_path / 'explanations')]
        assert names == ['frame_000000', 'frame_000001', 'frame_000002']
    assert Counting.calls == 3
    assert 'have no names' in told.text
    assert 'meta_keys' in told.text


def test_names_that_repeat_are_known_before_the_first_frame(second, tmp_path, told, dataset):
    names = ['a/000', 'b/000', 'b/001']
    dataset(*[dict(lidar_path=f'data/{name}.bin') for name in names])
    frames = [tiny.batch(*(tiny.cloud(i) for i in range(3)), names=names)]
    for _ in range(2):
        run(second, tmp_path, frames, explainer='Counting')
        assert [f.frame_id for f in ResultStore(tmp_path / 'explanations')] == names
    assert Counting.calls == 3
    assert "named by the last 2 parts of the path, such as 'a/000'" in told.text
    for i, sample in enumerate(frames[0]['data_samples']):
        sample.set_metainfo(dict(sample_idx=i // 2))  # As of two data sets.
    dataset(
        *[dict(lidar_path=f'data/{name}.bin', sample_idx=i // 2) for i, name in enumerate(names)]
    )
    run(second, tmp_path / 'index', frames, explainer='Counting', frame_id='sample_idx')
    found = [f.frame_id for f in ResultStore(tmp_path / 'index/explanations')]
    assert found == ['000000+000000', '000000+000001', '000001']


def test_files_of_one_name_are_explained_from_python(second):
    batch = tiny.batch(tiny.cloud(0), tiny.cloud(1), names=['a/000', 'b/000'])
    found = explain3d.explain(second, batch, method='Counting', select=SELECT)
    assert [explanation.frame_id for explanation in found] == ['a/000', 'b/000']


@pytest.mark.parametrize('select', [dict(matched='fp'), dict(matched='tp'), dict(matched=0.5)])
def test_a_split_without_annotation_has_no_false_positives(second, tmp_path, told, dataset, select):
    dataset(dict(instances=[]), dict(instances=[]))
    with pytest.raises(InputError, match=r'matched=.*without an annotated object.*annotated split'):
        run(second, tmp_path, batches(2), explainer='Counting', select=select)
    assert Counting.calls == 0
    assert 'predict' not in vars(second)
    if select['matched'] != 'fp':
        return
    batch = annotated(batches(2)[0], NOTHING, NOTHING)
    samples = run(second, tmp_path, [batch], explainer='Counting')
    assert [sample.explanation.ground_truth for sample in samples] == [None, None]
    assert 'without an annotated object' in told.text
    # A frame that is empty in an annotated split is empty.
    told.clear()
    dataset(dict(instances=[{}]), dict(instances=[]))
    samples = run(second, tmp_path, [batch], explainer='Counting', select={**SELECT, **select},
                  outputs=dict(dir=str(tmp_path / 'fp')))  # fmt: skip
    assert [len(sample.explanation.ground_truth) for sample in samples] == [0, 0]
    assert [len(sample.explanation.detections) for sample in samples] == [3, 3]
    # What the data set did not say is told at the end.
    assert told.text.count('without an annotated object') == 1


def test_what_data_sets_say():
    kitti = dict(data_root='data/kitti', data_prefix=dict(pts='data/kitti/training', img='x'))
    first = Scenes([dict(lidar_path='a/0.bin', eval_ann_info=dict(gt_labels_3d=[-1]))], **kitti)
    assert kind_of(first) == {'data set': 'Scenes', 'points': 'training'}
    both = SimpleNamespace(datasets=[first, first])
    assert kind_of(both) == {'data sets': [kind_of(first)] * 2}
    assert kind_of(SimpleNamespace(dataset=first)) == kind_of(first)
    facts = facts_of(first)
    assert (facts.count, facts.names, facts.annotated) == (1, ('0',), False)
    first.infos[0]['eval_ann_info'] = dict(gt_labels_3d=[0])
    assert facts_of(first).annotated is True
    assert facts_of(Scenes([dict(token='t')])).annotated is None
    twice = facts_of(Scenes([dict(lidar_path='a/0.bin')] * 2))
    assert (twice.parts, twice.repeated) == (1, frozenset())  # A data set that repeats a frame.
    odd = facts_of(Scenes([dict(lidar_path='a/0.bin'), dict(lidar_path='a/0.npy')]))
    assert odd.repeated == {'0'}

    class Broken(Scenes):
        def get_data_info(self, index):
            raise KeyError(index)

    assert facts_of(Broken([{}])).names is None
    assert facts_of([]).count == 0
    digest = annotation_digest(first)
    first.infos[0]['eval_ann_info'] = dict(gt_labels_3d=[1])
    assert annotation_digest(first) not in (digest, None)


def test_classes_in_another_order_are_refused(tmp_path, dataset):
    center, turned = tiny.build(tiny.centerpoint_pillar()), (NAMES[1], NAMES[0], *NAMES[2:])
    explainer = dict(type='Counting', layer='bev')
    dataset(classes=turned)
    with pytest.raises(InputError, match=f"'{NAMES[1]}', '{NAMES[0]}'.*its head .*'{NAMES[0]}'"):
        run(center, tmp_path, [], explainer=explainer)
    dataset(classes=tuple(name.upper() for name in NAMES))
    run(center, tmp_path, [], explainer=explainer)
    second = tiny.build(tiny.second())  # Its head has no names, its checkpoint has.
    path = tmp_path / 'second.pth'
    meta = dict(dataset_meta=dict(classes=turned))
    torch.save(dict(state_dict=second.state_dict(), meta=meta), path)
    dataset()
    with pytest.raises(InputError, match=f"the checkpoint .*'{NAMES[1]}', '{NAMES[0]}'"):
        run(second, tmp_path, [], checkpoint=str(path), explainer='Counting')
    assert 'predict' not in vars(second)
    dataset(classes=('a', 'b', 'c'))  # Other names altogether may be right.
    run(second, tmp_path, [], checkpoint=str(path), explainer='Counting')


def test_pictures_of_kinds_that_are_added_later_are_drawn(second, tmp_path):
    frames = [tiny.batch(tiny.cloud(0), tiny.cloud(1), names=['0001', '0001_2'])]
    folder = tmp_path / 'explanations/pictures'

    def drawn(*kinds):
        select, outputs = dict(score_thr=0.0, top_n=1), dict(pictures=list(kinds))
        run(second, tmp_path, frames, explainer='Counting', select=select, outputs=outputs)
        return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    first = drawn('bev')
    assert set(first) == {'0001_bev.png', '0001_2_bev.png'}
    (folder / '0001_bev.png').unlink()  # That of 0001_2 is not that of 0001.
    second_run = drawn('bev', 'objects')
    objects = {f'{name}_object_000.png' for name in ('0001', '0001_2')}
    assert set(second_run) == {*first, *objects}
    assert second_run['0001_2_bev.png'] == first['0001_2_bev.png']
    assert Counting.calls == 2


def test_a_hook_of_a_run_without_frames_tells_nothing(second, tmp_path):
    hook = ExplainerHook(explainer='Counting', select=SELECT)
    hook.before_test_epoch(runner(second, tmp_path))
    hook.after_test_epoch(runner(second, tmp_path))
    assert [path.name for path in (tmp_path / 'explanations').iterdir()] == ['run.json']
