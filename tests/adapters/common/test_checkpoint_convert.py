"""Weights from one host to the other and back: names, layouts, and what has no counterpart."""

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from explain3d.adapters import checkpoint_weights as weights
from explain3d.adapters.checkpoint_convert import (
    configuration_hints,
    convert_checkpoint,
    load_checkpoint,
)
from explain3d.core.errors import CheckpointMismatchError, InputError

ROOT = Path(__file__).parents[3]
CLASSES = ['Pedestrian', 'Cyclist', 'Car']
SHIPPED = [
    'second_small_miniworld',
    'centerpoint_small_miniworld',
    'kitti-mini/second_small_kitti-mini',
]
#: Convolutions of a tiny model under MMDetection3D's names: (outputs, inputs, kernel).
SPARSE = {
    'conv_input.0': (3, 4, 3),
    'encoder_layers.encoder_layer1.0.0': (4, 3, 3),
    'encoder_layers.encoder_layer2.0.0': (5, 4, 3),
    'encoder_layers.encoder_layer2.2.0': (5, 5, 3),
    'conv_out.0': (6, 5, (3, 1, 1)),
}
RESIDUAL = {
    'conv_input.0': (4, 4, 3),
    **{
        f'encoder_layers.encoder_layer{stage}.{block}.conv{i}': (4, 4, 3)
        for stage, block, i in ((1, 0, 1), (1, 0, 2), (1, 1, 1), (2, 0, 1), (4, 1, 2))
    },
    'encoder_layers.encoder_layer1.2.0': (4, 4, 3),
    'encoder_layers.encoder_layer3.2.0': (4, 4, 3),
    'conv_out.0': (6, 4, (3, 1, 1)),
}
BRANCHES = {'reg': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2, 'heatmap': 1}


def random(*shape):
    return torch.randn(*shape)


def norm(state, name, width):
    for part in ('weight', 'bias', 'running_mean'):
        state[f'{name}.{part}'] = random(width)
    state[f'{name}.running_var'] = random(width).abs()
    state[f'{name}.num_batches_tracked'] = torch.tensor(7)


def norm_name(convolution):
    if convolution.endswith('.0'):
        return convolution[:-1] + '1'
    return convolution.replace('.conv', '.bn')


def mmdet3d_checkpoint(detector='second', residual=False, widths=((5, 6), (4, 5))):
    """A tiny checkpoint with one stage of the 2D backbone per (filters, upsampled) pair."""
    torch.manual_seed(0)
    p = 'pts_' if detector == 'centerpoint' else ''
    state = OrderedDict()
    for name, (out, inputs, kernel) in (RESIDUAL if residual else SPARSE).items():
        kernel = (kernel,) * 3 if isinstance(kernel, int) else kernel
        state[f'{p}middle_encoder.{name}.weight'] = random(out, *kernel, inputs)
        norm(state, f'{p}middle_encoder.{norm_name(name)}', out)
    inputs = 12  # 6 channels at two heights
    for level, (filters, up) in enumerate(widths):
        for index in (0, 3):
            state[f'{p}backbone.blocks.{level}.{index}.weight'] = random(filters, inputs, 3, 3)
            norm(state, f'{p}backbone.blocks.{level}.{index + 1}', filters)
            inputs = filters
        shape = (up, filters) if detector == 'centerpoint' and level == 0 else (filters, up)
        state[f'{p}neck.deblocks.{level}.0.weight'] = random(*shape, level + 1, level + 1)
        norm(state, f'{p}neck.deblocks.{level}.1', up)
    if detector == 'second':
        for name, out in (('conv_cls', 18), ('conv_reg', 42), ('conv_dir_cls', 12)):
            state[f'bbox_head.{name}.weight'] = random(out, 11, 1, 1)
            state[f'bbox_head.{name}.bias'] = random(out)
    else:
        state[f'{p}bbox_head.shared_conv.conv.weight'] = random(4, 11, 3, 3)
        norm(state, f'{p}bbox_head.shared_conv.bn', 4)
        for task in range(2):
            for branch, out in BRANCHES.items():
                head = f'{p}bbox_head.task_heads.{task}.{branch}'
                state[f'{head}.0.conv.weight'] = random(4, 4, 3, 3)
                norm(state, f'{head}.0.bn', 4)
                state[f'{head}.1.weight'], state[f'{head}.1.bias'] = (
                    random(out, 4, 3, 3),
                    random(out),
                )
    meta = {'iterations': 20, 'seed': '0', 'dataset_meta': {'classes': CLASSES}}
    return {'meta': meta, 'state_dict': state}


CASES = {
    'second': {},
    'centerpoint': {'detector': 'centerpoint'},
    'residual centerpoint': {'detector': 'centerpoint', 'residual': True},
    'square upsampling': {'detector': 'centerpoint', 'widths': ((5, 5), (4, 4))},
    'square upsampling of second': {'widths': ((5, 5), (4, 4))},
}


