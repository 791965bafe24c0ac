"""Low-rank matrices: every operation equals the dense one, and truncation is optimal."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxpoly import lowrank, sample_truth
from jaxpoly.lowrank import LowRank, to_dense

# Compiled as a whole, which is much faster than operation by operation.
eigen_form = jax.jit(lowrank.eigen_form, static_argnames=("rank", "positive"))
truncate_matrix = jax.jit(lowrank.truncate_matrix, static_argnames=("rank", "positive"))
EPS = np.finfo(np.float64).eps
SHAPES = [(1, 1), (6, 3), (3, 7)]


@partial(jax.jit, static_argnames=("dim", "rank", "dtype"))
def random_low_rank(seed, dim, rank, dtype=jnp.float64):
    factor_key, diagonal_key = jax.random.split(jax.random.key(seed))
    return LowRank(
        jax.random.normal(factor_key, (dim, rank), dtype),
        jax.random.normal(diagonal_key, (rank,), dtype),
    )


def dense(low_rank):
    factor, diagonal = np.asarray(low_rank.factor), np.asarray(low_rank.diagonal)
    return np.einsum("ij,j,kj->ik", factor, diagonal, factor)


def orthonormality(factor):
    """Return the largest entry of |F^T F - I| in units of p eps."""
    factor = np.asarray(factor)
    gram = factor.T @ factor
    return np.abs(gram - np.eye(len(gram))).max() / (len(factor) * np.finfo(factor.dtype).eps)


@pytest.mark.parametrize(("dim", "rank"), SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_linear_algebra_equals_that_of_the_dense_matrix(seed, dim, rank):
    left, right = random_low_rank(seed, dim, rank), random_low_rank(seed + 10, dim, 2)
    block = np.random.default_rng(seed).normal(size=(dim, 3))
    a, b = dense(left), dense(right)
    expected = [
        a,
        a @ block,
        -2.5 * a,
        a + b,
        np.trace(a),
        np.sum(a * b),
        np.linalg.norm(a),
    ]
    for found, wanted in zip(algebra(left, right, block), expected, strict=True):
        assert found.shape == np.shape(wanted)
        assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@jax.jit
def algebra(left, right, block):
    return (
        to_dense(left),
        lowrank.apply(left, block),
        to_dense(lowrank.scale(left, -2.5)),
        to_dense(lowrank.add(left, right)),
        lowrank.trace(left),
        lowrank.inner(left, right),
        lowrank.norm(left),
    )


def test_zeros_is_the_zero_matrix_of_the_dtype_asked():
    zero = lowrank.zeros(4, 2, jnp.float32)
    assert zero.factor.shape == (4, 2)
    assert zero.diagonal.shape == (2,)
    assert zero.factor.dtype == zero.diagonal.dtype == jnp.float32
    assert not np.any(to_dense(zero))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("dim", "rank"), SHAPES)
def test_core_is_an_orthonormal_basis_and_the_matrix_in_it(dim, rank, dtype):
    low_rank = random_low_rank(3, dim, rank, dtype)
    basis, small = jax.jit(lowrank.core)(low_rank)
    eps = jnp.finfo(dtype).eps
    assert basis.shape == (dim, min(dim, rank))
    assert basis.dtype == small.dtype == dtype
    assert orthonormality(basis) < 10
    expected = dense(low_rank)
    assert_allclose(
        np.linalg.multi_dot([basis, small, basis.T]),
        expected,
        rtol=0,
        atol=50 * eps * np.abs(expected).max(),
    )


@pytest.mark.parametrize("distance", [1e-4, 1e-8, 1e-12])
def test_norm_of_a_difference_keeps_its_digits_under_cancellation(distance):
    truth = random_low_rank(0, 30, 3)
    moved = LowRank(truth.factor, truth.diagonal * (1 + distance))
    step = np.asarray(moved.diagonal - truth.diagonal)
    expected = np.linalg.norm(dense(LowRank(truth.factor, step)))
    found = lowrank.norm(lowrank.add(moved, lowrank.scale(truth, -1.0)))
    assert_allclose(found, expected, rtol=1e-14 / distance)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("dim", "rank"), [(1, 1), (6, 2), (6, 6)])
def test_truncation_is_a_best_approximation(spectrum, symmetric, best_error, dim, rank, positive):
    eigenvalues = spectrum(dim)
    matrix = symmetric(eigenvalues)
    kept = truncate_matrix(jnp.asarray(matrix), rank, positive)
    assert orthonormality(kept.factor) < 10
    assert_allclose(
        np.linalg.norm(matrix - dense(kept)),
        best_error(eigenvalues, rank, positive),
        rtol=1e-13,
        atol=50 * dim * EPS * np.abs(eigenvalues).max(),
    )


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_eigen_form_is_a_best_approximation(spectrum, symmetric, best_error, rank, positive):
    dim, columns = 8, 5
    eigenvalues = spectrum(dim)
    eigenvalues[columns:] = 0
    values, vectors = np.linalg.eigh(symmetric(eigenvalues))
    largest = np.argsort(-np.abs(values))[:columns]
    # A factor with columns of very different lengths, not orthonormal to one another.
    mixing = np.triu(np.random.default_rng(1).normal(size=(columns, columns))) + 3 * np.eye(columns)
    core = np.linalg.inv(mixing) @ np.diag(values[largest]) @ np.linalg.inv(mixing).T
    weights, rotation = np.linalg.eigh(core)
    low_rank = LowRank(jnp.asarray(vectors[:, largest] @ mixing @ rotation), jnp.asarray(weights))

    kept = eigen_form(low_rank, rank, positive)
    assert kept.factor.shape == (dim, rank)
    assert orthonormality(kept.factor) < 10
    assert np.all(np.diff(np.abs(kept.diagonal)) <= 0)
    assert_allclose(
        np.linalg.norm(dense(low_rank) - dense(kept)),
        best_error(eigenvalues, rank, positive),
        rtol=1e-12,
        atol=1e3 * EPS * np.abs(eigenvalues).max(),
    )


@pytest.mark.parametrize("seed", range(3))
def test_truncation_keeps_eigenvalues_by_magnitude_with_their_sign(seed, symmetric):
    eigenvalues = np.array([0.5, -4.0, 3.0, -1.0, 2.0])
    kept = truncate_matrix(jnp.asarray(symmetric(eigenvalues, seed)), 3)
    assert_allclose(kept.diagonal, [-4.0, 3.0, 2.0], rtol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_both_of_a_pair_of_opposite_eigenvalues_are_found(seed, symmetric):
    matrix = jnp.asarray(symmetric(np.array([2.0, -2.0, 1.0, 0.0, 0.0, -1.0]), seed))
    assert_allclose(np.sort(truncate_matrix(matrix, 2).diagonal), [-2.0, 2.0], rtol=1e-13)
    again = eigen_form(truncate_matrix(matrix, 4), 2)
    assert_allclose(np.sort(again.diagonal), [-2.0, 2.0], rtol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_positive_truncation_projects_on_the_semidefinite_cone_first(seed, symmetric):
    matrix = symmetric(np.array([0.5, -4.0, 3.0, -1.0, 2.0]), seed)
    values, vectors = np.linalg.eigh(matrix)
    projected = vectors[:, -2:] * values[-2:] @ vectors[:, -2:].T
    assert_allclose(to_dense(truncate_matrix(jnp.asarray(matrix), 2, True)), projected, atol=1e-13)
    full = truncate_matrix(jnp.asarray(matrix), 5, True)
    assert_allclose(full.diagonal, [3.0, 2.0, 0.5, 0.0, 0.0], atol=1e-13)
    assert np.all(np.asarray(full.diagonal) >= 0)


def test_truncation_uses_the_symmetric_part_of_a_matrix():
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    symmetric_part = (matrix + matrix.T) / 2
    assert_allclose(to_dense(truncate_matrix(jnp.asarray(matrix), 5)), symmetric_part, atol=1e-13)


def test_eigen_form_fills_a_higher_rank_with_zero_eigenvalues():
    low_rank = random_low_rank(0, 9, 2)
    filled = eigen_form(low_rank, rank=6)
    assert filled.factor.shape == (9, 6)
    assert orthonormality(filled.factor) < 10
    assert_allclose(to_dense(filled), dense(low_rank), atol=1e-13)
    assert_allclose(filled.diagonal[2:], np.zeros(4), atol=1e-14)


def test_eigen_form_keeps_the_number_of_columns_by_default():
    assert eigen_form(random_low_rank(0, 9, 4)).factor.shape == (9, 4)


@pytest.mark.parametrize("rank", [1, 3])
def test_eigen_form_of_the_zero_matrix_has_an_orthonormal_factor(rank):
    kept = eigen_form(lowrank.zeros(6, 3, jnp.float64), rank)
    assert orthonormality(kept.factor) < 10
    assert not np.any(kept.diagonal)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dim", [1, 3, 25])
def test_one_entry_that_is_not_finite_makes_the_truncation_nan(dim, bad, positive):
    matrix = np.eye(dim)
    matrix[dim // 2, 0] = bad
    kept = truncate_matrix(jnp.asarray(matrix), 1, positive)
    assert np.isnan(kept.factor).all()
    assert np.isnan(kept.diagonal).all()


@pytest.mark.parametrize("where", ["factor", "diagonal"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("dim", "columns"), [(25, 3), (3, 7)])
def test_one_entry_that_is_not_finite_makes_the_eigen_form_nan(dim, columns, bad, where):
    low_rank = random_low_rank(0, dim, columns)
    spoilt = LowRank(
        low_rank.factor.at[dim // 2, columns // 2].set(bad if where == "factor" else 1.0),
        low_rank.diagonal.at[columns // 2].set(bad if where == "diagonal" else 1.0),
    )
    kept = eigen_form(spoilt, 2)
    assert np.isnan(kept.factor).all()
    assert np.isnan(kept.diagonal).all()
    assert not np.isfinite(lowrank.norm(spoilt))


def test_a_bad_matrix_leaves_the_rest_of_its_batch_untouched(symmetric):
    good = jnp.asarray(symmetric(np.arange(1.0, 6.0)))
    batch = jnp.stack([good, good.at[0, 1].set(jnp.inf), good])
    kept = jax.vmap(lambda matrix: truncate_matrix(matrix, 2))(batch)
    assert_allclose(kept.diagonal[0], [5.0, 4.0], rtol=1e-13)
    assert_allclose(kept.diagonal[2], [5.0, 4.0], rtol=1e-13)
    assert np.isnan(kept.diagonal[1]).all()


def test_float32_stays_float32():
    low_rank = sample_truth(jax.random.key(0), 6, 2, dtype=jnp.float32)
    outcomes = [
        to_dense(low_rank),
        lowrank.apply(low_rank, jnp.ones((6, 1), jnp.float32)),
        lowrank.trace(low_rank),
        lowrank.inner(low_rank, low_rank),
        lowrank.norm(low_rank),
        eigen_form(low_rank, 4).factor,
        eigen_form(low_rank, 1, positive=True).diagonal,
        lowrank.scale(low_rank, 2.0).diagonal,
    ]
    assert {outcome.dtype for outcome in outcomes} == {jnp.dtype("float32")}


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_norm_neither_overflows_nor_underflows_in_float32(scale):
    unit = random_low_rank(0, 6, 2, jnp.float32)
    scaled = lowrank.scale(unit, scale)
    assert_allclose(lowrank.norm(scaled), scale * lowrank.norm(unit), rtol=1e-5)
