"""Inputs read from disk in row blocks give what inputs in memory give, in so many reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose

import jaxpoly as jp

M, P, R = 500, 12, 2
PROBLEM = jp.sample_problem(jax.random.key(0), num_samples=M, dim=P, rank=R)
INPUTS = np.asarray(PROBLEM.lifting.inputs)
BLOCK = 96 * P * 8
SOLVERS = {
    "ap_rom": jp.ap_rom(R),
    "factored": jp.factored_descent(R),
    "gauss_newton": jp.gauss_newton(R),
}


class Counting:
    """A source that counts how often all of its rows have been read."""

    def __init__(self, values):
        self.values, self.rows = values, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, rows):
        found = self.values[rows]
        self.rows += len(found)
        return found

    def reads(self):
        found, rest = divmod(self.rows, len(self.values))
        assert rest == 0
        self.rows = 0
        return found


@pytest.fixture(params=["npy", "zarr", "h5py"])
def source(request, tmp_path):
    """The inputs on disk, in each of the formats."""
    if request.param == "npy":
        np.save(tmp_path / "inputs.npy", INPUTS)
        yield np.load(tmp_path / "inputs.npy", mmap_mode="r")
    elif request.param == "zarr":
        zarr = pytest.importorskip("zarr")
        yield zarr.create_array(tmp_path / "inputs.zarr", data=INPUTS, chunks=(50, P))
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "inputs.h5", "w") as file:
            yield file.create_dataset("inputs", data=INPUTS, chunks=(50, P))


def solve(solver, inputs, targets=PROBLEM.targets, weight=None, max_steps=500):
    lifting = jp.Lifting(inputs, weight)
    return jp.solve(solver, lifting, targets, jax.random.key(1), max_steps=max_steps)


def test_every_format_gives_the_solution_of_the_inputs_in_memory(source):
    rows = jp.StreamedRows(source, block_bytes=BLOCK)
    expected, found = (solve(jp.gauss_newton(R), inputs) for inputs in (INPUTS, rows))
    assert found.status == jp.Status.CONVERGED
    assert found.num_steps == expected.num_steps
    assert jp.relative_error(found.value, expected.value) < 1e-10


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_takes_the_same_steps_as_in_memory(name):
    weight = jnp.where(jnp.arange(M) % 7 == 0, 0.0, 1.0 + jnp.arange(M) % 3)
    rows = jp.StreamedRows(INPUTS, block_bytes=BLOCK)
    expected, found = (
        solve(SOLVERS[name], inputs, weight=weight, max_steps=6) for inputs in (INPUTS, rows)
    )
    assert found.num_steps == expected.num_steps
    assert found.status == expected.status
    assert_allclose(jp.to_dense(found.value), jp.to_dense(expected.value), atol=1e-8)
    assert_allclose(found.relative_residual, expected.relative_residual, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("block_rows", [1, 96, 125, 500, 700])
def test_the_kernels_do_not_depend_on_the_blocks(block_rows):
    rows = jp.StreamedRows(INPUTS, block_bytes=block_rows * P * 8)
    assert rows.block_rows == min(block_rows, M)
    truth, residual = PROBLEM.truth, jnp.cos(jnp.arange(M))
    block = jax.random.normal(jax.random.key(2), (P, 3))
    for function, rest in ((jp.measure, [truth]), (jp.backproject, [residual, block])):
        found, expected = (function(jp.Lifting(x), *rest) for x in (rows, INPUTS))
        assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    found, expected = (jp.dense_gradient(jp.Lifting(x), residual) for x in (rows, INPUTS))
    assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "reads"), [("ap_rom", 2), ("factored", 2)])
def test_a_step_of_thresholding_and_of_descent_reads_the_inputs_twice(name, reads):
    source = Counting(INPUTS)
    lifting = jp.Lifting(jp.StreamedRows(source, block_bytes=BLOCK))
    run = jp.init_run(SOLVERS[name], lifting, PROBLEM.targets, jax.random.key(1))
    source.reads()
    jp.advance(SOLVERS[name], lifting, PROBLEM.targets, run, 3)
    assert source.reads() == 3 * reads


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_a_gauss_newton_step_reads_the_inputs_twice_and_once_for_an_inner_step(inner_steps):
    solver, source = jp.gauss_newton(R, inner_steps=inner_steps), Counting(INPUTS)
    lifting = jp.Lifting(jp.StreamedRows(source, block_bytes=BLOCK))
    run = jp.init_run(solver, lifting, PROBLEM.targets, jax.random.key(1))
    source.reads()
    jp.advance(solver, lifting, PROBLEM.targets, run, 1)
    assert source.reads() == 2 + inner_steps


def test_a_run_of_streamed_inputs_can_be_paused_and_resumed():
    rows, solver = jp.StreamedRows(INPUTS, block_bytes=BLOCK), jp.gauss_newton(R)
    data = jp.Lifting(rows), PROBLEM.targets
    run = jp.init_run(solver, *data, jax.random.key(1))
    for _ in range(8):
        run = jp.advance(solver, *data, run, 1)
    assert jp.finish(run).status == jp.Status.CONVERGED
    assert jp.relative_error(jp.finish(run).value, PROBLEM.truth) < 1e-10


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_entry_that_is_not_finite_in_the_last_block_ends_the_run(bad):
    inputs = INPUTS.copy()
    inputs[-1, -1] = bad
    rows = jp.StreamedRows(inputs, block_bytes=BLOCK)
    assert solve(jp.gauss_newton(R), rows).status == jp.Status.NONFINITE_INPUT


def test_vanishing_inputs_are_degenerate():
    rows = jp.StreamedRows(np.zeros_like(INPUTS), block_bytes=BLOCK)
    assert solve(jp.gauss_newton(R), rows).status == jp.Status.DEGENERATE


def test_integers_and_half_precision_on_disk_are_computed_as_floats():
    numbers = np.round(10 * INPUTS).astype(np.int8)
    weight = jnp.ones(M)
    for values, dtype in ((numbers, jnp.float64), (INPUTS.astype(np.float16), jnp.float32)):
        rows = jp.StreamedRows(values, block_bytes=BLOCK)
        assert rows.dtype == dtype
        found = jp.backproject(jp.Lifting(rows), weight, jnp.eye(P))
        exact = values.astype(np.float64)
        assert found.dtype == dtype
        assert_allclose(found, exact.T @ exact / M, rtol=1e-5, atol=1e-4)


def test_blocks_are_whole_chunks_where_the_source_has_chunks():
    source = Counting(INPUTS)
    source.chunks = (50, P)
    assert jp.StreamedRows(source, block_bytes=BLOCK).block_rows == 50
    assert jp.StreamedRows(source, block_bytes=230 * P * 8).block_rows == 200


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.ones((4, 2)) + 1j, "source has dtype complex128; expected real numbers"),
        (np.full((4, 2), "a"), "source has dtype <U1"),
        (np.ma.masked_array(np.ones((4, 2)), [[0, 1]] * 4), "source is a masked array"),
        (scipy.sparse.csr_matrix(np.eye(4)), r"source is a sparse csr_matrix.*\.toarray"),
    ],
)
def test_numbers_that_would_be_lost_on_the_way_from_disk_are_refused(source, words):
    with pytest.raises(TypeError, match=words):
        jp.StreamedRows(source)


def test_what_cannot_be_streamed_says_so():
    rows = jp.StreamedRows(INPUTS)
    lifting, key = jp.Lifting(rows), jax.random.key(1)
    solver = jp.gauss_newton(R)
    with pytest.raises(TypeError, match=r"streamed inputs were used under jit.*init_run"):
        jax.jit(jp.solve, static_argnums=1)(solver, lifting, PROBLEM.targets, key)
    with pytest.raises(TypeError, match="streamed inputs"):
        jp.trajectory(solver, lifting, PROBLEM.targets, key, num_steps=2)
    with pytest.raises(TypeError, match="StreamedRows"):
        jp.recover(rows, PROBLEM.targets, 2, key=key)
    with pytest.raises(TypeError, match="StreamedRows"):
        jp.whiten(lifting, centred=True)
    with pytest.raises(ValueError, match=r"source has shape \(500,\)"):
        jp.StreamedRows(INPUTS[:, 0])
    with pytest.raises(TypeError, match="source is a list"):
        jp.StreamedRows([[1.0]])
    with pytest.raises(TypeError, match=r"inputs is a StreamedRows; .*Lifting takes"):
        jp.shard_rows(rows, PROBLEM.targets)
    with pytest.raises(TypeError, match="source is a type"):
        jp.StreamedRows(np.ndarray)
    with pytest.raises(ValueError, match="targets has length 3"):
        solve(solver, rows, targets=jnp.ones(3))


def test_rows_without_weight_set_no_scale():
    huge = INPUTS.astype(np.float32)
    huge[:60] *= np.float32(1e15)
    weight = (jnp.arange(M) >= 60).astype(jnp.float32)
    targets = PROBLEM.targets.astype(jnp.float32)
    for inputs in (jnp.asarray(huge), jp.StreamedRows(huge, block_bytes=BLOCK // 2)):
        found = solve(SOLVERS["gauss_newton"], inputs, targets, weight)
        assert found.status == jp.Status.CONVERGED
        assert jp.relative_error(found.value, PROBLEM.truth) < 1e-4


class Shortened(Counting):
    """A source of which less comes than it says."""

    def __init__(self, values, coming):
        super().__init__(values)
        self.values = coming


@pytest.mark.parametrize("coming", [INPUTS[:-10], INPUTS[:400], INPUTS[:, :1]])
def test_slices_that_are_not_of_the_shape_told_are_refused(coming):
    rows = jp.StreamedRows(Shortened(INPUTS, coming), block_bytes=BLOCK)
    with pytest.raises(ValueError, match=r"source\[\d+:\d+\] has shape .*; expected"):
        solve(SOLVERS["gauss_newton"], rows)


def test_options_out_of_range_are_refused():
    for dtype in ("float16", "int32", "complex128"):
        with pytest.raises(ValueError, match=f"dtype is {dtype}; expected float32"):
            jp.StreamedRows(INPUTS, dtype=dtype)
    with jax.enable_x64(False), pytest.raises(ValueError, match="dtype is float64; expected"):
        jp.StreamedRows(INPUTS, dtype="float64")
    with pytest.raises(TypeError, match="block_bytes"):
        jp.StreamedRows(INPUTS, block_bytes="64")
    with pytest.raises(ValueError, match="block_bytes"):
        jp.StreamedRows(INPUTS, block_bytes=0)


class Sliced(Counting):
    """A source whose slices are masked arrays, as those of netCDF variables are."""

    def __getitem__(self, rows):
        return np.ma.masked_greater(super().__getitem__(rows), 1e30)


def test_slices_with_masked_entries_or_of_another_kind_are_refused():
    whole = solve(SOLVERS["gauss_newton"], jp.StreamedRows(Sliced(INPUTS), block_bytes=BLOCK))
    assert whole.status == jp.Status.CONVERGED
    filled = INPUTS.copy()
    filled[-1, 0] = 9.97e36
    with pytest.raises(TypeError, match="masked entries"):
        solve(SOLVERS["gauss_newton"], jp.StreamedRows(Sliced(filled), block_bytes=BLOCK))
    coming = jp.StreamedRows(Shortened(INPUTS, INPUTS + 0j), block_bytes=BLOCK)
    with pytest.raises(TypeError, match="has dtype complex128; expected float64"):
        solve(SOLVERS["gauss_newton"], coming)
