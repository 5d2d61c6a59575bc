"""A checkpoint is data: what MMEngine writes is read, and no chain of pickle's steps runs code."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from explain3d.adapters.checkpoint_reading import engine_objects, guarded, read_checkpoint
from explain3d.core.errors import UnsafeCheckpointError

HISTORY = ('mmengine.logging.history_buffer', 'HistoryBuffer')
SCHEDULE = ('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler')

# --- steps of a pickle ----------------------------------------------------------------------------


def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def name(module, attribute):
    return f'c{module}\n{attribute}\n'.encode()


def integer(value):
    return b'J' + struct.pack('<i', value)


def group(*parts):
    return b'(' + b''.join(parts) + b't'


def call(function, *arguments):
    return function + group(*arguments) + b'R'


def new(kind, *arguments):
    return kind + group(*arguments) + b'\x81'


def build(instance, state):
    return instance + state + b'b'


def mapping(**items):
    return b'}(' + b''.join(text(key) + value for key, value in items.items()) + b'u'


def data(content):
    return call(name('_codecs', 'encode'), text(content), text('latin1'))


GETATTR = name('builtins', 'getattr')
NONE, FALSE, TRUE = b'N', b'\x89', b'\x88'
ARRAY, DTYPE = name('numpy', 'ndarray'), name('numpy', 'dtype')
EXEC = call(GETATTR, call(GETATTR, GETATTR, text('__self__')), text('exec'))
FLOAT = call(DTYPE, text('f8'), FALSE, TRUE)


def simple_dtype(code='f8', order='<'):
    state = group(integer(3), text(order), NONE, NONE, NONE, integer(-1), integer(-1), integer(0))
    return build(call(DTYPE, text(code), FALSE, TRUE), state)


def empty_array(core='core'):
    reconstruct = name(f'numpy.{core}.multiarray', '_reconstruct')
    return call(reconstruct, ARRAY, group(integer(0)), data('b'))


def array(shape, dtype, content, core='core'):
    sizes = group(*map(integer, shape))
    return build(empty_array(core), group(integer(1), sizes, dtype, FALSE, data(content)))


def history(**changes):
    row = array([1], simple_dtype(), '\0' * 8)
    state = dict(max_length=integer(9), _log_history=row, _count_history=row) | changes
    return build(new(name(*HISTORY)), mapping(**state))


def checkpoint(path, steps):
    """A file of torch's with one more entry, made by the given steps."""
    buffer = io.BytesIO()
    torch.save({'w': 1}, buffer)
    source = zipfile.ZipFile(buffer)
    with zipfile.ZipFile(path, 'w') as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith('data.pkl'):
                content = content[:-1] + text('more') + steps + b's.'
            target.writestr(item.filename, content)
    return path


# --- what MMEngine writes -------------------------------------------------------------------------


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_either_numpy_are_read(tmp_path, core):
    values = np.array([[1.5, -2.0, 3.0]], dtype='>f4')
    content = values.tobytes().decode('latin1')
    steps = array([1, 3], simple_dtype('f4', '>'), content, core)
    read = read_checkpoint(checkpoint(tmp_path / 'c.pth', steps))
    np.testing.assert_array_equal(read['more'], values)
    assert type(read['more']) is np.ndarray
    assert read['more'].dtype == values.dtype
    read['more'][0, 0] = 4  # Writable, as any array that was loaded.


def test_plain_content_is_read(tmp_path):
    state = OrderedDict(w=torch.ones(2))
    state._metadata = {'': {'version': 2}}
    content = {
        'state_dict': state,
        'meta': {'seed': np.int64(3), 'name': np.str_('run'), 'none': np.str_(''), 'b': b''},
        'deep': [(np.arange(6.0).reshape(2, 3).T, {'flag': np.bool_(True)}), {1, 2}],
        'empty': np.zeros((0, 4), np.uint8),
    }
    torch.save(content, tmp_path / 'c.pth')
    read = read_checkpoint(tmp_path / 'c.pth')
    assert torch.equal(read['state_dict']['w'], state['w'])
    assert read['state_dict']._metadata == state._metadata
    assert read['meta'] == content['meta']
    np.testing.assert_array_equal(read['deep'][0][0], content['deep'][0][0])
    assert read['deep'][0][1] == {'flag': True}
    assert read['deep'][1] == {1, 2}
    assert read['empty'].shape == (0, 4)


