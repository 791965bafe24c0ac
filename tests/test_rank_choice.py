"""The rank is found by cross-validation, and its curve is told."""

import jax
import pytest

import jaxpoly as jp
from jaxpoly.rank_choice import choose_rank, largest_rank, rank_curve

KEY = jax.random.key(1)
M, P, RANK = 120, 10, 2


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_cross_validation_finds_the_rank(noise):
    # What `recover` tries at this size, so that one program serves the test below too.
    largest = largest_rank(M, P)
    solver = jp.gauss_newton(largest, ridge=0.0)
    for rank in (1, 2, 3):
        data = jp.sample_problem(jax.random.key(rank), M, P, rank, noise=noise)
        curve = rank_curve(solver, data.lifting, data.targets, KEY, largest, False)
        assert choose_rank(curve, 1e-14) == rank
        assert curve.error[0] > 0.5


def test_an_automatic_rank_comes_with_its_curve():
    data = jp.sample_problem(jax.random.key(0), M, P, RANK)
    solution = jp.recover(data.lifting.inputs, data.targets, "auto", key=KEY)
    assert solution.value.diagonal.shape == (RANK,)
    assert jp.relative_error(solution.value, data.truth) < 1e-12
    assert solution.rank_curve.ranks.shape == solution.rank_curve.error.shape
