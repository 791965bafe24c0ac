"""What was saved is what is loaded, bit for bit, and nothing else is ever loaded."""

import hashlib
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
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


@pytest.fixture
def small(tmp_path):
    """A small file, and the bytes of it."""
    path = tmp_path / "small.npz"
    jp.save(path, jp.LowRank(jnp.ones((1, 1)), jnp.ones(1)))
    return path, path.read_bytes()


def test_a_flip_of_any_byte_is_noticed(small):
    path, content = small
    for position in range(len(content)):
        for mask in (1, 128, 255):
            flipped = bytearray(content)
            flipped[position] ^= mask
            path.write_bytes(flipped)
            with pytest.raises(ValueError, match="damaged"):
                jp.load(path)


def test_a_loss_at_either_end_or_more_at_them_is_noticed(small):
    path, content = small
    parts = [content[:length] for length in range(len(content))]
    parts += [content[-length:] for length in range(1, len(content))]
    for part in [*parts, content + b"\0", b"\0" + content, content + content[:64]]:
        path.write_bytes(part)
        with pytest.raises(ValueError, match="damaged"):
            jp.load(path)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_foreign_files_are_refused_and_no_pickle_is_executed(tmp_path):
    path, sign = tmp_path / "foreign.npz", tmp_path / "executed"
    bomb = Bomb(str(sign))
    archive = io.BytesIO()
    np.savez(archive, factor=np.ones((4, 2)), diagonal=np.ones(2))
    array = io.BytesIO()
    np.save(array, np.array([bomb], dtype=object), allow_pickle=True)
    for content in (b"", b"text", pickle.dumps(bomb), archive.getvalue(), array.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no file of jaxpoly"):
            jp.load(path)
    with pytest.raises(FileNotFoundError):
        jp.load(tmp_path / "absent.npz")
    assert not sign.exists()


def forge(path, content, change):
    """Write a file anew, its entries changed, with the digest that belongs to it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        archive.comment = storage.MARK + bytes(64)
    body = buffer.getvalue()[:-64]
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def in_header(old, new):
    def change(entries):
        assert old in entries["header.json"]
        entries["header.json"] = entries["header.json"].replace(old, new)

    return change


MATRIX = np.ones((2, 1))
ARRAY = {"dtype": "float64", "shape": [2, 1]}


def tree(fields):
    entry = fields and {"kind": "LowRank", "fields": fields}
    return json.dumps({"format": 1, "jaxpoly": "0", "tree": entry}).encode()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("message", "change"),
    {
        "format is 2": in_header(b'"format": 1', b'"format": 2'),
        "belong to nothing": lambda entries: entries.update({"more.npy": npy(np.ones(1))}),
        "'factor'": lambda entries: entries.pop("factor.npy"),
        "header.json": lambda entries: entries.pop("header.json"),
        "header says": lambda entries: entries.update({"factor.npy": npy(np.ones((1, 2)))}),
        "Hessian": in_header(b'"LowRank"', b'"Hessian"'),
        "has the fields": in_header(b'"diagonal"', b'"diagonals"'),
        "'format'": in_header(b'"format": 1,', b""),
        "delimiter": in_header(b'"tree":', b'"tree"'),
        "cannot be loaded": in_header(b'"format": 1', b'"format": null'),
        "str": lambda entries: entries.update({"header.json": b'"text"'}),
        "factor of a LowRank is a NoneType": lambda entries: entries.update(
            {"header.json": tree({"factor": None, "diagonal": None})}
        ),
        "holds a NoneType": lambda entries: entries.update({"header.json": tree(None)}),
        "diagonal of a LowRank has the shape": lambda entries: entries.update(
            {
                "header.json": tree({"factor": ARRAY, "diagonal": ARRAY}),
                "factor.npy": npy(MATRIX),
                "diagonal.npy": npy(MATRIX),
            }
        ),
    }.items(),
)
def test_whole_files_of_other_contents_are_refused(small, message, change):
    path, content = small
    forge(path, content, change)
    with pytest.raises(ValueError, match=message):
        jp.load(path)


def test_a_pickle_in_a_file_with_the_right_digest_is_not_executed(small, tmp_path):
    path, content = small
    sign = tmp_path / "executed"
    bomb = npy(np.array([[Bomb(str(sign))]], dtype=object))
    forge(path, content, lambda entries: entries.update({"factor.npy": bomb}))
    with pytest.raises(ValueError, match="allow_pickle"):
        jp.load(path)
    assert not sign.exists()


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("list", [1.0]),
        ("Lifting", jp.Lifting(jnp.ones((2, 1)))),
        ("diagonal is a float", jp.LowRank(jnp.ones((1, 1)), 1.0)),
        ("diagonal of a LowRank is a NoneType", jp.LowRank(jnp.ones((1, 1)), None)),
        ("factor of a LowRank is a LowRank", jp.LowRank(low_rank(), jnp.ones(1))),
        ("diagonal is a object", jp.LowRank(jnp.ones((1, 1)), object())),
        ("bfloat16", jp.LowRank(jnp.ones((1, 1), jnp.bfloat16), jnp.ones(1))),
        ("key<fry>", jp.LowRank(jax.random.key(0), jnp.ones(1))),
        ("complex128", jp.LowRank(jnp.ones((1, 1)) + 0j, jnp.ones(1))),
        ("object", jp.LowRank(np.array([[None]]), jnp.ones(1))),
        ("an array of float64", jp.LowRank(np.ma.ones((1, 1)), jnp.ones(1))),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(small, message, value):
    path, content = small
    with pytest.raises(TypeError, match=message):
        jp.save(path, value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "value",
    [
        jp.LowRank(jnp.ones((4, 2)), jnp.ones(3)),
        jp.LowRank(jnp.ones(4), jnp.ones(4)),
        jp.LowRank(jnp.ones((5, 4, 2)), jnp.ones(2)),
        jp.QuadraticNetwork(jnp.ones((2, 4)), jnp.ones(4), jnp.zeros(4), jnp.zeros(())),
    ],
)
def test_shapes_that_do_not_fit_each_other_are_refused(small, value):
    path, content = small
    with pytest.raises(ValueError, match="has the shape"):
        jp.save(path, value)
    assert path.read_bytes() == content


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


def test_a_full_disk_leaves_the_old_file(small):
    path, content = small
    large = jp.LowRank(jnp.ones((1000, 10)), jnp.ones(10))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            jp.save(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == content


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


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 251 + ".npz")
    jp.save(path, low_rank())
    assert bits(jp.load(path)) == bits(low_rank())


SAVE_FOR_EVER = """
import sys, numpy as np, jaxpoly as jp
values = [jp.LowRank(np.full((100_000, 5), fill), np.full(5, fill)) for fill in (0.0, 1.0)]
jp.save(sys.argv[1], values[0])
print("started", flush=True)
while True:
    for value in values:
        jp.save(sys.argv[1], value)
"""


@pytest.mark.parametrize("delay", [0.003, 0.02])
def test_a_process_killed_while_it_saves_leaves_a_whole_file(tmp_path, delay):
    path = tmp_path / "value.npz"
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "started\n"
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
    loaded = jp.load(path)
    fill = loaded.diagonal[0]
    assert fill in (0, 1)
    assert jnp.all(loaded.factor == fill)
