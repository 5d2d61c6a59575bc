"""Seeds, outputs, captures, errors; and the model is left as it was found."""

import copy
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from explain3d.core.errors import (
    InputError,
    NotApplicableError,
    UnknownNameError,
    UnknownOperationError,
)
from explain3d.lmd import (
    Decomposition,
    Output,
    Rows,
    Rules,
    Seed,
    decompose_module,
    module_rule,
    rule,
)
from explain3d.lmd.registry import FUNCTION_RULES, MODULE_RULES
from explain3d.lmd.twin import Carried

from .networks import (
    SEEDS,
    OneOperation,
    assert_identical,
    decompose,
    fusion,
    fusion_seeds,
    inputs,
    sensors,
)


def one(operation, **settings):
    return decompose(OneOperation(operation), *inputs(), mode='check', **settings)


# ---------------------------------------------------------------- seeds


class Packed(nn.Module):
    """Takes its sensors in a dict, a list and a keyword."""

    def __init__(self):
        super().__init__()
        self.fuse, self.head = Concatenation(), nn.Conv2d(6, 2, 1)

    def forward(self, data):
        return self.head(self.fuse([data['camera'], data['radar']], extra=data['lidar']))


class Concatenation(nn.Module):
    def forward(self, maps, extra=None):
        return torch.cat([*maps, extra], 1)


def packed():
    torch.manual_seed(0)
    data = {name: torch.randn(1, 2, 4, 4).double() for name in ('camera', 'radar', 'lidar')}
    return Packed().double(), data


def expected_parts(model, data):
    names = list(data)
    parts = [
        F.conv2d(data[n], model.head.weight[:, 2 * i : 2 * i + 2]) for i, n in enumerate(names)
    ]
    bias = model.head.bias[:, None, None].expand_as(parts[0])
    return torch.stack([*parts, bias])


@pytest.mark.parametrize(
    'seeds',
    [
        [Seed('', path=f'0.{n}', modality=n) for n in ('camera', 'radar', 'lidar')],
        [Seed('', path=f'data.{n}', modality=n) for n in ('camera', 'radar', 'lidar')],
        [
            Seed('fuse', path='0.0', modality='camera'),
            Seed('fuse', path='maps.1', modality='radar'),
            Seed('fuse', path='extra', modality='lidar'),
        ],
        [
            Seed('fuse', path='0.0', modality='camera'),
            Seed('fuse', path='0.1', modality='radar'),
            Seed('fuse', path='1', modality='lidar'),
        ],
        [Seed('fuse', at='output', split=dict(camera=2, radar=2, lidar=2))],
        [Seed('head', split=dict(camera=2, radar=2, lidar=2), dim=-3)],
    ],
)
@pytest.mark.parametrize('mode', ['production', 'check'])
def test_every_way_to_seed(seeds, mode):
    model, data = packed()
    with torch.no_grad():
        plain = model(data)
        out, run = decompose_module(model, [data], seeds=seeds, outputs=['head'], mode=mode)
    assert_identical(plain, out)
    assert run.names == ('camera', 'radar', 'lidar', 'bias')
    found = run.outputs['head']
    assert (found.parts - expected_parts(model, data)).abs().max() <= 1e-14


def test_what_is_not_seeded_belongs_to_the_bias():
    model, data = packed()
    seeds = [
        Seed('fuse', path='0.0', modality='camera'),
        Seed('fuse', path='0.1', modality='radar'),
    ]
    for mode in ('production', 'check'):
        found = decompose(model, data, seeds=seeds, mode=mode).outputs['']
        expected = expected_parts(model, data)
        assert (found['camera'] - expected[0]).abs().max() <= 1e-14
        assert (found['bias'] - expected[2] - expected[3]).abs().max() <= 1e-14


