"""What was saved is what is loaded, bit for bit, and what cannot be kept is refused."""

import json
import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp
from jaxpoly import storage


def normal(shape, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def low_rank(batch=(), dtype=jnp.float64, seed=0):
    return jp.LowRank(normal((*batch, 4, 2), dtype, seed), normal((*batch, 2), dtype, seed))


def solution(batch=(), dtype=jnp.float64):
    return jp.Solution(
        value=low_rank(batch, dtype),
        intercept=normal(batch, dtype).at[...].set(-0.0),
        linear=normal((*batch, 4), dtype).at[..., 0].set(jnp.nan),
        status=jnp.full(batch, jp.Status.STATIONARY, jnp.int32),
        num_steps=jnp.full(batch, 7, jnp.int32),
        relative_residual=normal(batch, dtype),
        stationarity=jnp.full(batch, jnp.inf, dtype),
        underdetermined=jnp.zeros(batch, bool),
    )


def recovery(batch=(), dtype=jnp.float64):
    return jp.Recovery(
        **vars(solution(batch, dtype)),
        rank_curve=jp.RankCurve(jnp.arange(3), normal((3,), dtype), normal((3,), dtype)),
        num_starts=jnp.int32(2),
        sample_weight=normal((*batch, 0), dtype),
        constant_squares=jnp.ones((*batch, 4), bool),
        num_dropped=jnp.int32(1),
    )


def network(batch=(), dtype=jnp.float64):
    shapes = (*batch, 2, 4), (*batch, 2), (*batch, 4), batch
    return jp.QuadraticNetwork(*(normal(shape, dtype) for shape in shapes))


KINDS = {
    "low rank": low_rank,
    "network": network,
    "recovery": recovery,
    "recovery of a given rank": lambda *like: replace(recovery(*like), rank_curve=None),
    "solution": solution,
}


def bits(value):
    """Structure, dtypes, shapes and bytes of a value: what has to be equal."""
    leaves, structure = jax.tree.flatten(value)
    return structure, [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in leaves]


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_is_loaded_bit_for_bit(tmp_path, kind, dtype, batch):
    value = KINDS[kind](batch, dtype)
    jp.save(tmp_path / "value.npz", value)
    loaded = jp.load(str(tmp_path / "value.npz"))
    assert type(loaded) is type(value)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded))
    assert bits(loaded) == bits(value)
    assert os.listdir(tmp_path) == ["value.npz"]


@pytest.mark.parametrize("dtype", storage.DTYPES)
def test_every_dtype_is_kept(tmp_path, dtype):
    value = jp.LowRank(jnp.arange(8).reshape(4, 2).astype(dtype), jnp.ones(2, dtype))
    jp.save(tmp_path / "value.npz", value)
    assert bits(jp.load(tmp_path / "value.npz")) == bits(value)


def test_numpy_arrays_of_any_layout_are_saved_by_their_values(tmp_path):
    factor = np.arange(8.0).reshape(4, 2)
    for same in (np.asfortranarray(factor), factor.astype(">f8"), factor[::-1][::-1]):
        jp.save(tmp_path / "value.npz", jp.LowRank(same, np.ones(2)))
        np.testing.assert_array_equal(jp.load(tmp_path / "value.npz").factor, factor)


def test_a_solution_that_was_loaded_is_the_start_of_another_solve(tmp_path):
    problem = jp.sample_problem(jax.random.key(0), num_samples=160, dim=16, rank=2)
    solver, data = jp.gauss_newton(2), (problem.lifting, problem.targets, jax.random.key(1))
    near = jp.LowRank(problem.truth.factor, 1.1 * problem.truth.diagonal)
    found = jp.solve(solver, *data, start=near)
    assert found.num_steps > 0
    jp.save(tmp_path / "found.npz", found)
    loaded = jp.load(tmp_path / "found.npz")
    assert bits(loaded) == bits(found)
    jp.raise_if_failed(loaded)
    assert jp.solve(solver, *data, start=loaded.value).num_steps == 0


def test_equal_values_give_equal_bytes_that_numpy_reads(tmp_path):
    for name in ("one.npz", "other.npz"):
        jp.save(tmp_path / name, network())
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["neurons"], network().neurons)
        assert json.loads(archive["header.json"])["jaxpoly"] == jp.__version__


def test_traced_values_are_refused(tmp_path):
    with pytest.raises(TypeError, match="factor is traced"):
        jax.jit(lambda value: jp.save(tmp_path / "value.npz", value))(low_rank())


def test_float64_is_loaded_as_float32_with_a_warning_where_x64_is_off(tmp_path):
    jp.save(tmp_path / "wide.npz", network())
    jp.save(tmp_path / "narrow.npz", network(dtype=jnp.float32))
    with jax.enable_x64(False):
        with pytest.warns(UserWarning, match="is float64 but jax_enable_x64 is off") as seen:
            loaded = jp.load(tmp_path / "wide.npz")
        assert len(seen) == 1
        assert seen[0].filename == __file__
        assert bits(loaded) == bits(network(dtype=jnp.float32))
        assert bits(jp.load(tmp_path / "narrow.npz")) == bits(network(dtype=jnp.float32))
        integers = jp.LowRank(np.full((1, 1), 2**40), np.ones(1, np.float32))
        jp.save(tmp_path / "integers.npz", integers)
        with pytest.raises(ValueError, match="integers that int32 cannot hold"):
            jp.load(tmp_path / "integers.npz")


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    path = tmp_path / "absent" / "value.npz"
    with pytest.raises(FileNotFoundError) as refusal:
        jp.save(path, low_rank())
    assert refusal.value.filename == str(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        jp.save(tmp_path / "folder", low_rank())
    assert os.listdir(tmp_path) == ["folder"]


def test_links_and_permissions_of_an_older_file_stay(tmp_path):
    path, link = tmp_path / "value.npz", tmp_path / "link.npz"
    jp.save(path, low_rank())
    path.chmod(0o640)
    link.symlink_to(path)
    jp.save(link, low_rank(seed=1))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert bits(jp.load(path)) == bits(low_rank(seed=1))


def test_what_is_no_file_is_not_replaced(tmp_path):
    loop, pipe = tmp_path / "loop.npz", tmp_path / "pipe.npz"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path in (loop, pipe):
        with pytest.raises(OSError, match=path.name):
            jp.save(path, low_rank())
    assert loop.is_symlink()
    assert pipe.is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["loop.npz", "pipe.npz"]


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 251 + ".npz")
    jp.save(path, low_rank())
    assert bits(jp.load(path)) == bits(low_rank())
