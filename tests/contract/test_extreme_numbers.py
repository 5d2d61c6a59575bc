"""Public functions on zeros, the ends of the range, NaN, infinity and nothing at all.

Each gives a finite result, a documented NaN, or one of our errors. Nothing else.
"""

import dataclasses

import numpy as np
import pytest
import torch

from explain3d.core.boxes import bev_corners, bev_iou, box_corners, iou_3d, points_in_boxes
from explain3d.core.errors import Explain3DError, InputError
from explain3d.core.gradients import absolute_sum
from explain3d.core.matching import resolve_thresholds
from explain3d.core.nmf import Factorization, factorize, make_nonnegative
from explain3d.core.normalize import min_max
from explain3d.core.structures import LayerFeatures, VoxelGeometry
from explain3d.core.upsampling import find_neighbours
from explain3d.lmd.components import Components
from explain3d.lmd.shares import energy, mean_parts, shares
from explain3d.lmd.splitting import bias_shares
from explain3d.methods.occam_sampling import fit_density, voxel_counts
from explain3d.metrics.bev_iou import iou
from explain3d.metrics.intervals import bootstrap
from explain3d.metrics.localization import (
    energy_pointing_game,
    explanation_accuracy,
    pointing_game,
)
from explain3d.metrics.map_statistics import gini, rank_correlation, ranks
from explain3d.metrics.removal import area, local_regions, region_radii, removal_ranks
from explain3d.metrics.sanity import jittered, similarity
from explain3d.metrics.separation import mean_squared_error, pearson

M, C = 24, 6
KINDS = ('zeros', 'constant', '1e30', '1e-40', 'range', 'nan', 'inf', 'empty')


def matrix(kind):
    """(M, C) float32 values >= 0 of a kind."""
    values = torch.rand(M, C, generator=torch.Generator().manual_seed(0))
    if kind == 'empty':
        return values[:0]
    if kind in ('nan', 'inf'):
        values[1, 2] = float(kind)
        return values
    if kind == 'range':
        return (values - 0.5).sign() * 3e38
    return {
        'zeros': values * 0,
        'constant': values * 0 + 2,
        '1e30': values * 1e30,
        '1e-40': values * 1e-40,
    }[kind]