def test_history_and_schedule_are_read(tmp_path):
    logging = pytest.importorskip('mmengine.logging')
    from mmengine.optim import OneCycleLR

    buffer = logging.HistoryBuffer()
    for value in (1.0, 2.0, 6.0):
        buffer.update(value)
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    schedule = OneCycleLR(optimizer, eta_max=1.0, total_steps=10)
    torch.save({'log': buffer, 'again': [buffer], 's': schedule.state_dict()}, tmp_path / 'c.pth')
    read = read_checkpoint(tmp_path / 'c.pth')
    assert type(read['log']) is logging.HistoryBuffer
    assert read['log'].statistics('mean') == pytest.approx(3.0)
    read['log'].update(3.0)
    assert read['log'].current() == 3.0
    assert read['s']['anneal_func'] is OneCycleLR._annealing_cos
    OneCycleLR(optimizer, eta_max=1.0, total_steps=10).load_state_dict(read['s'])
    torch.save(read, tmp_path / 'again.pth')  # Under MMEngine's own names.
    assert read_checkpoint(tmp_path / 'again.pth')['log'].current() == 3.0


def test_steps_of_these_tests_make_a_sound_history(tmp_path):
    pytest.importorskip('mmengine')
    read = read_checkpoint(checkpoint(tmp_path / 'c.pth', history()))
    assert read['more'].current() == 0.0


# --- attacks --------------------------------------------------------------------------------------

REBUILD = name('torch._tensor', '_rebuild_from_type_v2')
ENCODE = name('_codecs', 'encode')
FLAGS = group(integer(3), text('|'), NONE, NONE, NONE, integer(-1), integer(-1), integer(0))
RECORD = group(
    integer(3), text('|'), NONE, group(text('a')), mapping(a=group(FLOAT, integer(0))),
    integer(8), integer(1), integer(0),
)  # fmt: skip
LARGE = group(integer(3), text('<'), NONE, NONE, NONE, integer(1 << 20), integer(-1), integer(0))
STATE = mapping(__setstate__=ENCODE)

ATTACKS = {
    'getattr of itself': EXEC,
    'exec through an injected __setstate__': build(
        build(new(name(*HISTORY)), mapping(__setstate__=EXEC)), text('1')
    ),
    'injected __setstate__': build(build(new(name(*HISTORY)), STATE), text('1')),
    'more than a history holds': history(__setstate__=ENCODE),
    'another class': history(__class__=name(*SCHEDULE)),
    'statistics that are other functions': history(statistics_methods=mapping(mean=ENCODE)),
    'statistics under another name': history(
        statistics_methods=mapping(mean=call(GETATTR, name(*HISTORY), text('min')))
    ),
    'statistics that are no dictionary': history(statistics_methods=text('mean')),
    'state that is no dictionary': build(new(name(*HISTORY)), integer(3)),
    'history without state': new(name(*HISTORY)),
    'history by its constructor': call(name(*HISTORY), b']', b']'),
    'history of text': history(_log_history=text('abc')),
    'history of a text array': history(_log_history=array([1], simple_dtype('S8'), 'a' * 8)),
    'history of two dimensions': history(_log_history=array([1, 1], simple_dtype(), '\0' * 8)),
    'history with fewer counts': history(_count_history=array([0], simple_dtype(), '')),
    'length below one': history(max_length=integer(-1)),
    'initialiser': call(GETATTR, name(*HISTORY), text('__init__')),
    'globals': call(
        GETATTR, call(GETATTR, name(*HISTORY), text('mean')), text('__globals__')
    ),
    'update': call(GETATTR, name(*HISTORY), text('update')),
    'subclasses': call(GETATTR, name(*SCHEDULE), text('__subclasses__')),
    'scheduler': new(name(*SCHEDULE)),
    'scheduler with a state': build(new(name(*SCHEDULE)), STATE),
    'scheduler by its constructor': call(name(*SCHEDULE), integer(1)),
    'attribute of an array': call(GETATTR, array([1], simple_dtype(), '\0' * 8), text('dumps')),
    'name that is no text': call(GETATTR, name(*HISTORY), group(text('mean'))),
    'call of a function that was looked up': call(
        call(GETATTR, name(*HISTORY), text('mean')), history()
    ),
    'function called by torch': call(
        REBUILD, call(GETATTR, name(*HISTORY), text('mean')), name('torch', 'Tensor'),
        group(text('a')), mapping(),
    ),
    'attributes set by torch': build(
        call(REBUILD, name('numpy.core.multiarray', '_reconstruct'), ARRAY,
             group(ARRAY, group(integer(0)), data('b')), STATE),
        text('1'),
    ),
    'state of a function': build(call(GETATTR, name(*HISTORY), text('mean')), STATE),
    'state of the look-up': build(GETATTR, STATE),
    'objects as elements': call(DTYPE, text('O'), FALSE, TRUE),
    'pointers as objects': build(call(DTYPE, text('O8'), FALSE, TRUE), FLAGS),
    'record': call(DTYPE, text('f8,O'), FALSE, TRUE),
    'record through the state': build(call(DTYPE, text('f8'), FALSE, TRUE), RECORD),
    'void': call(DTYPE, text('V8'), FALSE, TRUE),
    'dtype made of a list': call(DTYPE, b']', FALSE, TRUE),
    'subarray': build(
        FLOAT,
        group(integer(3), text('<'), group(FLOAT, group(integer(9))), NONE, NONE, integer(72),
              integer(8), integer(0)),
    ),
    'byte order that is none': build(FLOAT, group(*[text('x')] * 8)),
    'dtype without a code': array([1], new(DTYPE), '\0' * 8),
    'elements larger than they are': array([1], build(FLOAT, LARGE), '\0' * (1 << 20)),
    'fewer bytes than the shape': array([1 << 30], simple_dtype(), '\0' * 8),
    'more bytes than the shape': array([1], simple_dtype(), '\0' * 16),
    'negative shape': array([-1, -1], simple_dtype(), '\0' * 8),
    'elements without a size': array([1 << 30], simple_dtype('U0'), ''),
    'array without content': empty_array(),
    'array by its constructor': call(ARRAY, group(integer(1 << 30))),
    'array of another class': call(
        name('numpy.core.multiarray', '_reconstruct'), name('collections', 'OrderedDict'),
        group(integer(0)), data('b'),
    ),
    'scalar of objects': call(
        name('numpy.core.multiarray', 'scalar'), call(DTYPE, text('O'), FALSE, TRUE), EXEC
    ),
    'scalar of a wrong size': call(
        name('numpy.core.multiarray', 'scalar'), simple_dtype(), data('\0' * 4)
    ),
    'scalar without a type': call(name('numpy.core.multiarray', 'scalar'), text('f8'), data('a')),
    'bytes with a length': call(name('builtins', 'bytes'), integer(1 << 30)),
    'array as key': b'}' + array([1], simple_dtype(), '\0' * 8) + integer(1) + b's',
    'array in a set': call(name('builtins', 'set'), b'](' + FLOAT + b'e'),
    'exec': name('builtins', 'exec'),
    'eval of the old name': name('__builtin__', 'eval'),
    'system': call(name('os', 'system'), text('true')),
    'numpy function': name('numpy', 'load'),
    'module of MMEngine': name('mmengine.config', 'Config'),
}  # fmt: skip