def test_what_comes_before_the_seed_is_plain():
    kinds = []

    class Spy(nn.Module):
        def forward(self, x):
            kinds.append(type(x))
            return x

    model = nn.Sequential(Spy(), nn.Conv2d(4, 4, 1), Spy(), nn.Conv2d(4, 1, 1), Spy())
    seeds = [Seed('1', split=dict(camera=3, radar=1))]
    decompose(model, torch.randn(1, 4, 2, 2), seeds=seeds, outputs=['3'])
    assert [k is Carried for k in kinds[3:]] == [False, True, False]


def test_seeds_that_do_not_fit():
    model, data = packed()
    good = [Seed('head', split=dict(camera=4, radar=2))]

    def run(seeds, match, error=InputError, outputs=('',)):
        with pytest.raises(error, match=match):
            decompose_module(model, [data], seeds=seeds, outputs=outputs)

    run([Seed('head', split=dict(camera=4, radar=3))], r'add up .*radar.*3.*\(1, 6, 4, 4\)')
    run([Seed('head', modality='camera')], 'two or more modalities')
    run([Seed('head', split=dict(camera=4, bias=2))], "none called 'bias'")
    run(
        [Seed('heads', split=dict(a=1, b=5))], "Unknown module 'heads' for a seed", UnknownNameError
    )
    run([Seed('head', path='3', split=dict(a=1, b=5))], "No tensor at path '3'", UnknownNameError)
    run(
        [Seed('fuse', path='0.5', split=dict(a=1, b=1))],
        r"\['0.0', '0.1', 'extra'\]",
        UnknownNameError,
    )
    run([*good, Seed('fuse', at='output', split=dict(camera=4, radar=2))], 'decomposed already')
    run(good, "Unknown module 'hat' for an output", UnknownNameError, ['hat'])
    run(good, "Output 'fuse' at module 'fuse' carries no components", NotApplicableError, ['fuse'])
    with pytest.raises(UnknownNameError, match="Unknown mode 'fast'"):
        Decomposition(model, good, [''], mode='fast')


def test_a_seed_or_output_that_does_not_run():
    model = nn.ModuleDict(dict(used=nn.Conv2d(2, 1, 1), unused=nn.Conv2d(2, 1, 1)))
    model.forward = lambda x: model['used'](x)
    split = dict(camera=1, radar=1)
    x = torch.zeros(1, 2, 2, 2)
    with pytest.raises(NotApplicableError, match="not reached the seeds at .*'unused'"):
        decompose_module(model, [x], seeds=[Seed('unused', split=split)], outputs=['used'])
    with pytest.raises(NotApplicableError, match="did not reach output 'unused'"):
        decompose_module(model, [x], seeds=[Seed('used', split=split)], outputs=['unused'])


# ---------------------------------------------------------------- outputs and captures


class Heads(nn.Module):
    """A shared head that runs on two scales, and one that gives several maps."""

    def __init__(self):
        super().__init__()
        self.shared, self.maps = nn.Conv2d(4, 2, 1), Maps()

    def forward(self, a, b):
        x = a + b
        scales = [self.shared(s) for s in (x, F.avg_pool2d(x, 2))]
        maps = self.maps(x)
        return scales, maps['heatmap'].exp().log(), maps['boxes'][0]


class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.heat, self.box = nn.Conv2d(4, 1, 1), nn.Conv2d(4, 6, 1)

    def forward(self, x):
        return {'heatmap': self.heat(x), 'boxes': [self.box(x)], 'scale': 2}


def test_outputs_by_path_and_by_run():
    model, args = Heads().double(), inputs()
    outputs = {
        'fine': Output('shared', call=0),
        'coarse': Output('shared', call=1),
        'boxes': Output('maps', path='boxes.0'),
        'heat': 'maps.heat',
    }
    run = decompose(model, *args, outputs=outputs, mode='check')
    assert list(run.outputs) == ['fine', 'coarse', 'heat', 'boxes']
    assert run.outputs['coarse'].value.shape == (2, 2, 3, 3)
    expected = F.conv2d(args[1], model.maps.box.weight)
    assert torch.allclose(run.outputs['boxes']['radar'], expected, atol=1e-13)
    with pytest.raises(NotApplicableError, match='ran more than once .*call=0'):
        decompose(model, *args, outputs=['shared', 'maps'])


