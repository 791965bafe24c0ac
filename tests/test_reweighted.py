"""The reweighted start finds what few samples allow, and obeys the laws of a JAX program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp

DIM, RANK = 12, 2
# A quarter more samples than unknowns.
NUM_SAMPLES = 30
start_of = jax.jit(jp.reweighted_start, static_argnames=("rank", "num_steps"))


def problem(seed: int, dtype=jnp.float64) -> jp.Problem:
    return jp.sample_problem(jax.random.key(seed), NUM_SAMPLES, DIM, RANK, dtype=dtype)


def error(estimate: jp.LowRank, truth: jp.LowRank) -> float:
    return float(jp.relative_error(estimate, truth))


def test_it_finds_networks_where_the_spectral_start_often_fails():
    reweighted, spectral = [], []
    for seed in range(12):
        lifting, targets, truth = problem(seed)
        reweighted.append(error(start_of(lifting, targets, rank=RANK), truth) < 1e-3)
        solution = jp.solve(jp.gauss_newton(RANK), lifting, targets, jax.random.key(1))
        spectral.append(error(solution.value, truth) < 1e-3)
    assert np.mean(reweighted) >= 0.9
    assert np.mean(spectral) <= 0.75


def test_rows_of_zero_weight_change_nothing():
    lifting, targets, _ = problem(0)
    junk = jax.random.normal(jax.random.key(9), (10, DIM))
    padded = jp.Lifting(
        jnp.concatenate([lifting.inputs, 1e3 * junk]),
        jnp.concatenate([jnp.ones(NUM_SAMPLES), jnp.zeros(10)]),
    )
    longer = jnp.concatenate([targets, jnp.full(10, 1e6)])
    plain = start_of(lifting, targets, rank=RANK)
    assert error(start_of(padded, longer, rank=RANK), plain) < 1e-6


def test_scaling_targets_or_inputs_scales_the_start_and_an_offset_does_not_matter():
    lifting, targets, _ = problem(1)
    plain = start_of(lifting, targets, rank=RANK)
    for target_scale, input_scale in ((1e-12, 1), (1e12, 1), (1, 1e-6), (1, 1e6)):
        scaled = jp.Lifting(input_scale * lifting.inputs)
        found = start_of(scaled, target_scale * targets, rank=RANK)
        assert error(jp.lowrank.scale(found, input_scale**2 / target_scale), plain) < 1e-6
    assert error(start_of(lifting, targets + 100, rank=RANK), plain) < 1e-6


def test_float32_stays_finite_and_float32():
    for seed in range(3):
        lifting, targets, truth = problem(seed, jnp.float32)
        found = start_of(lifting, targets, rank=RANK)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
        assert error(found, truth) < 0.1


@pytest.mark.parametrize("targets", [0.0, jnp.nan])
def test_targets_without_anything_to_fit_end_soon(targets):
    lifting, like, _ = problem(0)
    found = start_of(lifting, jnp.full_like(like, targets), rank=RANK)
    assert np.all(np.asarray(found.diagonal) == 0)


def test_keys_give_different_starts_and_the_same_key_the_same():
    lifting, targets, _ = problem(2)

    def early(key):
        return start_of(lifting, targets, rank=RANK, key=key, num_steps=2)

    one, other, again = early(jax.random.key(1)), early(jax.random.key(2)), early(jax.random.key(1))
    assert error(one, other) > 0.01
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, again))


def test_a_vmapped_start_equals_the_loop():
    problems = [problem(seed) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    together = jax.vmap(lambda lifting, y: jp.reweighted_start(lifting, y, RANK))(*batch[:2])
    for lane, (lifting, targets, _) in enumerate(problems):
        alone = start_of(lifting, targets, rank=RANK)
        assert error(jax.tree.map(lambda leaf, i=lane: leaf[i], together), alone) < 1e-6


def test_linear_terms_are_fitted_on_the_way():
    lifting, targets, truth = jp.sample_problem(jax.random.key(0), 60, DIM, RANK)
    targets = targets + lifting.inputs @ jnp.arange(float(DIM))
    assert error(start_of(jp.with_linear_terms(lifting), targets, rank=RANK), truth) < 1e-3