@pytest.mark.parametrize('case', CASES)
def test_there_and_back_changes_no_bit(case):
    source = mmdet3d_checkpoint(**CASES[case])
    there = convert_checkpoint(source)
    back = convert_checkpoint(there)
    assert back['state_dict'].keys() == source['state_dict'].keys()
    for name, value in source['state_dict'].items():
        assert torch.equal(back['state_dict'][name], value), name
    assert {k: back['meta'][k] for k in source['meta']} == source['meta']


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_weights_there_and_back(name):
    source = load_checkpoint(ROOT / 'checkpoints' / f'{name}.pth')
    there = convert_checkpoint(source)
    assert len(there['model_state']['backbone_3d.conv_out.1.bias']) == weights.BACKBONE_CHANNELS
    back = convert_checkpoint(there)
    assert back['state_dict'].keys() == source['state_dict'].keys()
    assert all(torch.equal(back['state_dict'][k], v) for k, v in source['state_dict'].items())
    assert all(v.dtype == source['state_dict'][k].dtype for k, v in back['state_dict'].items())


def test_names_of_a_plain_encoder():
    names = convert_checkpoint(mmdet3d_checkpoint())['model_state']
    for expected in (
        'backbone_3d.conv_input.0.weight', 'backbone_3d.conv1.0.0.weight',
        'backbone_3d.conv2.2.1.running_var', 'backbone_3d.conv_out.0.weight',
        'backbone_2d.blocks.0.1.weight', 'backbone_2d.blocks.1.5.num_batches_tracked',
        'backbone_2d.deblocks.1.0.weight', 'dense_head.conv_box.bias', 'global_step',
    ):  # fmt: skip
        assert expected in names
    assert not any('bias' in name for name in names if name.startswith('backbone_3d.conv1.0.0'))


def test_names_of_a_residual_encoder():
    source = mmdet3d_checkpoint('centerpoint', residual=True)
    old, new = source['state_dict'], convert_checkpoint(source)['model_state']
    before = 'pts_middle_encoder.encoder_layers.encoder_layer'
    for theirs, ours in (
        (f'{before}1.1.conv1.weight', 'backbone_3d.conv1.1.conv1.weight'),
        (f'{before}1.2.0.weight', 'backbone_3d.conv2.0.0.weight'),
        (f'{before}2.0.bn1.bias', 'backbone_3d.conv2.1.bn1.bias'),
        (f'{before}3.2.1.bias', 'backbone_3d.conv4.0.1.bias'),
        (f'{before}4.1.conv2.weight', 'backbone_3d.conv4.2.conv2.weight'),
        ('pts_bbox_head.task_heads.1.heatmap.0.bn.bias', 'dense_head.heads_list.1.hm.0.1.bias'),
        ('pts_bbox_head.task_heads.0.height.1.bias', 'dense_head.heads_list.0.center_z.1.bias'),
        ('pts_bbox_head.shared_conv.conv.weight', 'dense_head.shared_conv.0.weight'),
    ):  # fmt: skip
        assert torch.equal(old[theirs], new[ours])
    # OpenPCDet's residual blocks have biases unless they are switched off.
    assert not new['backbone_3d.conv1.1.conv1.bias'].any()


def test_sine_and_cosine_change_places():
    source = mmdet3d_checkpoint('centerpoint')
    new = convert_checkpoint(source)['model_state']
    old = source['state_dict']['pts_bbox_head.task_heads.1.rot.1.weight']
    assert torch.equal(new['dense_head.heads_list.1.rot.1.weight'], old[[1, 0]])
    shift = source['state_dict']['pts_bbox_head.task_heads.1.reg.1.weight']
    assert torch.equal(new['dense_head.heads_list.1.center.1.weight'], shift)


