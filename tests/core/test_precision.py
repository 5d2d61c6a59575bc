"""Flags of float32 precision and of determinism: set within, and put back exactly."""

import warnings

import pytest
import torch

from explain3d.core.precision import (
    deterministic_kernels,
    full_precision_kernels,
    kernel_settings,
    reproducible_kernels,
)

_OPERATIONS = [('cuda', 'conv'), ('cuda', 'rnn'), ('cuda', 'matmul'), ('mkldnn', 'conv')]
_OPERATIONS += [('mkldnn', 'rnn'), ('mkldnn', 'matmul')]


def _flags():
    """All flags as torch reports them; the text of the error where it refuses to."""

    def asked(question):
        try:
            return question()
        except RuntimeError as error:
            return str(error)[:60]

    getter = getattr(torch._C, '_get_fp32_precision_getter', None)
    each = [getter(*operation) for operation in _OPERATIONS] if getter else []
    return {
        'each': each,
        'cudnn': asked(lambda: torch.backends.cudnn.allow_tf32),
        'matmul': asked(lambda: torch.backends.cuda.matmul.allow_tf32),
        'precision': asked(torch.get_float32_matmul_precision),
        'deterministic': torch.get_deterministic_debug_mode(),
        'benchmark': torch.backends.cudnn.benchmark,
    }


def _default():
    torch.backends.cudnn.allow_tf32 = True


def _older_off():
    torch.backends.cudnn.allow_tf32 = False


def _older_on():
    torch.set_float32_matmul_precision('medium')


def _newer_off():
    torch.backends.cudnn.conv.fp32_precision = 'ieee'


def _newer_on():
    torch.backends.cuda.matmul.fp32_precision = 'tf32'


def _generic_on():
    torch.backends.fp32_precision = 'tf32'


@pytest.fixture
def _put_back():
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    each = _flags()['each']
    generic = getattr(torch.backends, 'fp32_precision', None)
    yield
    if generic is not None:
        torch.backends.fp32_precision = generic
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.set_float32_matmul_precision(matmul)
    for operation, value in zip(_OPERATIONS, each, strict=False):
        torch._C._set_fp32_precision_setter(*operation, value)


@pytest.mark.usefixtures('_put_back')
@pytest.mark.parametrize(
    'user', [_default, _older_off, _older_on, _newer_off, _newer_on, _generic_on]
)
def test_full_precision_whatever_the_user_set_and_the_same_flags_afterwards(user):
    if not hasattr(torch.backends, 'fp32_precision') and user.__name__.startswith(
        ('_newer', '_generic')
    ):
        pytest.skip('this torch has no fp32_precision')
    user()
    before, inside = _flags(), {}

    def use():
        with full_precision_kernels():
            with full_precision_kernels():
                pass
            assert kernel_settings()['tf32'] is False
            inside.update(_flags())
            raise ZeroDivisionError

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(ZeroDivisionError):
            use()
    assert _flags() == before
    assert set(inside['each']) <= {'none', 'ieee'}
    assert (inside['cudnn'], inside['matmul'], inside['precision']) == (False, False, 'highest')


def test_settings_say_what_is_in_force_and_switches_can_be_left_alone():
    before = _flags()
    assert kernel_settings()['tf32'] is True  # torch's default for cuDNN's convolutions
    with reproducible_kernels(deterministic=True):
        assert kernel_settings() == {'tf32': False, 'deterministic': True}
    with reproducible_kernels(tf32=True):
        assert _flags() == before
    with full_precision_kernels(enabled=False), deterministic_kernels(enabled=False):
        assert _flags() == before
    assert _flags() == before


def test_contexts_left_in_the_order_in_which_they_were_entered():
    before = _flags()
    first, second = full_precision_kernels(), full_precision_kernels()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert kernel_settings()['tf32'] is False
    second.__exit__(None, None, None)
    assert _flags() == before


def test_deterministic_kernels_put_back_a_mode_that_only_warns():
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic_kernels():
            assert torch.get_deterministic_debug_mode() == 2
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.set_deterministic_debug_mode(before)