@pytest.mark.parametrize('attack', ATTACKS)
def test_attacks_are_refused(tmp_path, attack):
    path = checkpoint(tmp_path / 'c.pth', ATTACKS[attack])
    # Whatever goes wrong goes wrong as an error of reading: nothing else of the file was reached.
    with pytest.raises(UnsafeCheckpointError, match=r'c\.pth, which torch does not load safely'):
        read_checkpoint(path)
    with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError)):
        guarded(torch.load)(str(path), weights_only=True)


def test_nothing_of_the_process_changes(tmp_path):
    before = set(map(str, torch.serialization.get_safe_globals()))
    steps = history(statistics_methods=mapping(mean=ENCODE))
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint(checkpoint(tmp_path / 'c.pth', steps))
    assert set(map(str, torch.serialization.get_safe_globals())) == before
    torch.save({'seed': np.int64(3)}, tmp_path / 'own.pth')
    for reading in (False, True):
        # A user's own torch.load refuses what it refused before.
        if reading:
            read_checkpoint(tmp_path / 'own.pth')
        with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
            torch.load(tmp_path / 'own.pth', weights_only=True)


def test_one_reader_does_not_end_another():
    count = len(torch.serialization.get_safe_globals())
    with engine_objects():
        with engine_objects():
            pass
        assert len(torch.serialization.get_safe_globals()) > count
    assert len(torch.serialization.get_safe_globals()) == count


class Payload:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_trust_has_to_be_said(tmp_path):
    payload = Payload()
    payload.path = str(tmp_path / 'made')
    torch.save({'state_dict': {}, 'meta': payload}, tmp_path / 'c.pth')
    with pytest.raises(UnsafeCheckpointError, match='mkdir.*--trust'):
        read_checkpoint(tmp_path / 'c.pth')
    assert not (tmp_path / 'made').exists()
    read_checkpoint(tmp_path / 'c.pth', trust=True)
    assert (tmp_path / 'made').exists()
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / 'other.pth')