def test_a_module_of_several_tensors_gives_several_outputs():
    run = decompose(Heads().double(), *inputs(), outputs=['maps'], stop=['shared'])
    assert list(run.outputs) == ['maps.heatmap', 'maps.boxes.0']


def test_behind_an_output_or_stop_the_network_is_plain():
    """``log`` has no rule; the heat map is not named, so the decomposition must end before it."""
    settings = dict(stop=['shared', 'maps.heat'])
    run = decompose(Heads().double(), *inputs(), outputs=['maps.box'], **settings)
    assert list(run.outputs) == ['maps.box']
    with pytest.raises(UnknownOperationError, match='No LMD rule for torch.Tensor.log'):
        decompose(Heads().double(), *inputs(), outputs=['maps.box'], stop=['shared'])


def test_captures_keep_what_was_there_then():
    """In-place operations that follow do not reach into what was captured."""
    model, args = fusion(), sensors()
    run = decompose(
        model,
        *args,
        seeds=fusion_seeds(),
        outputs=['head'],
        mode='check',
        capture=['layer1', 'layer1.relu', 'layer1.bn1', 'norm'],
    )
    before = run.captured['layer1.bn1']
    assert (before.value < 0).any()
    assert set(run.captured) == {'layer1', 'layer1.relu', 'layer1.relu#1', 'layer1.bn1', 'norm'}
    for found in run.captured.values():
        assert found.conservation_error() <= 1e-12
        assert type(found.parts) is torch.Tensor


def test_several_forward_passes_in_one_context():
    model = fusion()
    with torch.no_grad(), Decomposition(model, fusion_seeds(), ['head'], mode='check') as run:
        for seed in (1, 2):
            model(*sensors(seed=seed))
            count, found = len(run.layers), run.outputs['head']
    once = decompose(model, *sensors(seed=2), seeds=fusion_seeds(), outputs=['head'], mode='check')
    assert count == len(once.layers)
    assert torch.equal(found.parts, once.outputs['head'].parts)


def test_layers_are_measured_in_check_mode_only():
    run = decompose(fusion(), *sensors(), seeds=fusion_seeds(), outputs=['head'], mode='check')
    assert run.layers[0].operation == 'torch.cat'
    assert run.layers[0].shares['bias'] == 0
    assert run.layers[1].module == 'fuse'
    assert run.residual == max(layer.residual for layer in run.layers)
    production = decompose(fusion(), *sensors(), seeds=fusion_seeds(), outputs=['head'])
    with pytest.raises(NotApplicableError, match="mode='check'"):
        _ = production.layers


def test_an_untrue_rule_shows_in_the_residual():
    """The check is not empty: a rule that loses a tenth is found."""
    own = FUNCTION_RULES[F.gelu]

    def wrong(call, x):
        rows = call.rows(x)
        return call.carry(call.plain(), Rows(rows.ids, rows.stack * 0.9))

    try:
        rule(F.gelu)(wrong)
        assert one(F.gelu).residual > 0.05
    finally:
        FUNCTION_RULES[F.gelu] = own


# ---------------------------------------------------------------- left as found


def state_of(model):
    return [
        (name, dict(vars(m)), dict(m._forward_hooks), dict(m._forward_pre_hooks), m.training)
        for name, m in model.named_modules()
    ]


def test_the_model_is_left_as_it_was():
    model, args = fusion(), sensors()
    before = state_of(model)
    parameters = {k: v.clone() for k, v in model.state_dict().items()}
    run = decompose(model, *args, seeds=fusion_seeds(), outputs=['head'], capture=['layer1'])
    assert str(state_of(model)) == str(before)
    assert all(torch.equal(v, parameters[k]) for k, v in model.state_dict().items())
    assert not run.is_active