def layer():
    place = torch.arange(M)
    coords = torch.stack([place * 0, place // 6, place % 6], 1)
    geometry = VoxelGeometry((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    return LayerFeatures(torch.zeros(M, 1), coords, (1, 4, 6), geometry)


def points():
    return torch.rand(50, 4, generator=torch.Generator().manual_seed(1)) * 4


def table(**options):
    return find_neighbours(points(), layer(), **options)


def boxes(x):
    return torch.cat([x, x[:, :1]], 1)


INSIDE = torch.arange(C)[None] < 3
#: What is called with an (M, C) matrix, and whether its result may be NaN (documented).
FUNCTIONS = {
    'min_max': (min_max, False),
    'make_nonnegative': (make_nonnegative, False),
    'make_nonnegative, shifted': (lambda x: make_nonnegative(x, 'shift'), False),
    'make_nonnegative, clipped': (lambda x: make_nonnegative(x, 'clip'), False),
    **{
        f'factorize, {loss}, {init}': (
            lambda x, loss=loss, init=init: factorize(x, 3, loss=loss, init=init, max_iter=12),
            False,
        )
        for loss in ('frobenius', 'kl')
        for init in ('nndsvd', 'coarse', 'random')
    },
    'factorize, mu': (lambda x: factorize(x, 3, solver='mu', max_iter=12), False),
    'factorize, dictionary': (
        lambda x: factorize(x, 3, W=torch.eye(3, C), fixed=True, max_iter=12),
        False,
    ),
    'factorize, as dictionary': (
        lambda x: factorize(matrix('constant'), M, W=x, fixed=True, max_iter=12),
        False,
    ),
    'NeighbourTable.apply': (lambda x: table().apply(x.T), False),
    'absolute_sum': (lambda x: min_max(absolute_sum(x)[None]), False),
    'gini': (gini, True),
    'ranks': (ranks, False),
    'rank_correlation': (lambda x: rank_correlation(x, x.flip(1)), True),
    'similarity': (lambda x: similarity(x, x.flip(1)), True),
    'pearson': (lambda x: pearson(x, x.flip(1)), True),
    'mean_squared_error': (lambda x: mean_squared_error(x, x.flip(1)), False),
    'explanation_accuracy': (lambda x: explanation_accuracy(x, INSIDE.expand_as(x), [0.5]), False),
    'pointing_game': (lambda x: pointing_game(x, INSIDE.expand_as(x)), False),
    'energy_pointing_game': (lambda x: energy_pointing_game(x, INSIDE.expand_as(x)), False),
    'removal_ranks': (lambda x: removal_ranks(x, INSIDE.expand_as(x)), False),
    'bootstrap': (lambda x: bootstrap(x.flatten().double().numpy(), draws=20), True),
    'bev_corners': (lambda x: bev_corners(boxes(x).double()), False),
    'box_corners': (lambda x: box_corners(boxes(x).double()), False),
    'bev_iou': (lambda x: bev_iou(boxes(x).double(), boxes(x).double()), False),
    'iou_3d': (lambda x: iou_3d(boxes(x).double(), boxes(x).double()), False),
    'points_in_boxes': (lambda x: points_in_boxes(points(), boxes(x)), False),
    'local_regions': (lambda x: local_regions(points(), boxes(x).double()), False),
    'voxel_counts': (lambda x: voxel_counts(x.numpy(), 0.5), False),
    'shares': (lambda x: shares(components(x)), True),
    'mean_parts': (lambda x: mean_parts(components(x), torch.ones(C, dtype=torch.bool)), True),
    'energy': (lambda x: energy(components(x[..., None, None].expand(-1, -1, 2, 2))), True),
    'bias_shares, sum': (lambda x: bias_shares('sum', pair(x), pair(x).sum(0)), False),
    'bias_shares, ratio': (lambda x: bias_shares('ratio', pair(x), pair(x).sum(0)), True),
}  # fmt: skip


def pair(x):
    return x[:2] if len(x) else x.new_zeros(2, 0)


def components(x):
    parts = torch.stack([x, x, x])
    return Components(x, parts, ('camera', 'radar', 'bias'))


def leaves(result):
    if isinstance(result, Factorization):
        result = (*vars(result).values(), *vars(result.normalized()).values())
    if dataclasses.is_dataclass(result):
        result = tuple(vars(result).values())
    if isinstance(result, (tuple, list)):
        for item in result:
            yield from leaves(item)
    elif isinstance(result, (torch.Tensor, np.ndarray, float)):
        yield torch.as_tensor(result, dtype=torch.float64 if isinstance(result, float) else None)


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('name', FUNCTIONS)
def test_results_are_finite_or_an_error_of_ours(name):
    function, may_be_nan = FUNCTIONS[name]
    for kind in KINDS:
        try:
            found = list(leaves(function(matrix(kind))))
        except Explain3DError:
            continue
        for each in found:
            real = each.double()
            assert not real.isinf().any() or kind in ('inf', 'range'), kind
            assert may_be_nan or not real.isnan().any(), kind


@pytest.mark.parametrize('loss', ['frobenius', 'kl'])
def test_factors_do_not_depend_on_the_scale(loss):
    """Maps are equal up to the scale; denormal numbers to their few digits."""
    features = torch.rand(60, 8, generator=torch.Generator().manual_seed(2))
    features = features * (features > 0.3)
    for arguments in (dict(), dict(W=torch.rand(4, 8), fixed=True)):
        usual = factorize(features, 4, loss=loss, **arguments)
        for scale, tolerance in ((2.0**100, 1e-6), (1e30, 1e-3), (1e-30, 1e-3), (1e-39, 2e-2)):
            other = factorize(features * scale, 4, loss=loss, **arguments)
            expected = min_max(usual.normalized().H.sum(1))
            found = min_max(other.normalized().H.sum(1))
            torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
            assert abs(other.residual - usual.residual) < tolerance
    double = factorize(features.double() * 2.0**200, 4, loss=loss)
    power = 2 if loss == 'frobenius' else 1
    usual = factorize(features.double(), 4, loss=loss)
    assert double.objective / 2.0 ** (200 * power) == pytest.approx(usual.objective, rel=1e-9)
    assert double.iterations == usual.iterations


WRONG = {
    'tol': lambda v: factorize(matrix('constant'), 3, tol=v),
    'rank': lambda v: factorize(matrix('constant'), v),
    'max_iter': lambda v: factorize(matrix('constant'), 3, max_iter=v),
    'weights': lambda v: factorize(matrix('constant'), 3, W=torch.full((3, C), float(v))),
    'bandwidth': lambda v: table(mode='gaussian', bandwidth=v),
    'radius': lambda v: table(radius=v),
    'k': lambda v: table(k=v),
    'factor': lambda v: region_radii(boxes(matrix('constant')), v) if v != torch.inf else bad(),
    'threshold': lambda v: explanation_accuracy(matrix('constant'), INSIDE.expand(M, C), [v])
    if v >= 0 or v != v else bad(),
    'deviation': lambda v: jittered(points(), v),
    'level': lambda v: bootstrap([1.0, 2.0], level=v),
    'draws': lambda v: bootstrap([1.0, 2.0], draws=v) if v != torch.inf and v == v else bad(),
    'voxel_size': lambda v: voxel_counts(points().numpy(), v),
    'density': lambda v: fit_density(np.array([v]), np.array([1]), 1.0, 1, (0.1, 1.0)),
    'iou threshold': lambda v: resolve_thresholds(['Car'], v),
}  # fmt: skip


def bad():
    raise InputError('Not a case of this setting.')


@pytest.mark.parametrize('name', WRONG)
def test_settings_that_are_no_number_are_refused(name):
    for value in (torch.nan, -1.0, torch.inf):
        with pytest.raises(InputError, match='.'):
            WRONG[name](value)


def test_what_is_defined_at_the_ends():
    assert area(torch.tensor([1.0, 0.0])) == 0.5
    with pytest.raises(InputError, match='two or more'):
        area(torch.tensor([1.0]))
    with pytest.raises(InputError, match='one or more'):
        explanation_accuracy(matrix('constant'), INSIDE.expand(M, C), [])
    one = bootstrap([0.3])
    assert (one.low, one.mean, one.high, one.groups) == (0.3, 0.3, 0.3, 1)
    assert similarity(torch.zeros(2, 0), torch.zeros(2, 0)).isnan().all()
    assert iou(torch.tensor([0, 0])).isnan()
    assert min_max(torch.tensor([-3e38, 0.0, 3e38])).tolist() == [0.0, 0.5, 1.0]
    assert min_max(torch.tensor([1e-40, 3e-40])).tolist() == [0.0, 1.0]
