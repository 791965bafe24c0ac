"""Whitening has an exact way back, and linear terms are fitted exactly by every solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxpoly as jp
from jaxpoly.inputs import to_whitened
from jaxpoly.lifting import centre, fitted_affine

KEY = jax.random.key(7)
M, P = 60, 8
SLOWLY = ["ep_rom", "factored"]


def normal(seed: int = 0, shape: tuple[int, ...] = (M, P)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def with_odd_columns() -> np.ndarray:
    inputs = normal()
    inputs[:, 1], inputs[:, 2], inputs[:, 4] = 0.3, 0.0, inputs[:, 3]
    return inputs


def with_junk_rows() -> np.ndarray:
    inputs = normal()
    inputs[:10] *= 1e3
    return inputs


# Inputs, weights, and the relative error of predictions that rounding explains: a shift by
# s standard deviations costs s^2 eps, since predictions are differences of terms of that size.
UNEQUAL = np.random.default_rng(3).uniform(0.1, 2.0, M)
TABLES = {
    "isotropic": (normal, None, 1e-14),
    "correlated": (lambda: normal() @ normal(1, (P, P)), None, 1e-13),
    "ill-conditioned": (
        lambda: normal() @ np.diag(10.0 ** -np.linspace(0, 6, P)) @ normal(1, (P, P)),
        None,
        1e-8,
    ),
    "shifted by 100": (lambda: normal() + 100, None, 1e-10),
    "scaled from 1e-8 to 1e8": (lambda: normal() * 10.0 ** np.linspace(-8, 8, P), None, 1e-13),
    "constant, zero and duplicate columns": (with_odd_columns, None, 1e-13),
    "weighted": (normal, UNEQUAL, 1e-13),
    "junk in rows of zero weight": (with_junk_rows, UNEQUAL * (np.arange(M) >= 10), 1e-12),
    "fewer samples than columns": (lambda: normal()[:5], None, 1e-13),
    "one sample": (lambda: normal()[:1], None, 1e-13),
    "zeros": (lambda: np.zeros((M, P)), None, 0.0),
}


def fit(dtype=jnp.float64) -> tuple[jp.LowRank, jax.Array, jax.Array]:
    factor, linear = (
        jnp.asarray(normal(seed, shape), dtype) for seed, shape in ((5, (P, 2)), (6, P))
    )
    return jp.LowRank(factor, jnp.array([1.0, -0.5], dtype)), linear, jnp.asarray(0.3, dtype)


def predict(inputs, low_rank, linear, intercept) -> np.ndarray:
    """Predictions of a fit by numpy in extended precision."""
    wide = (np.asarray(array, np.longdouble) for array in jax.tree.leaves((inputs, low_rank)))
    inputs, factor, diagonal = wide
    linear, intercept = (np.asarray(array, np.longdouble) for array in (linear, intercept))
    return (inputs @ factor) ** 2 @ diagonal + inputs @ linear + intercept


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("draw", "weight", "tolerance"), TABLES.values(), ids=TABLES)
def test_predictions_survive_the_way_to_whitened_inputs_and_back(
    draw, weight, tolerance, centred, dtype
):
    inputs = jnp.asarray(draw(), dtype)
    weight = None if weight is None else jnp.asarray(weight, dtype)
    whitening, whitened = jp.whiten(jp.Lifting(inputs, weight), centred)
    parts = fit(dtype)
    before = predict(whitened.inputs, *parts)
    restored = jp.restore(whitening, *parts)
    after = predict(inputs, *restored)
    assert {leaf.dtype for leaf in jax.tree.leaves((restored, whitened.inputs))} == {
        jnp.dtype(dtype)
    }
    slack = float(jnp.finfo(dtype).eps / jnp.finfo(jnp.float64).eps)
    if dtype == jnp.float32 and tolerance * slack > 1e-2:
        # Six digits of condition and a shift are all that float32 has: finite will do.
        assert np.all(np.isfinite(after))
        return
    size = float(np.max(np.abs(before)))
    assert_allclose(np.asarray(after - before, float), 0, atol=tolerance * slack * size)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("draw", "weight", "tolerance"), TABLES.values(), ids=TABLES)
def test_whitened_inputs_are_uncorrelated_and_no_larger_than_they_should_be(
    draw, weight, tolerance, centred
):
    inputs = jnp.asarray(draw())
    given = None if weight is None else jnp.asarray(weight)
    _, whitened = jp.whiten(jp.Lifting(inputs, given), centred)
    z, share = np.asarray(whitened.inputs), np.ones(len(inputs)) if weight is None else weight
    moments = (z.T * (share / share.sum())) @ z
    scale = max(np.max(np.abs(moments)), 1e-300)
    assert_allclose(moments - np.diag(np.diag(moments)), 0, atol=1e-6 * scale)
    assert np.all(np.diag(moments) < P)
    if centred:
        assert_allclose((share / share.sum()) @ z, 0, atol=1e-7)
    if len(inputs) == M and tolerance > 0:
        # Shrinkage takes something off the spread of sixty samples, not more.
        kept = np.diag(moments)[np.diag(moments) > 0]
        assert len(kept) >= P - 3
        assert kept[-1] > 0.5


@pytest.mark.parametrize("num_samples", [55, 100, 400])
def test_isotropic_inputs_are_left_nearly_alone_also_where_samples_are_few(num_samples):
    inputs = normal(2, (num_samples, 50))
    whitening, _ = jp.whiten(jp.Lifting(jnp.asarray(inputs)), centred=False)
    singular = np.linalg.svd(np.asarray(whitening.transform), compute_uv=False)
    assert 1.5 > singular[0] >= singular[-1] > 0.7


def test_the_way_back_from_restored_matrices_is_the_former_matrix():
    whitening, _ = jp.whiten(jp.Lifting(jnp.asarray(normal() @ normal(1, (P, P)))), centred=True)
    low_rank, linear, intercept = fit()
    restored, _, _ = jp.restore(whitening, low_rank, linear, intercept)
    assert jp.relative_error(to_whitened(whitening, restored), low_rank) < 1e-12


@pytest.mark.parametrize(("draw", "weight", "tolerance"), TABLES.values(), ids=TABLES)
def test_the_affine_projection_is_that_of_lstsq_on_one_and_x(draw, weight, tolerance):
    inputs = draw()
    share = np.ones(len(inputs)) if weight is None else weight
    values = normal(4, (len(inputs),))
    lifting = jp.with_linear_terms(
        jp.Lifting(jnp.asarray(inputs), None if weight is None else jnp.asarray(weight))
    )
    # Columns at unit scale, which spans the same: lstsq truncates by size.
    unit = inputs - np.average(inputs, axis=0, weights=share)
    spread = np.sqrt(np.average(unit**2, axis=0, weights=share))
    unit = unit / np.where(spread > 1e-14 * np.max(np.abs(inputs), axis=0), spread, np.inf)
    design = np.sqrt(share)[:, None] * np.hstack([np.ones((len(inputs), 1)), unit])
    coefficients = np.linalg.lstsq(design, np.sqrt(share) * values, rcond=1e-12)[0]
    expected = values - np.hstack([np.ones((len(inputs), 1)), unit]) @ coefficients
    left = centre(lifting, jnp.asarray(values), "centre")
    counted = share > 0
    assert_allclose(np.asarray(left)[counted], expected[counted], atol=max(1e3 * tolerance, 1e-12))
    intercept, linear = fitted_affine(lifting, jnp.asarray(values), "centre")
    assert_allclose(left, values + inputs @ np.asarray(linear) + intercept, atol=1e-8)


@pytest.mark.parametrize(
    "solver",
    ["ap_rom", "gauss_newton", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOWLY)],
    indirect=True,
)
def test_every_solver_recovers_quadratic_and_linear_terms_exactly(solver):
    mixing = np.eye(16) + 0.1 * normal(1, (16, 16))
    inputs = jnp.asarray(normal(0, (200, 16)) @ mixing + 0.5)
    truth = jp.sample_truth(jax.random.key(1), 16, 2)
    linear = jnp.asarray(normal(2, (16,)) * 5)
    targets = jp.measure(jp.Lifting(inputs), truth) + inputs @ linear + 7.0
    lifting = jp.with_linear_terms(jp.Lifting(inputs))
    solution = jp.solve(solver, lifting, targets, KEY, 2000, 1e-9)
    assert solution.status == jp.Status.CONVERGED
    assert jp.relative_error(solution.value, truth) < 1e-7
    assert_allclose(solution.linear, linear, atol=1e-5)
    assert_allclose(solution.intercept, 7.0, atol=1e-5)
    targets_of_lines = inputs @ linear + 7.0
    pure = jp.solve(solver, lifting, targets_of_lines, KEY, 2000, 1e-9)
    assert pure.status == jp.Status.DEGENERATE
    assert np.all(np.asarray(pure.value.diagonal) == 0)
    assert_allclose(pure.linear, linear, atol=1e-11)
    assert_allclose(pure.intercept, 7.0, atol=1e-11)


def test_a_ridge_on_linear_terms_shrinks_them_as_ridge_regression_does():
    inputs, values = normal(), normal(4, (M,))
    lifting = jp.with_linear_terms(jp.Lifting(jnp.asarray(inputs)), 0.5)
    _, linear = fitted_affine(lifting, -jnp.asarray(values), "centre")
    centred = inputs - inputs.mean(axis=0)
    covariance = centred.T @ centred / M
    slopes = np.linalg.solve(covariance * 1.5, centred.T @ (values - values.mean()) / M)
    assert_allclose(linear, slopes, rtol=1e-9)


def test_linear_terms_need_a_fitted_intercept():
    lifting = jp.with_linear_terms(jp.Lifting(jnp.asarray(normal())))
    for debias in ("trace", "none"):
        with pytest.raises(ValueError, match="linear terms but the solver has debias"):
            jp.solve(jp.ap_rom(2, debias=debias), lifting, jnp.ones(M), KEY)
    with pytest.raises(ValueError, match="ridge is -1"):
        jp.with_linear_terms(lifting, -1)