def test_the_model_is_left_as_it_was_after_an_exception():
    model = OneOperation(nn.Sequential(nn.ReLU(), nn.LogSigmoid(), FailsAndKeeps()))
    before = str(state_of(model))
    with pytest.raises(ZeroDivisionError), Decomposition(model, SEEDS, ['']):
        model(*inputs())
    assert str(state_of(model)) == before
    kept = FailsAndKeeps.kept.pop()
    assert type(kept) is torch.Tensor
    assert not hasattr(kept, '_twin')


class FailsAndKeeps(nn.Module):
    kept = []

    def forward(self, x):
        assert type(x) is Carried
        self.kept.append(x)
        raise ZeroDivisionError


@dataclass
class Detections:
    scores: torch.Tensor


def test_results_in_other_objects_are_plain_as_well():
    class Detector(OneOperation):
        def forward(self, a, b):
            return Detections(super().forward(a, b))

    model = Detector(nn.ReLU())
    with torch.no_grad(), Decomposition(model, SEEDS, ['operation'], stop=[]) as run:
        out = model(*inputs())
        assert type(out.scores) is torch.Tensor
    assert torch.equal(out.scores, run.outputs['operation'].value)


def test_the_callers_tensors_stay_plain_and_alias():
    a, b = inputs()
    model = OneOperation(nn.Identity())
    model.forward = lambda a, b: model.operation(a.add_(1) + b)
    before = a.clone()
    decompose_module(model, [a, b], seeds=SEEDS, outputs=[''])
    assert type(a) is torch.Tensor
    assert torch.equal(a, before + 1)


def test_entering_twice():
    run = Decomposition(OneOperation(nn.ReLU()), SEEDS, [''])
    with run, pytest.raises(InputError, match='running already'):
        run.__enter__()


# ---------------------------------------------------------------- what has no rule


def test_unknown_operation_names_operation_module_and_remedy():
    model = OneOperation(nn.Sequential(nn.ReLU(), Strange()))
    with pytest.raises(UnknownOperationError) as error:
        decompose(model, *inputs(), outputs=['operation'])
    message = str(error.value)
    assert 'torch.Tensor.erfinv' in message
    assert "'operation.1'" in message
    assert '@explain3d.lmd.rule(function)' in message


class Strange(nn.Module):
    def forward(self, x):
        return x.erfinv()


@pytest.mark.parametrize(
    'operation',
    [
        torch.log,
        torch.sqrt,
        torch.reciprocal,
        torch.rsqrt,
        torch.prod,
        torch.var,
        torch.norm,
        lambda x: 1 / x,
        lambda x: 2**x,
        lambda x: x**0.5,
        lambda x: x // 2,
        lambda x: x % 2,
        lambda x: x.sign(),
        lambda x: x.round(),
        lambda x: x.erfinv_(),
        lambda x: F.conv2d(torch.ones(4, 8, 8).to(x), x),
        lambda x: F.linear(torch.ones(6).to(x), x[0, 0]),
        lambda x: torch.einsum('a,b,c->abc', *[x[0, 0, 0]] * 3),
        lambda x: F.dropout(x, 0.5, training=True),
        lambda x: F.rrelu(x, training=True),
        lambda x: torch.view_as_complex(x[..., :2].contiguous()),
        lambda x: F.grid_sample(torch.ones(2, 1, 4, 4).to(x), x[:, :, :, :2]),
        lambda x: torch.logsumexp(x, 1),
    ],
)
def test_operations_without_a_rule_are_refused(operation):
    with pytest.raises(UnknownOperationError):
        one(operation)


def test_batch_norm_in_training_mode_is_refused():
    for layer in (nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False).eval()):
        with pytest.raises(NotApplicableError, match='statistics of the batch.*model.eval'):
            one(layer.double())


def test_dropout_in_attention_is_refused():
    layer = nn.MultiheadAttention(6, 2, dropout=0.5).double().train()
    with pytest.raises(NotApplicableError, match='model.eval'):
        one(lambda x: layer(x[0], x[1], x[1])[0])


def test_out_argument_is_refused():
    with pytest.raises(NotApplicableError, match='out='):
        one(lambda x: torch.add(x, 1, out=torch.empty(0).to(x)))


