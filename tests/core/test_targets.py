import pytest

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.structures import ATTRIBUTES
from explain3d.core.targets import PREDEFINED, Target, parse_targets


def test_all_is_the_papers_sum():
    (target,) = parse_targets('all')
    assert target == Target('all', ('x', 'y', 'z', 'l', 'w', 'h', 'yaw', 'score'), 'sum')


def test_all_abs_has_the_same_attributes():
    paper, free = parse_targets(['all', 'all_abs'])
    assert free.attributes == paper.attributes
    assert free.combine == 'abs'


@pytest.mark.parametrize('name', ATTRIBUTES)
def test_every_attribute_is_a_target(name):
    (target,) = parse_targets(name)
    assert (target.name, target.attributes) == (name, (name,))


@pytest.mark.parametrize(
    ('name', 'attributes'),
    [
        ('center', ('x', 'y', 'z')),
        ('size', ('l', 'w', 'h')),
        ('box', ('x', 'y', 'z', 'l', 'w', 'h', 'yaw')),
    ],
)
def test_groups_known_by_name(name, attributes):
    (target,) = parse_targets(name)
    assert target.attributes == attributes


def test_a_dict_is_a_group():
    spec = {'name': 'extent', 'attributes': ['l', 'w', 'h'], 'combine': 'abs'}
    assert parse_targets(spec) == (Target('extent', ('l', 'w', 'h'), 'abs'),)


def test_a_list_inside_the_list_is_a_group_and_the_list_itself_is_not():
    assert parse_targets([['x', 'y', 'z']]) == (Target('x+y+z', ('x', 'y', 'z'), 'sum'),)
    assert [t.name for t in parse_targets(['x', 'y', 'z'])] == ['x', 'y', 'z']


def test_order_is_kept_and_targets_pass_through():
    mine = Target('mine', ('score', 'x'))
    assert [t.name for t in parse_targets(['yaw', mine, 'all'])] == ['yaw', 'mine', 'all']
    assert parse_targets(mine) == (mine,)


def test_predefined_names_are_their_keys():
    assert all(name == target.name for name, target in PREDEFINED.items())


@pytest.mark.parametrize(
    ('spec', 'match'),
    [
        ('scoer', r"Unknown target 'scoer': expected one of \['all', .*Did you mean 'score'\?"),
        ([['x', 'velocity']], r"Unknown attribute of target 'x\+velocity' 'velocity'"),
        ({'attributes': ['x'], 'combine': 'mean'}, r"Unknown combination .* 'mean'.*'abs', 'sum'"),
        ({'attributes': ['x'], 'combined': 'abs'}, r"Unknown key of a target 'combined'"),
    ],
)
def test_unknown_names_list_the_candidates(spec, match):
    with pytest.raises(UnknownNameError, match=match):
        parse_targets(spec)


@pytest.mark.parametrize(
    ('spec', 'match'),
    [
        ([], 'at least one target'),
        (['x', 'all', 'x'], "The list of targets has 'x' twice"),
        ([['x', 'y', 'x']], "has the attribute 'x' twice"),
        ({'name': 'nothing'}, "Target 'nothing' has no attributes"),
        (3, 'received 3 of type int'),
        ([None], 'received None of type NoneType'),
    ],
)
def test_what_cannot_be_a_target_is_refused(spec, match):
    with pytest.raises(InputError, match=match):
        parse_targets(spec)