@pytest.mark.parametrize('case', CASES)
def test_padded_encoder_and_upsampling_compute_the_same(case):
    """conv_out's norm, the first map layer and the upsampling, run as each host runs them."""
    source = mmdet3d_checkpoint(**CASES[case])
    p = 'pts_' if 'centerpoint' in CASES[case].get('detector', '') else ''
    ours, theirs = source['state_dict'], convert_checkpoint(source)['model_state']
    kernel = ours[f'{p}middle_encoder.conv_out.0.weight'].flatten(1)
    padded = theirs['backbone_3d.conv_out.0.weight'].flatten(1)
    cells = torch.randn(kernel.shape[1], 2, 3, 4)  # two heights, 3 x 4 cells

    def bev(weight, prefix, state):
        x = torch.einsum('oi,idhw->odhw', weight, cells)[None]
        norm = nn.functional.batch_norm(
            x, state[f'{prefix}.running_mean'], state[f'{prefix}.running_var'],
            state[f'{prefix}.weight'], state[f'{prefix}.bias'], eps=1e-3,
        )  # fmt: skip
        return norm.relu().flatten(1, 2)

    a = nn.functional.conv2d(
        bev(kernel, f'{p}middle_encoder.conv_out.1', ours),
        ours[f'{p}backbone.blocks.0.0.weight'], padding=1,
    )  # fmt: skip
    b = nn.functional.conv2d(
        bev(padded, 'backbone_3d.conv_out.1', theirs),
        theirs['backbone_2d.blocks.0.1.weight'], padding=1,
    )  # fmt: skip
    torch.testing.assert_close(a, b)
    up = ours[f'{p}neck.deblocks.0.0.weight']
    plain = p == 'pts_'
    c = nn.functional.conv2d(a, up) if plain else nn.functional.conv_transpose2d(a, up)
    d = nn.functional.conv_transpose2d(b, theirs['backbone_2d.deblocks.0.0.weight'])
    torch.testing.assert_close(c, d)


def test_classes_move_with_their_anchors_and_their_scores():
    source = mmdet3d_checkpoint()
    wanted = ['Car', 'Pedestrian', 'Cyclist']
    made = convert_checkpoint(source, wanted)
    assert made['meta']['dataset_meta']['classes'] == wanted
    old, new = source['state_dict'], made['model_state']
    for c, name in enumerate(wanted):
        was = CLASSES.index(name)
        for turn in range(2):
            for d, other in enumerate(wanted):
                at, before = (c * 2 + turn) * 3 + d, (was * 2 + turn) * 3 + CLASSES.index(other)
                assert new['dense_head.conv_cls.bias'][at] == old['bbox_head.conv_cls.bias'][before]
            for width, mine, theirs in (
                (7, 'dense_head.conv_box.weight', 'bbox_head.conv_reg.weight'),
                (2, 'dense_head.conv_dir_cls.weight', 'bbox_head.conv_dir_cls.weight'),
            ):  # fmt: skip
                at, before = (c * 2 + turn) * width, (was * 2 + turn) * width
                assert torch.equal(new[mine][at : at + width], old[theirs][before : before + width])
    back = convert_checkpoint(made, CLASSES)
    assert all(torch.equal(back['state_dict'][k], v) for k, v in old.items())


def test_biases_before_a_norm_go_into_its_mean():
    source = convert_checkpoint(mmdet3d_checkpoint('centerpoint', residual=True))
    state = source['model_state']
    layers = {
        'backbone_3d.conv2.1.conv1': ('backbone_3d.conv2.1.bn1', 2),
        'dense_head.shared_conv.0': ('dense_head.shared_conv.1', 3),
        'dense_head.heads_list.0.hm.0.0': ('dense_head.heads_list.0.hm.0.1', 5),
    }
    for layer, (_, bias) in layers.items():
        state[f'{layer}.bias'] = torch.full((4,), float(bias))
    made = convert_checkpoint(source)
    assert made['meta']['conversion']['biases_folded'] is True
    names = (
        'pts_middle_encoder.encoder_layers.encoder_layer2.0.bn1', 'pts_bbox_head.shared_conv.bn',
        'pts_bbox_head.task_heads.0.heatmap.0.bn',
    )  # fmt: skip
    for name, (norm_layer, bias) in zip(names, layers.values(), strict=True):
        mean = state[f'{norm_layer}.running_mean']
        torch.testing.assert_close(made['state_dict'][f'{name}.running_mean'], mean - bias)


def test_kernels_of_spconv_1_are_turned_and_versions_noted():
    source = mmdet3d_checkpoint()
    name = 'middle_encoder.encoder_layers.encoder_layer1.0.0.weight'
    modern = source['state_dict'][name]
    source['state_dict'][name] = modern.permute(1, 2, 3, 4, 0).contiguous()
    there = convert_checkpoint(source)
    assert torch.equal(there['model_state']['backbone_3d.conv1.0.0.weight'], modern)
    back = convert_checkpoint(there)['state_dict']
    assert torch.equal(back[name], modern)
    # Without this, MMDetection3D would take the kernel for spconv 1's and turn it again.
    assert back._metadata[name.removesuffix('.weight')] == {'version': 2}
    assert back._metadata['middle_encoder.conv_out.1'] == {'version': 2}


def test_trained_padding_is_not_thrown_away():
    there = convert_checkpoint(mmdet3d_checkpoint())
    there['model_state']['backbone_2d.blocks.0.1.weight'][0, -1] = 1.0
    with pytest.raises(CheckpointMismatchError, match='beyond channel 6.*trained since'):
        convert_checkpoint(there)
    del there['meta']['conversion']['encoder_channels']
    kept = convert_checkpoint(there)['state_dict']
    assert kept['middle_encoder.conv_out.0.weight'].shape[0] == weights.BACKBONE_CHANNELS


