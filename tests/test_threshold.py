"""Rank-r thresholds: residual tests in units of rounding, over a table of spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxpoly import EighThreshold, KrylovThreshold, SubspaceThreshold, to_dense
from jaxpoly.threshold import block_krylov, krylov_depth, random_block, rayleigh_ritz

KEY = jax.random.key(5)
KINDS = {"eigh": EighThreshold, "krylov": KrylovThreshold, "subspace": SubspaceThreshold}
# The Krylov space of the default block and depth is the whole space at these sizes.
SMALL = [(1, 1), (7, 2), (7, 7)]


def run(threshold, matrix, key=KEY, basis=None):
    """Threshold a numpy matrix in its own dtype, in one compilation for all of a shape."""
    dim = len(matrix)
    basis = jnp.zeros((dim, 0), matrix.dtype) if basis is None else basis
    return _run(threshold, jnp.asarray(matrix), key, basis)


@jax.jit
def _run(threshold, matrix, key, basis):
    return threshold(lambda block: matrix @ block, matrix.shape[0], key, basis)


def off_orthonormal(basis):
    """Return the largest entry of |Q^T Q - I| in units of p eps."""
    basis = np.asarray(basis)
    gram = basis.T @ basis
    return np.abs(gram - np.eye(len(gram))).max() / (len(basis) * np.finfo(basis.dtype).eps)


def excess(low_rank, matrix, best):
    """Return by how much the error exceeds the best possible, in units of p eps |M|."""
    factor, diagonal = np.asarray(low_rank.factor), np.asarray(low_rank.diagonal)
    peak = np.abs(matrix).max() or 1.0
    error = np.linalg.norm((matrix - (factor * diagonal) @ factor.T) / peak) * peak
    return (error - best) / (len(matrix) * np.finfo(matrix.dtype).eps * peak)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize(("dim", "rank"), SMALL)
@pytest.mark.parametrize("seed", range(2))
def test_threshold_that_sees_the_whole_space_is_a_best_approximation(
    spectrum, symmetric, best_error, seed, dim, rank, positive, kind
):
    unit = spectrum(dim)
    for scale in (1.0, 1e-150, 1e150):
        matrix = scale * symmetric(unit, seed)
        low_rank, basis = run(KINDS[kind](rank=rank, positive=positive), matrix)
        assert low_rank.factor.shape == (dim, rank)
        assert off_orthonormal(low_rank.factor) < 10
        assert off_orthonormal(basis) < 10
        assert abs(excess(low_rank, matrix, scale * best_error(unit, rank, positive))) < 50
        if positive:
            assert np.all(np.asarray(low_rank.diagonal) >= 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 1e-15, 1e15])
def test_float32_operator_is_thresholded_in_float32(spectrum, symmetric, best_error, scale, kind):
    matrix = (scale * symmetric(spectrum(7))).astype(np.float32)
    low_rank, basis = run(KINDS[kind](rank=2), matrix)
    assert low_rank.factor.dtype == low_rank.diagonal.dtype == basis.dtype == jnp.float32
    assert off_orthonormal(low_rank.factor) < 10
    assert abs(excess(low_rank, matrix, scale * best_error(spectrum(7), 2))) < 100


@pytest.mark.parametrize("kind", KINDS)
def test_factor_holds_eigenvectors_in_descending_order_of_magnitude(symmetric, kind):
    eigenvalues = np.zeros(30)
    eigenvalues[:4] = [2.0, -5.0, 3.0, -1.0]
    matrix = symmetric(eigenvalues)
    low_rank, _ = run(KINDS[kind](rank=4), matrix)
    assert_allclose(low_rank.diagonal, [-5.0, 3.0, 2.0, -1.0], rtol=1e-12)
    image = matrix @ np.asarray(low_rank.factor)
    assert_allclose(image, low_rank.factor * low_rank.diagonal[None, :], atol=1e-12)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_krylov_with_its_defaults_captures_nearly_all_that_can_be(
    spectrum, symmetric, best_error, seed, positive
):
    dim, rank = 100, 2
    eigenvalues = spectrum(dim)
    matrix = symmetric(eigenvalues, seed)
    low_rank, _ = run(KrylovThreshold(rank, positive), matrix, jax.random.key(seed))
    best = best_error(eigenvalues, rank, positive)
    assert off_orthonormal(low_rank.factor) < 10
    assert excess(low_rank, matrix, best) > -50
    assert np.sum(low_rank.diagonal**2) >= 0.99 * (np.sum(eigenvalues**2) - best**2) - 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_krylov_comes_closer_with_depth(symmetric, seed):
    eigenvalues = 0.97 ** np.arange(60.0)
    matrix = symmetric(eigenvalues, seed)
    key = jax.random.key(seed)
    captured = [
        np.sum(
            np.asarray(run(KrylovThreshold(2, block_size=3, depth=depth), matrix, key)[0].diagonal)
        )
        for depth in (0, 2, 19)
    ]
    # Nested spaces: the Ritz values can only grow, to the eigenvalues themselves.
    assert np.all(np.diff(captured) > 0)
    assert_allclose(captured[-1], eigenvalues[:2].sum(), rtol=1e-12)


def test_krylov_depth_follows_the_bound():
    assert krylov_depth(1) == 1
    assert krylov_depth(1000, 1.0) == 7
    assert krylov_depth(1000, 0.25) == 14


def test_accuracy_sets_the_depth_unless_depth_is_given(symmetric):
    matrix = symmetric(np.linspace(1.0, 0.1, 60))
    formula = KrylovThreshold(1, block_size=2, accuracy=1.0)
    given = KrylovThreshold(1, block_size=2, depth=krylov_depth(60, 1.0), accuracy=1e-9)
    assert_array_equal(run(formula, matrix)[0].diagonal, run(given, matrix)[0].diagonal)


@pytest.mark.parametrize(("width", "depth"), [(1, 0), (3, 2), (4, 2), (10, 1)])
def test_block_krylov_returns_a_basis_and_its_image_even_where_exhausted(
    spectrum, symmetric, width, depth
):
    dim = 10
    for scale in (1.0, 1e-150, 1e150):
        matrix = jnp.asarray(scale * symmetric(spectrum(dim)))
        start = jnp.asarray(np.random.default_rng(1).normal(size=(dim, width)))
        basis, image = _block_krylov(matrix, start, depth)
        assert basis.shape == image.shape == (dim, min(dim, width * (depth + 1)))
        assert off_orthonormal(basis) < 10
        size = np.abs(matrix).max()
        assert_allclose(image, matrix @ basis, rtol=0, atol=1e-14 * size)
        leading = np.asarray(basis[:, :width])
        assert_allclose(leading @ (leading.T @ start), start, atol=1e-13)


@jax.jit(static_argnames="depth")
def _block_krylov(matrix, start, depth):
    return block_krylov(lambda block: matrix @ block, start, depth)


@pytest.mark.parametrize("seed", range(3))
def test_block_krylov_spans_the_powers_of_the_operator_on_the_start(symmetric, seed):
    eigenvalues = np.random.default_rng(seed).uniform(-1, 1, 12)
    matrix = jnp.asarray(symmetric(eigenvalues, seed))
    block = start = jax.random.normal(jax.random.key(seed), (12, 2))
    basis, _ = _block_krylov(matrix, start, 3)
    for _ in range(4):
        outside = block - basis @ (basis.T @ block)
        assert np.abs(outside).max() < 1e-12
        block = matrix @ block


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_rayleigh_ritz_is_the_best_approximation_of_the_compression(
    spectrum, symmetric, best_error, seed, positive
):
    matrix = symmetric(spectrum(9), seed)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(9, 5)))[0]
    compression = basis @ basis.T @ matrix @ basis @ basis.T
    low_rank = rayleigh_ritz(jnp.asarray(basis), jnp.asarray(matrix @ basis), 2, positive)
    best = best_error(np.linalg.eigvalsh(basis.T @ matrix @ basis), 2, positive)
    assert off_orthonormal(low_rank.factor) < 10
    assert np.abs(basis @ (basis.T @ low_rank.factor) - low_rank.factor).max() < 1e-13
    assert abs(excess(low_rank, compression, best)) < 50


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_warm_started_subspace_converges_over_calls(symmetric, best_error, seed, positive):
    eigenvalues = 0.8 ** np.arange(40.0) * np.where(np.arange(40) % 2 == 0, 1, -1)
    matrix, threshold = symmetric(eigenvalues, seed), SubspaceThreshold(3, positive)
    best, basis, errors = best_error(eigenvalues, 3, positive), None, []
    # The shift that brings the positive end to the front costs a few calls.
    for call in range(24 if positive else 20):
        low_rank, basis = run(threshold, matrix, jax.random.key(call), basis)
        errors.append(excess(low_rank, matrix, best))
    assert basis.shape == (40, 11)
    assert errors[0] > 1e6
    assert abs(errors[-1]) < 50


def test_more_iterations_a_call_do_the_work_of_more_calls(symmetric):
    matrix = symmetric(0.8 ** np.arange(40.0))
    key = jax.random.key(1)
    errors = [
        np.linalg.norm(matrix - to_dense(run(SubspaceThreshold(2, False, 2, n), matrix, key)[0]))
        for n in (0, 1, 4, 12)
    ]
    assert np.all(np.diff(errors) < 0)


def warm_bases(dim):
    normal = np.random.default_rng(3).normal(size=(dim, 3))
    return {
        "not orthonormal": 1e3 * normal,
        "repeated columns": normal[:, [0, 0, 1]],
        "zero": np.zeros((dim, 2)),
        "wider than needed": np.linalg.qr(np.random.default_rng(4).normal(size=(dim, dim)))[0],
    }


@pytest.mark.parametrize("warmth", warm_bases(1))
@pytest.mark.parametrize("kind", KINDS)
def test_warm_basis_never_has_to_be_exact(symmetric, best_error, kind, warmth):
    eigenvalues = 0.3 ** np.arange(20.0)
    matrix, threshold = symmetric(eigenvalues), KINDS[kind](rank=2)
    basis = jnp.asarray(warm_bases(20)[warmth])
    for call in range(12):
        low_rank, basis = run(threshold, matrix, jax.random.key(call), basis)
        assert off_orthonormal(low_rank.factor) < 10
        assert off_orthonormal(basis) < 10
    assert abs(excess(low_rank, matrix, best_error(eigenvalues, 2))) < 50


def test_random_block_starts_with_the_warm_columns_and_ends_with_fresh_ones():
    warm = jnp.arange(12.0, dtype=jnp.float32).reshape(4, 3)
    block = random_block(KEY, 4, 4, warm)
    assert block.shape == (4, 4)
    assert block.dtype == jnp.float32
    assert_array_equal(block[:, :3], warm)
    assert np.all(block[:, 3] != 0)
    assert_array_equal(random_block(KEY, 4, 2, warm), warm[:, :2])


QUICK = {
    "eigh": EighThreshold(rank=2),
    "krylov": KrylovThreshold(rank=2, block_size=3, depth=1),
    "subspace": SubspaceThreshold(rank=2, oversample=1, num_iters=0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_same_key_gives_the_same_result_and_jit_and_vmap_equal_eager(symmetric, kind):
    threshold = QUICK[kind]
    eigenvalues = np.linspace(-1.0, 0.7, 12)
    matrices = jnp.stack([jnp.asarray(symmetric(eigenvalues, seed)) for seed in range(3)])
    keys = jax.random.split(KEY, 3)

    def thresholded(matrix, key):
        low_rank, basis = threshold(lambda block: matrix @ block, 12, key)
        return to_dense(low_rank), basis @ basis.T

    eager = thresholded(matrices[0], keys[0])
    assert_array_equal(eager[0], thresholded(matrices[0], keys[0])[0])
    compiled = jax.jit(thresholded)
    together = jax.jit(jax.vmap(thresholded))(matrices, keys)
    for i in range(2):
        assert_allclose(compiled(matrices[0], keys[0])[i], eager[i], atol=1e-12)
        for lane in range(3):
            alone = compiled(matrices[lane], keys[lane])[i]
            assert_allclose(together[i][lane], alone, atol=1e-12)
    if kind != "eigh":
        assert np.abs(compiled(matrices[0], keys[1])[0] - eager[0]).max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_operator_that_is_not_finite_gives_nan_at_once(symmetric, bad, kind):
    matrix = symmetric(np.arange(1.0, 8.0))
    matrix[3, 2] = bad
    low_rank, _ = run(KINDS[kind](rank=2), matrix)
    assert np.isnan(low_rank.factor).all()
    assert np.isnan(low_rank.diagonal).all()


@pytest.mark.parametrize("kind", KINDS)
def test_threshold_has_no_leaves_and_is_compared_by_value(kind):
    threshold = KINDS[kind](rank=2, positive=True)
    assert jax.tree.leaves(threshold) == []
    assert jax.tree.structure(threshold) == jax.tree.structure(KINDS[kind](rank=2, positive=True))
    assert jax.tree.structure(threshold) != jax.tree.structure(KINDS[kind](rank=3, positive=True))
