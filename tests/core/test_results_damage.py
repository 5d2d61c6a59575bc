"""Whatever is done to a result file, it is refused or it still holds what was written."""

import json

import numpy as np
import pytest
import torch

from explain3d.core import results
from explain3d.core.errors import InputError, ResultFileError
from explain3d.core.results_archive import write_archive
from explain3d.core.results_check import seal
from explain3d.core.results_codec import encode
from explain3d.lmd.components import Components
from explain3d.lmd.detections import DetectionParts, Effect, SensorShares
from explain3d.lmd.frame import BevArea, FrameDecomposition

from .test_results import K, N, R, make_detections, make_explanation

NAMES = ('camera', 'radar', 'bias')


def make_frame():
    generator = torch.Generator().manual_seed(0)

    def components(*shape):
        parts = torch.randn(3, *shape, generator=generator)
        return Components(parts.sum(0), parts, NAMES)

    return FrameDecomposition(
        '000008',
        outputs={'head': components(1, 2, 3)},
        captured={'layer': components(2, 2, 3)},
        shares={'layer': torch.tensor([0.25, 0.5, torch.nan]).double()},
        gradcams={'radar @ layer': torch.rand(2, 3, generator=generator)},
        points={'radar': torch.randn(4, 6, generator=generator)},
        ground_truth=torch.ones(2, 3, dtype=torch.uint8),
        area=BevArea((-6.0, 6.0), (-4.0, 4.0)),
        settings={'rule': 'identity'},
        info={'cameras': ['CAM_FRONT']},
    )


def make_shares():
    parts = torch.randn(K, 3, 2, generator=torch.Generator().manual_seed(0))
    value = parts.sum(1)
    effect = Effect(torch.tensor([True, False, True]), torch.rand(K), torch.rand(K), value * 0.5)
    return SensorShares(
        '000008',
        make_detections(K),
        DetectionParts(('logit', 'x'), NAMES, value, parts),
        {'radar': effect},
        torch.arange(K),
        {'a': 1},
    )


KINDS = {'explanation': make_explanation, 'decomposition': make_frame, 'shares': make_shares}


def content_of(path):
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(arrays.pop('metadata').tobytes()), arrays


def write(path, arrays):
    with open(path, 'wb') as file:
        write_archive(file, arrays)
    return path


def refused(path, text='not a sound result file'):
    with pytest.raises(ResultFileError, match=text):
        results.load(path)
    assert not results.is_complete(path)


# --- arrays that do not fit -----------------------------------------------------------------------


def put(name, value):
    return lambda meta, arrays: arrays.update({name: np.asarray(value)})


def drop(name):
    return lambda meta, arrays: arrays.pop(name)


def note(key, value):
    return lambda meta, arrays: meta.update({key: value})


def forget(key):
    return lambda meta, arrays: meta.pop(key)


def spoil(name, value):
    def change(meta, arrays):
        arrays[name].flat[-1] = value

    return change


