"""Laws of a JAX program that every solver obeys: transformations, traces, types, padding."""

import dataclasses
from collections import Counter
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpoly as jp
from jaxpoly.driver import _solve

KEY = jax.random.PRNGKey(7)
only = partial(pytest.mark.parametrize, "solver", indirect=True)
slow = partial(pytest.param, marks=pytest.mark.slow)
DEFAULTS = ["ep_rom", "ap_rom", "factored"]
NUMBERED = ["ep_rom fixed", "factored adam", "gauss_newton", slow("factored momentum")]
DIFFERENT = [*DEFAULTS, "gauss_newton", "ap_rom krylov", "ep_rom fixed", "factored adam"]
# Compilation of a vmapped solve takes seconds.
VMAPPED_SLOWLY = ["ep_rom", "ap_rom", "ap_rom krylov", "ap_rom positive", "factored adam"]
VMAPPED_SLOWLY += ["gauss_newton"]
DTYPES = [jnp.float32, jnp.float64]


def typed_key(seed: int = 7) -> jax.Array:
    return jax.random.key(seed)


def assert_same_matrix(left: jp.LowRank, right: jp.LowRank, tolerance: float) -> None:
    """Eigenvectors may differ in sign and order; L may not."""
    left, right = np.asarray(jp.to_dense(left)), np.asarray(jp.to_dense(right))
    assert np.linalg.norm(left - right) <= tolerance * np.linalg.norm(right)


def numbered(solver, number):
    """The solver with its free numbers set: a step size, or ridge and active rank."""
    if isinstance(solver, jp.GaussNewton):
        return dataclasses.replace(solver, ridge=number, active_rank=1 + int(number < 0.15))
    return dataclasses.replace(solver, step_size=number)


def numbers(solver) -> list:
    if isinstance(solver, jp.GaussNewton):
        given = [solver.ridge, solver.active_rank]
    else:
        given = [solver.step_size]
    return [number for number in given if number is not None]


