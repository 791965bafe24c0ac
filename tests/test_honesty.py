"""What a status promises holds where rounding, offsets and starts work against it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp
from jaxpoly import Status

KEY = jax.random.key(0)
PROBLEM = jp.sample_problem(jax.random.key(1), num_samples=300, dim=20, rank=2)
BUILDERS = [jp.ep_rom, jp.ap_rom, jp.factored_descent]


def recomputed_residual(solution, inputs, targets) -> float:
    inputs, targets, factor, diagonal = (
        np.asarray(array, np.longdouble)
        for array in (inputs, targets, solution.value.factor, solution.value.diagonal)
    )
    intercept = np.longdouble(solution.intercept)
    residual = (inputs @ factor) ** 2 @ diagonal + intercept - targets
    return float(np.sqrt(np.mean(residual**2)) / np.std(targets))


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize(
    ("spread", "offset", "rtol"),
    [(150, 1e8, 1e-3), (2000, 1e8, 1e-3), (240, 1.5 * 2**26, 1e-5), (1, 1e4, 1e-3), (1, 30, 1e-4)],
)
def test_an_offset_of_the_targets_makes_no_false_success(build, spread, offset, rtol):
    # A power of two of samples: the mean then rounds least and hides most.
    problem = jp.sample_problem(jax.random.key(1024), 1024, 20, 2, dtype=jnp.float32)
    inputs, noiseless = np.asarray(problem.lifting.inputs), np.asarray(problem.targets, float)
    targets = np.asarray(noiseless / noiseless.std() * spread + offset, np.float32)
    solution = jp.solve(build(2), jp.Lifting(inputs), targets, KEY, rtol=rtol)
    recomputed = recomputed_residual(solution, inputs, targets)
    assert solution.relative_residual > 0.99 * recomputed
    assert recomputed <= rtol or solution.status != Status.CONVERGED


@pytest.mark.parametrize("build", BUILDERS)
def test_an_offset_costs_no_digits_of_the_matrix(build):
    shifted = PROBLEM.targets + 1e6
    plain = jp.solve(build(2), PROBLEM.lifting, PROBLEM.targets, KEY, rtol=1e-8)
    solution = jp.solve(build(2), PROBLEM.lifting, shifted, KEY, rtol=1e-8)
    assert solution.status == Status.CONVERGED
    assert jp.relative_error(solution.value, plain.value) < 1e-7
    np.testing.assert_allclose(solution.intercept - plain.intercept, 1e6, rtol=1e-9)


@pytest.mark.parametrize("build", BUILDERS)
def test_a_positive_solver_makes_an_indefinite_start_semidefinite(build):
    solver = build(2, positive=True)
    solution = jp.solve(solver, PROBLEM.lifting, PROBLEM.targets, KEY, 50, start=PROBLEM.truth)
    assert jnp.all(jp.eigen_form(solution.value).diagonal >= 0)
    assert solution.status != Status.CONVERGED


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("debias", ["centre", "none", "trace"])
def test_stationary_means_that_no_tangent_direction_lowers_the_residual(build, debias):
    problem = jp.sample_problem(jax.random.key(2), num_samples=300, dim=20, rank=2, noise=2.0)
    solution = jp.solve(build(2, debias=debias), problem.lifting, problem.targets, KEY)
    # The paper's correction has a fixed point that is no optimum of the loss.
    assert (solution.status == Status.STATIONARY) == (debias != "trace")
    inputs, basis = np.asarray(problem.lifting.inputs), np.linalg.qr(solution.value.factor)[0]
    residual = np.asarray(jp.measure(problem.lifting, solution.value) - problem.targets)
    tangents = ((inputs @ basis)[:, :, None] * inputs[:, None, :]).reshape(len(inputs), -1)
    if debias == "centre":
        residual, tangents = residual - residual.mean(), tangents - tangents.mean(axis=0)
    explained = tangents @ np.linalg.lstsq(tangents, residual, rcond=None)[0]
    cosine = np.linalg.norm(explained) / np.linalg.norm(residual)
    assert cosine < 1e-6 or solution.status != Status.STATIONARY


@pytest.mark.parametrize("noise", [1e-3, 3e-3, 1e-2])
def test_noise_near_the_rounding_of_the_dtype_is_no_stall(noise):
    # Relative to y 2e-5 and up. A gradient is known to `eps / relative residual`.
    draw = partial(jp.sample_problem, num_samples=600, dim=20, rank=2, dtype=jnp.float32)
    data = jax.vmap(partial(draw, noise=noise))(jax.random.split(KEY, 20))

    def status(problem):
        solver = jp.factored_descent(2)
        return jp.solve(solver, problem.lifting, problem.targets, KEY).status

    assert (jax.lax.map(status, data) == Status.STATIONARY).sum() >= 17


def test_weights_known_outside_a_trace_are_checked_inside_it():
    lifting = jp.Lifting(PROBLEM.lifting.inputs, jnp.ones(300))
    solve = jax.jit(lambda y: jp.solve(jp.ap_rom(2), lifting, y, KEY).status)
    assert solve(PROBLEM.targets) == Status.CONVERGED
    statuses = jax.lax.map(solve, PROBLEM.targets[None])
    assert statuses.tolist() == [Status.CONVERGED]
    negative = jp.Lifting(PROBLEM.lifting.inputs, jnp.ones(300).at[0].set(-1.0))
    with pytest.raises(ValueError, match="negative"):
        jax.jit(lambda y: jp.solve(jp.ap_rom(2), negative, y, KEY))(PROBLEM.targets)


@pytest.mark.parametrize("weight", [1e300, 1e-300])
def test_the_size_of_the_weights_does_not_matter(weight):
    lifting = jp.Lifting(PROBLEM.lifting.inputs, jnp.full(300, weight))
    assert jp.solve(jp.ap_rom(2), lifting, PROBLEM.targets, KEY).status == Status.CONVERGED


def test_small_positive_eigenvalues_are_found_behind_many_large_negative_ones():
    diagonal = jnp.concatenate([jnp.full(17, -5.0), jnp.array([1.0, 0.5, 0.2])])
    threshold, basis = jp.SubspaceThreshold(3, positive=True), None
    for seed in range(8):
        low_rank, basis = threshold(
            lambda block: diagonal[:, None] * block, 20, jax.random.key(seed), basis
        )
    np.testing.assert_allclose(low_rank.diagonal, [1.0, 0.5, 0.2], rtol=1e-6)


REFUSED = {
    "complex step": (lambda: jp.ap_rom(2, step_size=jnp.array(1 + 2j)), TypeError, "step_size"),
    "negative step": (lambda: jp.ap_rom(2, step_size=jnp.array(-1.0)), ValueError, "step_size"),
    "text as rtol": (lambda: solve(rtol="a"), TypeError, "rtol is 'a'"),
    "complex rtol": (lambda: solve(rtol=1j), TypeError, "rtol is 1j"),
    "two rtols": (lambda: solve(rtol=np.ones(2)), TypeError, "expected one real number"),
    "NaN array as rtol": (lambda: solve(rtol=jnp.array(jnp.nan)), ValueError, "rtol is nan"),
    "two max_steps": (lambda: solve(max_steps=jnp.arange(2)), ValueError, "max_steps has shape"),
    "a solver class": (lambda: solve(solver=jp.ApRom), TypeError, "solver is .*expected a solver"),
    "another debias": (
        lambda: jp.gradient_map(PROBLEM.lifting, PROBLEM.targets, "centered"),
        ValueError,
        "debias is 'centered'",
    ),
    "a short residual": (
        lambda: jp.dense_gradient(PROBLEM.lifting, np.ones(7)),
        ValueError,
        "residual has length 7",
    ),
    "negative noise": (lambda: jp.sample_problem(KEY, 9, 4, 2, noise=-1.0), ValueError, "noise"),
    "condition below 1": (lambda: jp.sample_truth(KEY, 4, 2, condition=0.1), ValueError, "condit"),
    "negative spectrum": (
        lambda: jp.sample_truth(KEY, 4, 2, spectrum=[1.0, -1.0]),
        ValueError,
        "spectrum",
    ),
    "matrices of two sizes": (
        lambda: jp.relative_error(PROBLEM.truth, jp.sample_truth(KEY, 4, 2)),
        ValueError,
        "the same number of rows",
    ),
    "an array as a truth": (
        lambda: jp.spectral_error(PROBLEM.truth, np.eye(20)),
        TypeError,
        "truth is a ndarray",
    ),
    "an array as a network": (
        lambda: jp.QuadraticNetwork.from_low_rank(np.eye(3)),
        TypeError,
        "low_rank is a ndarray",
    ),
}


def solve(solver=None, **options):
    solver = jp.ap_rom(2) if solver is None else solver
    return jp.solve(solver, PROBLEM.lifting, PROBLEM.targets, KEY, **options)


@pytest.mark.parametrize(("call", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_more_steps_than_an_int32_holds_are_as_many_as_it_does():
    data = PROBLEM.lifting, PROBLEM.targets
    run = jp.advance(jp.ap_rom(2), *data, jp.init_run(jp.ap_rom(2), *data, KEY), 3)
    run = jp.advance(jp.ap_rom(2), *data, run, 10**12)
    assert jp.finish(run).status == Status.CONVERGED
