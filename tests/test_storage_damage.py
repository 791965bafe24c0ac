"""A file that is damaged, foreign or half written is refused, and an old one outlives faults."""

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

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp
from jaxpoly import storage


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
SMALL = jp.LowRank(MATRIX, np.ones(1))
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
        (
            "factor of a LowRank is a LowRank",
            jp.LowRank(SMALL, jnp.ones(1)),
        ),
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
        jp.QuadraticNetwork(jnp.ones((2, 4)), jnp.ones(2), jnp.zeros(7), jnp.zeros(())),
        jp.QuadraticNetwork(jnp.ones((2, 4)), jnp.ones(2), jnp.zeros(4), jnp.zeros(3)),
    ],
)
def test_shapes_that_do_not_fit_each_other_are_refused(small, value):
    path, content = small
    with pytest.raises(ValueError, match="has the shape"):
        jp.save(path, value)
    assert path.read_bytes() == content


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