def test_a_rule_can_be_registered():
    own = dict(FUNCTION_RULES)
    with pytest.raises(UnknownOperationError, match='ndtri'):
        one(lambda x: torch.special.ndtri(x.sigmoid()))

    @rule(torch.special.ndtri)
    def frozen(call, x):
        return call.carry_constant(call.plain())

    try:
        found = one(lambda x: torch.special.ndtri(x.sigmoid())).outputs['']
    finally:
        FUNCTION_RULES.clear()
        FUNCTION_RULES.update(own)
    assert torch.equal(found['bias'], found.value)


class Extension(torch.autograd.Function):
    """What a compiled extension looks like: it reads memory, and no rule sees it."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() * 2)


class Compiled(nn.Module):
    def forward(self, x):
        return Extension.apply(x)


def test_components_that_get_lost_in_a_module_are_an_error():
    model = OneOperation(nn.Sequential(Compiled(), nn.ReLU()))
    with pytest.raises(UnknownOperationError, match=r"module Compiled in module 'operation.0'.*"
                       r'plain ones come out.*module_rule\(Compiled\)'):  # fmt: skip
        decompose(model, *inputs())


def test_a_module_can_be_declared_constant():
    model = OneOperation(nn.Sequential(Compiled(), nn.ReLU()))
    rules = Rules(per_module={'*.0': dict(module='constant')})
    for mode in ('production', 'check'):
        found = decompose(model, *inputs(), rules=rules, mode=mode).outputs['']
        assert not found['camera'].any()
        assert torch.equal(found['bias'], found.value)


def test_a_rule_for_a_module():
    @module_rule(Compiled)
    def compiled(call, module, x):
        rows = call.rows(x)
        return call.carry(call.plain(), Rows(rows.ids, rows.stack * 2))

    try:
        run = decompose(OneOperation(Compiled()), *(args := inputs()), mode='check')
        base = decompose(OneOperation(Compiled()), *args, record=True)
        frozen = decompose(OneOperation(Compiled()), *args, frozen=base.record)
    finally:
        del MODULE_RULES[Compiled]
    assert torch.equal(run.outputs['']['camera'], 2 * args[0])
    assert torch.equal(frozen.outputs['']['camera'], 2 * args[0])
    assert run.residual <= 1e-15


def test_writing_into_a_view_in_inference_mode_is_refused():
    def operation(x):
        canvas = torch.zeros(2, 4, 6, 6).to(x)
        canvas[0][1:] = x[0, 1:]
        return canvas

    with torch.inference_mode(), pytest.raises(NotApplicableError, match='torch.no_grad'):
        decompose_module(OneOperation(operation), inputs(), seeds=SEEDS, outputs=[''])


# ---------------------------------------------------------------- rules


def test_unknown_rules():
    with pytest.raises(UnknownNameError, match="activation='sum'.*bias_split='sum'"):
        Rules(activation='sum')
    with pytest.raises(UnknownNameError, match="batch_norm='ratio'"):
        Rules(batch_norm='ratio')
    with pytest.raises(UnknownNameError, match="'bias_spilt'.*Did you mean 'bias_split'"):
        Rules.from_config(dict(bias_spilt='sum'))
    with pytest.raises(UnknownNameError, match='family'):
        Rules(per_module={'head': dict(norm='ratio')})


def test_rules_from_a_config_and_back():
    config = dict(bias_split='ratio', per_module={'head.*': dict(instance_norm='identity')})
    rules = Rules.from_config(config)
    assert Rules.from_config(rules.as_dict()) == rules
    assert rules.at('head.1').instance_norm == 'identity'
    assert rules.at('neck').instance_norm == 'ratio'
    assert rules.at('head.1').bias_split == 'ratio'


# ---------------------------------------------------------------- cost


def test_components_die_with_their_tensors():
    """A long chain holds the components of a few tensors, not of all."""
    alive = []

    class Count(nn.Module):
        def forward(self, x):
            alive.append(len(run._living))
            return x

    model = OneOperation(nn.Sequential(*[nn.Sequential(nn.Tanh(), Count()) for _ in range(20)]))
    with torch.no_grad(), Decomposition(model, SEEDS, ['operation']) as run:
        model(*inputs())
    assert max(alive) == alive[3] <= 5
    assert not run._living


@pytest.mark.parametrize('sizes', [(5, 3), (3, 3, 2)])
def test_the_convolution_after_a_concatenation_is_split_by_channels(sizes):
    """Each sensor runs over its own channels: the parts cost together what the value costs."""
    conv = nn.Sequential(nn.Conv2d(8, 4, 3))
    x = torch.randn(1, 8, 6, 6)
    seeds = [Seed('', split=dict(zip('abc', sizes, strict=False)))]
    with FlopCounterMode(display=False) as plain:
        conv(x)
    with FlopCounterMode(display=False) as decomposed, Decomposition(conv, seeds, ['']):
        conv(x)
    assert decomposed.get_total_flops() == 2 * plain.get_total_flops()


def test_production_costs_at_most_one_pass_per_modality():
    model, args = fusion((4, 2, 2)), sensors((4, 2, 2))
    seeds = fusion_seeds(('a', 'b', 'c'))
    with torch.no_grad(), FlopCounterMode(display=False) as plain:
        model(*args)
    with torch.no_grad(), FlopCounterMode(display=False) as decomposed:
        decompose_module(model, args, seeds=seeds, outputs=['head'])
    first = (
        2 * 8 * 8 * 9 * 2 * 64
    )  # Of the fusion convolution: 8 to 8 channels, 3 x 3, 2 x 64 cells.
    assert decomposed.get_total_flops() == 4 * plain.get_total_flops() - 2 * first


def test_a_plain_part_of_a_concatenation_may_be_written_to_afterwards():
    constant = torch.ones(2, 1, 6, 6).double()

    def operation(x):
        plain = constant.clone()
        joined = torch.cat([x, plain], 1)
        plain.zero_()
        return joined * 1

    found = one(operation).outputs['']
    assert (found['bias'][:, 4] == 1).all()


def test_a_part_of_a_concatenation_may_be_written_to_afterwards():
    class Two(nn.Module):
        def forward(self, a, b):
            a, b = a * 1, b * 1
            joined = torch.cat([a, b], 1)
            a.zero_()
            b += a
            return joined * 1

    a, b = inputs()
    found = decompose(Two(), a, b, mode='check').outputs['']
    assert torch.equal(found['camera'][:, :4], a)
    assert torch.equal(found['radar'][:, 4:], b)


def test_a_copy_of_a_carried_tensor():
    a, b = inputs()
    found = one(lambda x: copy.deepcopy(x) * 2).outputs['']
    assert torch.equal(found['camera'], 2 * a)
    assert torch.equal(found['radar'], 2 * b)


def test_several_constants_of_one_module_in_frozen_mode():
    class Pair(nn.Module):
        def forward(self, x):
            return Extension.apply(x), Extension.apply(x[:, :1])

    class Model(OneOperation):
        def forward(self, a, b):
            first, second = super().forward(a, b)
            return first + second

    rules = Rules(per_module={'operation': dict(module='constant')})
    base = decompose(Model(Pair()), *inputs(), rules=rules, record=True)
    frozen = decompose(Model(Pair()), *inputs(seed=3), frozen=base.record)
    assert torch.equal(frozen.outputs['']['bias'], base.outputs['']['bias'])


def test_the_documentation_runs(capsys):
    text = (Path(__file__).parents[2] / 'docs/lmd.md').read_text()
    own, names = dict(FUNCTION_RULES), {}
    try:
        for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL)[:2]:
            exec(block, names)
        found = one(torch.fft.fftshift).outputs['']
    finally:
        FUNCTION_RULES.clear()
        FUNCTION_RULES.update(own)
    assert torch.equal(found['camera'], torch.fft.fftshift(inputs()[0]))
    assert 'functional.conv2d' in capsys.readouterr().out