def shapes(tree):
    """The tree with every leaf replaced by what a loop wants unchanged."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


@only([*DEFAULTS, *map(slow, DIFFERENT[3:])])
def test_init_and_step_called_eagerly_equal_the_jitted_ones(solver, planted, jit_init, jit_step):
    lifting, targets, _ = planted()
    eager = solver.init(lifting, targets, typed_key())
    jitted = jit_init(solver, lifting, targets, typed_key())
    for _ in range(3):
        assert_same_matrix(eager.estimate, jitted.estimate, 1e-10)
        np.testing.assert_allclose(eager.residual, jitted.residual, rtol=0, atol=1e-8)
        np.testing.assert_allclose(eager.step_size, jitted.step_size, rtol=1e-8)
        np.testing.assert_allclose(eager.stationarity, jitted.stationarity, rtol=1e-8)
        assert jnp.array_equal(jax.random.key_data(eager.key), jax.random.key_data(jitted.key))
        eager = solver.step(lifting, targets, eager)
        jitted = jit_step(solver, lifting, targets, jitted)


@only(["ep_rom fixed", "factored", *map(slow, VMAPPED_SLOWLY)])
def test_a_vmapped_solve_over_data_weights_keys_and_steps_equals_the_loop(solver, planted):
    problems = [planted(seed, num_samples) for seed, num_samples in enumerate((120, 160, 200))]
    keys = jax.random.split(typed_key(), 3)
    limits = {"max_steps": 60, "rtol": 1e-3}
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    solvers = [solver] * 3
    if numbers(solver):
        largest = 0.2 if isinstance(solver, jp.GaussNewton) else solver.step_size
        steps = largest * np.array([0.5, 0.8, 1.0])
        solvers = [numbered(solver, step) for step in steps.tolist()]

    @jax.jit
    @jax.vmap
    def solve(solver, problem, key):
        return jp.solve(solver, *problem[:2], key, **limits)

    together = solve(jax.tree.map(lambda *steps: jnp.array(steps), *solvers), batch, keys)
    for lane, problem in enumerate(problems):
        alone = jp.solve(solvers[lane], *problem[:2], keys[lane], **limits)
        in_batch = jax.tree.map(itemgetter(lane), together)
        assert_same_matrix(in_batch.value, alone.value, 1e-7)
        assert in_batch.status == alone.status
        np.testing.assert_allclose(in_batch.relative_residual, alone.relative_residual, rtol=1e-6)


@only(["ap_rom", *map(slow, DEFAULTS[::2])])
def test_several_targets_vmapped_over_shared_inputs_equal_the_loop(solver, planted):
    lifting, first, _ = planted()
    truths = [planted(seed).truth for seed in (4, 5)]
    targets = jnp.stack([first, *(jp.measure(lifting, truth) for truth in truths)])
    together = jax.vmap(lambda y: jp.solve(solver, lifting, y, typed_key(), 30))(targets)
    for lane, y in enumerate(targets):
        alone = jp.solve(solver, lifting, y, typed_key(), 30)
        in_batch = jax.tree.map(itemgetter(lane), together)
        assert_same_matrix(in_batch.value, alone.value, 1e-7)
        np.testing.assert_allclose(in_batch.relative_residual, alone.relative_residual, rtol=1e-6)


def test_many_step_sizes_tolerances_and_step_limits_are_one_trace(solver, planted):
    lifting, targets, _ = planted()
    traces = Counter()

    @jax.jit
    def solve(solver, lifting, targets, key, max_steps, rtol):
        traces["solve"] += 1
        return jp.solve(solver, lifting, targets, key, max_steps, rtol)

    for step_size, max_steps, rtol in ((0.1, 5, 1e-3), (0.2, 6, 1e-4), (1e-9, 0, 0.0)):
        solve.trace(numbered(solver, step_size), lifting, targets, typed_key(), max_steps, rtol)
    assert traces["solve"] == 1


@only(DIFFERENT)
def test_the_eager_solve_compiles_once_for_all_limits_sizes_and_scales(solver, planted):
    jp.solve(solver, *planted()[:2], typed_key(), 3)
    compiled = _solve._cache_size()
    for seed, (max_steps, rtol) in enumerate(((1, 1e-3), (7, 1e-1), (0, None), (4, 0.0))):
        problem = planted(seed, num_samples=100 + 20 * seed)
        jp.solve(solver, *problem[:2], typed_key(seed), max_steps, rtol)
    assert _solve._cache_size() == compiled


@only(NUMBERED)
def test_the_eager_solve_compiles_once_for_many_numbers_of_the_solver(solver, planted):
    jp.solve(numbered(solver, 0.2), *planted()[:2], typed_key(), 3)
    compiled = _solve._cache_size()
    for number in (0.01, 0.1, 0.3):
        jp.solve(numbered(solver, number), *planted()[:2], typed_key(), 3)
    assert _solve._cache_size() == compiled


def refill(problem: jp.Problem, input_scale: float, target: float) -> jp.Problem:
    """Write other numbers in the rows of zero weight."""
    lifting, targets, truth = problem
    off = lifting.sample_weight == 0
    inputs = jnp.where(off[:, None], input_scale * lifting.inputs[::-1], lifting.inputs)
    targets = jnp.where(off, jnp.asarray(target, targets.dtype), targets)
    return jp.Problem(jp.Lifting(inputs, lifting.sample_weight), targets, truth)


@pytest.mark.parametrize(("input_scale", "target"), [(0.0, 0.0), (1e3, 1e6), (1.0, 1e200)])
def test_rows_of_zero_weight_have_no_influence(solver, planted, input_scale, target):
    problem = planted(seed=3)
    other = refill(problem, input_scale, target)
    # Rounding may end a run a step earlier or later: at the end, L agrees as far as rtol asks.
    for max_steps, tolerance in ((5, 1e-8), (300, 1e-5)):
        limits = {"max_steps": max_steps, "rtol": 1e-6}
        plain = jp.solve(solver, *problem[:2], typed_key(), **limits)
        refilled = jp.solve(solver, *other[:2], typed_key(), **limits)
        assert refilled.status == plain.status
        assert_same_matrix(refilled.value, plain.value, tolerance)


@only(["ap_rom", "factored", slow("gauss_newton")])
def test_padding_with_zero_weight_equals_leaving_the_rows_out(solver, planted):
    lifting, targets, _ = planted(seed=3, num_samples=160)
    short = jp.Lifting(lifting.inputs[:160])
    for max_steps, tolerance in ((5, 1e-8), (300, 1e-5)):
        limits = {"max_steps": max_steps, "rtol": 1e-6}
        padded = jp.solve(solver, lifting, targets, typed_key(), **limits)
        left_out = jp.solve(solver, short, targets[:160], typed_key(), **limits)
        assert_same_matrix(padded.value, left_out.value, tolerance)
        np.testing.assert_allclose(padded.intercept, left_out.intercept, atol=10 * tolerance)
        residuals = padded.relative_residual, left_out.relative_residual
        np.testing.assert_allclose(*residuals, rtol=1e-6, atol=1e-6 if max_steps > 5 else 0)
        assert padded.status == left_out.status
        assert padded.underdetermined == left_out.underdetermined


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_and_its_successor_are_interchangeable(solver, planted, dtype):
    lifting, targets, truth = planted(dtype=dtype)

    def chain(solver, targets):
        first = solver.init(lifting, targets, typed_key())
        second = solver.step(lifting, targets, first)
        chosen = jax.lax.cond(targets[0] > 0, lambda: first, lambda: second)
        last, _ = jax.lax.scan(
            lambda state, _: (solver.step(lifting, targets, state), None), chosen, length=2
        )
        return first, second, last, solver.init(lifting, targets, typed_key(), truth)

    variants = [solver]
    if numbers(solver):
        variants += [numbered(solver, step) for step in (0.1, np.float64(0.1), jnp.float32(0.1))]
    for variant in variants:
        first, *others = map(shapes, jax.eval_shape(chain, variant, targets))
        assert all(other == first for other in others)
        assert not any(weak for _, _, weak in jax.tree.leaves(first, is_leaf=_is_shape))


def _is_shape(leaf) -> bool:
    return isinstance(leaf, tuple) and len(leaf) == 3 and isinstance(leaf[2], bool)


@pytest.mark.parametrize("number", [None, np.float64(0.1)])
@only([*DEFAULTS, "gauss_newton", "ap_rom krylov", slow("factored momentum")])
def test_float32_data_give_float32_everywhere_although_x64_is_on(solver, planted, number):
    if number is not None:
        solver = numbered(solver, number)
    lifting, targets, truth = planted(dtype=jnp.float32)
    wide = jp.LowRank(truth.factor.astype(jnp.float64), truth.diagonal.astype(jnp.float64))
    for start in (None, wide):
        for entry in (jp.solve, jp.trajectory):
            result = jax.eval_shape(partial(entry, start=start), solver, lifting, targets, KEY)
            numeric = [x for x in jax.tree.leaves(result) if jnp.issubdtype(x.dtype, jnp.floating)]
            assert {x.dtype for x in numeric} == {jnp.dtype("float32")}


def test_no_tracer_leaks_out_of_a_solve(solver, planted):
    lifting, targets, _ = planted()
    with jax.checking_leaks():
        jax.eval_shape(partial(jp.solve, solver), lifting, targets, typed_key())
        jax.eval_shape(partial(jp.trajectory, solver), lifting, targets, typed_key())


@only(DIFFERENT)
def test_old_and_new_keys_give_the_same_result_and_so_does_the_same_key_twice(solver, planted):
    lifting, targets, _ = planted()
    old, new, again = (
        jp.solve(solver, lifting, targets, key, 10) for key in (KEY, typed_key(), typed_key())
    )
    for other in (old, again):
        assert jax.tree.all(jax.tree.map(jnp.array_equal, other, new))


def test_numbers_of_a_solver_are_leaves_and_its_structure_compares_by_value(solver):
    leaves, structure = jax.tree.flatten(solver)
    assert leaves == numbers(solver)
    assert jax.tree.unflatten(structure, leaves) == solver
    assert hash(solver) == hash(dataclasses.replace(solver))
    stepped = [numbered(solver, step) for step in (0.1, 0.2, jnp.ones(()))]
    assert len({jax.tree.structure(variant) for variant in stepped}) == 1
    twin = jax.tree.structure(dataclasses.replace(solver))
    assert (twin, hash(twin)) == (structure, hash(structure))


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (jp.ep_rom, [{"rank": 3}, {"debias": "none"}, {"positive": True}]),
        (jp.ap_rom, [{"rank": 3}, {"head": "krylov"}, {"depth": 2}, {"positive": True}]),
        (jp.factored_descent, [{"rank": 3}, {"step_size": 0.1, "optimizer": optax.adam}]),
        (jp.gauss_newton, [{"rank": 3}, {"debias": "none"}, {"active_rank": 1}]),
    ],
)
def test_solvers_of_different_structure_have_different_trees(build, changes):
    structures = [jax.tree.structure(build(**{"rank": 2, **change})) for change in [{}, *changes]]
    assert len(set(structures)) == len(structures)