def test_a_counter_becomes_the_iterations():
    there = convert_checkpoint(mmdet3d_checkpoint())
    assert there['model_state']['global_step'].tolist() == [20]
    back = convert_checkpoint({'model_state': there['model_state'], 'epoch': 3})
    assert back['meta']['iterations'] == 20


def refused(change, match, error=CheckpointMismatchError, **arguments):
    checkpoint = mmdet3d_checkpoint()
    change(checkpoint)
    with pytest.raises(error, match=match):
        convert_checkpoint(checkpoint, **arguments)


def test_what_is_no_detector_of_either_host():
    refused(lambda c: c.pop('state_dict'), "'state_dict'.*'model_state'.*received one with")
    refused(
        lambda c: c.update(state_dict={'img_backbone.conv1.weight': torch.ones(1)}),
        r"SECOND or a voxel CenterPoint.*received parameters of \['img_backbone'\]",
    )
    refused(lambda c: c.update(model_state={}), 'received one with')
    there = convert_checkpoint(mmdet3d_checkpoint())
    with pytest.raises(CheckpointMismatchError, match='written by neither'):
        convert_checkpoint({'state_dict': there['model_state']})


def test_what_has_no_counterpart():
    extra = {'roi_head.conv.weight': torch.ones(1)}
    refused(lambda c: c['state_dict'].update(extra), r'no counterpart.*roi_head.conv.weight')
    there = convert_checkpoint(mmdet3d_checkpoint('centerpoint'))
    there['model_state']['dense_head.heads_list.0.iou.1.bias'] = torch.ones(1)
    with pytest.raises(CheckpointMismatchError, match=r'heads_list.0.iou.1.bias'):
        convert_checkpoint(there)


def test_a_part_of_a_model():
    refused(
        lambda c: c['state_dict'].pop('middle_encoder.conv_out.1.running_var'),
        'received no middle_encoder.conv_out.1.running_var',
    )


def test_classes_that_do_not_fit():
    nothing = lambda c: None  # noqa: E731
    refused(nothing, 'same class names', InputError, classes=['Car'])
    refused(nothing, 'same class names', InputError, classes=['Car', 'Van', 'Cyclist'])
    names = {'classes': ['a', 'b', 'c', 'd'], 'source_classes': ['d', 'c', 'b', 'a']}
    refused(nothing, '4 classes.*18 scores a cell', InputError, **names)
    refused(lambda c: c.pop('meta'), 'notes its classes', InputError, classes=CLASSES)
    with pytest.raises(InputError, match='anchor head only'):
        convert_checkpoint(mmdet3d_checkpoint('centerpoint'), CLASSES)


def test_files_that_torch_cannot_load(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pth'):
        load_checkpoint(tmp_path / 'nothing.pth')
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(b'no checkpoint')
    with pytest.raises(CheckpointMismatchError, match='broken.pth, which torch does not load'):
        load_checkpoint(broken)
    torch.save([1, 2], broken)
    with pytest.raises(CheckpointMismatchError, match='received a list'):
        load_checkpoint(broken)


def test_hints_name_what_the_weights_cannot_carry():
    note = convert_checkpoint(mmdet3d_checkpoint())['meta']['conversion']
    assert 'Pedestrian, Cyclist, Car' in configuration_hints(note)
    assert 'DIR_OFFSET' in configuration_hints(note)
    note = convert_checkpoint(mmdet3d_checkpoint('centerpoint'))['meta']['conversion']
    assert 'CLASS_NAMES_EACH_HEAD' in configuration_hints(note)


def test_the_tool_converts_and_says_what_is_wrong(tmp_path):
    source, target = tmp_path / 'a.pth', tmp_path / 'b' / 'c.pth'
    torch.save(mmdet3d_checkpoint(), source)
    command = [sys.executable, str(ROOT / 'tools' / 'convert_checkpoint.py')]
    order = ['--classes', 'Car', 'Pedestrian', 'Cyclist']
    done = subprocess.run([*command, source, target, *order], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'DIR_OFFSET' in done.stdout
    assert torch.load(target)['meta']['dataset_meta']['classes'] == order[1:]
    torch.save({'weights': 1}, source)
    done = subprocess.run([*command, source, target], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('error: Expected a checkpoint with')


def test_converting_imports_no_host():
    probe = (
        'import sys, explain3d.adapters.checkpoint_convert; '
        "print({n.split('.')[0] for n in sys.modules} & {'mmdet3d', 'mmengine', 'pcdet', 'spconv'})"
    )
    done = subprocess.run([sys.executable, '-c', probe], capture_output=True, text=True)
    assert done.stdout.strip() == 'set()', done.stderr