F4, I8 = np.float32, np.int64
CHANGES = {
    'explanation': {
        "'saliency' holds values that are not finite": spoil('saliency', np.nan),
        "'global_map' holds values that are not finite": spoil('global_map', np.inf),
        "'concepts' holds values that are not finite": spoil('concepts', -np.inf),
        "'points' holds values that are not finite": spoil('points', np.nan),
        "'boxes' holds values that are not finite": spoil('boxes', np.nan),
        "'concepts_scale' goes down to -1": spoil('concepts_scale', -1),
        r"'boxes' has the shape \(2, 3\): expected \(2, 7\)": put('boxes', np.zeros((2, 3), F4)),
        r"'boxes' has the shape \(7,\)": put('boxes', np.zeros(7, F4)),
        r"'scores' has the shape \(2,\): expected \(3\) to fit 'boxes'": put(
            'scores', np.zeros(2, F4)
        ),
        "'scores' goes up to 1.5": spoil('scores', 1.5),
        "'scores' goes down to -0.5": spoil('scores', -0.5),
        "'labels' has the type float32: expected integers or counts": put(
            'labels', np.zeros(K, F4)
        ),
        "'labels' goes up to 2: expected 1": spoil('labels', 2),
        "'labels' goes down to -1": spoil('labels', -1),
        "'ground_truth_labels' goes up to 7": spoil('ground_truth_labels', 7),
        r"'saliency' has the shape \(1, 3, 40\): expected \(2, 3, 40\) to fit": put(
            'saliency', np.zeros((1, K, N), F4)
        ),
        r"'saliency' has the shape \(2, 3, 39\)": put('saliency', np.zeros((2, K, N - 1), F4)),
        "'saliency' has the type <U1": put('saliency', np.full((2, K, N), 'a')),
        "'saliency' has the type bool": put('saliency', np.ones((2, K, N), bool)),
        "'saliency_scale' is missing": put('saliency', np.zeros((2, K, N), np.float16)),
        r"\['saliency_scale'\] are not expected": put('saliency_scale', np.ones((2, K), F4)),
        r"'global_map' has the shape \(41,\)": put('global_map', np.zeros(N + 1, F4)),
        r"'concepts' has the shape \(40,\)": put('concepts', np.zeros(N, F4)),
        r"'concepts_scale' has the shape \(4,\)": put('concepts_scale', np.ones(R - 1, F4)),
        "'concepts_scale' is missing": drop('concepts_scale'),
        "'points' is missing": drop('points'),
        "'ground_truth_scores' is missing": drop('ground_truth_scores'),
        r"'detection_indices' has the shape \(2,\)": put('detection_indices', np.arange(2)),
        "'detection_indices' goes down to -3": spoil('detection_indices', -3),
        r"\['more'\] are not expected": put('more', np.zeros(1)),
        "metadata have no 'info'": forget('info'),
        "metadata have no 'method'": forget('method'),
        "metadata have no 'settings'": forget('settings'),
        "metadata have no 'versions'": forget('versions'),
        "'info' is a list": note('info', []),
        "'frame_id' is a int": note('frame_id', 8),
        "'targets' is None": note('targets', None),
        r"'targets' is \['all', 'all'\]": note('targets', ['all', 'all']),
        "'class_names' is 'Car'": note('class_names', 'Car'),
        r'\(2, 3, 40\): expected \(1, 3, 40\) to fit .*the metadata': note('targets', ['all']),
        'settings are not those': note('settings', {'type': 'ODAM'}),
        "'ground_truth_class_names' is a str": note('ground_truth_class_names', 'Car'),
        'are not expected': note('ground_truth_class_names', None),
    },
    'decomposition': {
        'head.parts.*not finite': spoil('outputs.head.parts', np.nan),
        'head.parts.*shape': put('outputs.head.parts', np.zeros((2, 1, 2, 3), F4)),
        'head.value.*shape|head.parts.*shape': put('outputs.head.value', np.zeros((1, 3), F4)),
        'head.value.*type <U1': put('outputs.head.value', np.full((1, 2, 3), 'a')),
        'gradcams.*not finite': spoil('gradcams.radar @ layer', np.nan),
        'scale.*missing': drop('gradcams.radar @ layer.scale'),
        r'radar.*\(4, 2\): expected \(P, 3\)': put('points.radar', np.zeros((4, 2), F4)),
        "'ground_truth' goes up to 3": spoil('ground_truth', 3),
        "'ground_truth' has the type float": put('ground_truth', np.ones((2, 3), F4)),
        "shares of 'layer' are": note('shares', {'layer': [0.5]}),
        "metadata have no 'residuals'": forget('residuals'),
        "'outputs' is None": note('fields', {}),
        'edges in order': note('area', {'x': [1, 0], 'z': [0, 1]}),
        "'area' is a list": note('area', []),
        "metadata have no 'info'": forget('info'),
        'are not expected': put('outputs.more.value', np.zeros(1, F4)),
    },
    'shares': {
        "'parts' holds values that are not finite": spoil('parts', np.nan),
        r"'parts' has the shape \(3, 2, 2\)": put('parts', np.zeros((K, 2, 2), F4)),
        "'value' has the type int64": put('value', np.zeros((K, 2), I8)),
        r"'value' has the shape \(2, 2\)": put('value', np.zeros((2, 2), F4)),
        "'scores' goes up to 9": spoil('scores', 9),
        "found' has the type float64: expected flags": put('without.radar.found', np.ones(K)),
        "raw' holds infinite values": spoil('without.radar.raw', np.inf),
        "'without.radar.scores' is missing": drop('without.radar.scores'),
        "'effects' is None": note('effects', None),
        "metadata have no 'residual'": forget('residual'),
        'are not expected': put('more', np.zeros(1, F4)),
    },
}


@pytest.mark.parametrize(
    ('kind', 'text'), [(kind, text) for kind, found in CHANGES.items() for text in found]
)
def test_content_that_does_not_fit_is_refused(tmp_path, kind, text):
    meta, arrays = content_of(results.save(tmp_path / 'a.npz', KINDS[kind]()))
    CHANGES[kind][text](meta, arrays)
    refused(write(tmp_path / 'a.npz', seal(meta, arrays)), text)


def test_gaps_that_are_defined_come_back(tmp_path):
    found = make_shares()
    found.effects['radar'].raw[1] = torch.nan
    back = results.load(results.save(tmp_path / 'a.npz', found))
    assert back.effects['radar'].raw[1].isnan().all()


@pytest.mark.parametrize(
    ('a', 'b'),
    [('scores', 'other'), ('saliency', 'saliency'), ('boxes', 'boxes'), ('points', 'metadata')],
)
def test_arrays_of_other_places_are_refused(tmp_path, a, b):
    explanation = make_explanation(k=2)
    path = results.save(tmp_path / 'a.npz', explanation)
    with np.load(path) as file:
        arrays = dict(file)
    other = dict(np.load(results.save(tmp_path / 'b.npz', make_explanation(k=2, seed=9))))
    if b == 'other':  # Two of one type and shape in one file.
        arrays['scores'], arrays['ground_truth_scores'] = (
            arrays['ground_truth_scores'],
            arrays['scores'],
        )
    elif b == 'metadata':
        arrays['metadata'] = other['metadata']
    elif a == 'boxes':
        arrays[a] = arrays[a][::-1]
    else:
        arrays[a] = other[a]
    refused(write(path, arrays), 'are not the arrays that were written')


def test_files_of_before_checksums_are_read(tmp_path):
    path = results.save(tmp_path / 'a.npz', make_explanation())
    meta, arrays = content_of(path)
    del meta['checksums']
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    write(path, {'metadata': text, **arrays})
    assert torch.equal(results.load(path).saliency, make_explanation().saliency)
    write(path, {'metadata': text, **arrays, 'boxes': arrays['boxes'][:, :3]})
    refused(path, "'boxes' has the shape")


def test_a_head_may_have_more_classes_than_names(tmp_path):
    explanation = make_explanation()
    explanation.detections.labels[:] = 5
    back = results.load(results.save(tmp_path / 'a.npz', explanation))
    assert back.detections.names() == ['class 5'] * K


def test_what_would_be_refused_is_not_written(tmp_path):
    for text, change in {
        "'labels' goes down to -1: expected 0": lambda e: e.detections.labels.fill_(-1),
        "'scores' goes up to 3": lambda e: e.detections.scores.fill_(3),
        "'points' holds values": lambda e: e.points[0, 0:1].fill_(torch.nan),
    }.items():
        explanation = make_explanation()
        change(explanation)
        with pytest.raises(InputError, match=f"Frame '000008' cannot be written: {text}"):
            results.save(tmp_path / 'a.npz', explanation)
    assert not list(tmp_path.iterdir())


# --- damage at random -----------------------------------------------------------------------------


def damaged(data, rng):
    """One way to damage a file."""
    way, at = rng.integers(7), int(rng.integers(len(data)))
    length = int(rng.integers(1, 64))
    if way == 0:
        return data[:at]
    if way == 1:
        return data[at:]
    if way == 2:
        return data[:at] + bytes(length) + data[at + length :]
    if way == 3:
        return data[:at] + data[at + length :]
    if way == 4:
        return data[:at] + data[at : at + length] + data[at:]
    copy = bytearray(data)
    if way == 5:
        other = int(rng.integers(len(data)))
        copy[at], copy[other] = copy[other], copy[at]
    else:
        copy[at] ^= 1 << int(rng.integers(8))
    return bytes(copy)


@pytest.mark.parametrize('kind', KINDS)
def test_damage_is_refused_or_harmless(tmp_path, kind):
    path = results.save(tmp_path / 'a.npz', KINDS[kind]())
    data, written = path.read_bytes(), encode(results.load(path))
    rng, found = np.random.default_rng(0), 0
    for _ in range(250):
        path.write_bytes(damaged(data, rng))
        try:
            loaded = results.load(path)
        except ResultFileError:
            found += 1
            continue
        # Dates and the like may change unnoticed; the content may not.
        again = encode(loaded)
        assert list(again) == list(written)
        assert all(np.array_equal(again[name], array) for name, array in written.items())
    assert found > 150


# --- places ---------------------------------------------------------------------------------------


def test_a_folder_is_no_result_file(tmp_path):
    store = results.ResultStore(tmp_path)
    store.path_of('000008').mkdir()
    for ask in (store.has, store.load):
        with pytest.raises(ResultFileError, match=r'000008\.npz is a folder.*Move the folder away'):
            ask('000008')


def test_a_file_of_another_frame_is_not_taken(tmp_path, caplog):
    store = results.ResultStore(tmp_path)
    store.save(make_explanation()).rename(store.path_of('000009'))
    assert not store.has('000009')
    assert "holds frame '000008': expected '000009'" in caplog.text
    with pytest.raises(ResultFileError, match='renamed or copied'):
        store.load('000009')


def test_a_file_without_info_is_computed_again(tmp_path, caplog):
    store = results.ResultStore(tmp_path)
    meta, arrays = content_of(store.save(make_explanation()))
    del meta['info']
    write(store.path_of('000008'), seal(meta, arrays))
    assert not store.has('000008')
    assert "no 'info'" in caplog.text
    assert 'recomputed' in caplog.text
    store.save(make_explanation())
    assert store.has('000008')
