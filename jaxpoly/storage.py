"""Solutions and networks on file: one .npz, without pickle, that damage does not get past.

The file is an archive that `numpy.load` reads too: the arrays, uncompressed, and a
`header.json` that names the kind, and the dtype and shape of every array.  The comment at the
end of the archive is a digest of all bytes before it, so that a file is known to be whole
before anything in it is looked at.
"""

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import warnings
import zipfile
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpoly.lowrank import LowRank
from jaxpoly.network import QuadraticNetwork
from jaxpoly.rank_choice import RankCurve
from jaxpoly.recover import Recovery
from jaxpoly.state import Solution
from jaxpoly.version import __version__

# To be raised when a program of today would misread the files of tomorrow.
FORMAT = 1
HEADER = "header.json"
MARK = b"jaxpoly sha256 "
KINDS = {kind.__name__: kind for kind in (LowRank, QuadraticNetwork, RankCurve, Recovery, Solution)}
# What .npy describes without pickle and JAX can hold; not bfloat16, which .npy does not know.
INTEGERS = tuple(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
DTYPES = ("float16", "float32", "float64", *INTEGERS, "bool")
# The last axes of what is computed with; equal letters are equal sizes.
AFFINE = {"linear": "p", "intercept": ""}
AXES: dict[type, dict[str, str]] = {
    LowRank: {"factor": "pr", "diagonal": "r"},
    QuadraticNetwork: {"neurons": "rp", "output_weights": "r"} | AFFINE,
    Solution: {"value.factor": "pr"} | AFFINE,
    Recovery: {"value.factor": "pr"} | AFFINE,
}


def save(
    path: str | os.PathLike[str], value: LowRank | QuadraticNetwork | RankCurve | Solution
) -> None:
    """Write a solution, a network or a low-rank matrix to a file that `load` reads.

    The file appears whole or not at all: it is written beside `path`, brought to the disk
    and renamed, so that an older file stays until then, and stays if the program is killed
    (which may leave a part behind, `.jaxpoly-*`).  Permissions of an older file are kept, and a
    symbolic link goes on pointing to what is written.  Equal values give equal bytes.

    Args:
        path: the file, by custom `NAME.npz`; its folder must exist.
        value: a `LowRank`, `QuadraticNetwork`, `Solution`, `Recovery` or `RankCurve`; a
            batch of them, with leading axes, too.

    Raises:
        TypeError: another kind of value, traced values, leaves that are no arrays of
            real numbers (a Python float, a key, bfloat16).
        ValueError: shapes of a matrix, a network or a solution that do not fit each other.
        OSError: the file cannot be written; an older one is left as it was.

    A fitted estimator is saved as scikit-learn advises (skops, joblib), or as its function
    of x, `save(path, model.to_network())`.

    >>> import tempfile, jax.numpy as jnp, jaxpoly as jp
    >>> low_rank = jp.LowRank(jnp.ones((2, 1)), jnp.array([-3.0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jp.save(folder + "/matrix.npz", low_rank)
    ...     jp.load(folder + "/matrix.npz").diagonal.tolist()
    [-3.0]
    """
    if type(value) not in KINDS.values():
        raise TypeError(f"value is a {type(value).__name__}; expected one of {', '.join(KINDS)}")
    arrays: dict[str, np.ndarray] = {}
    tree = _describe("", value, arrays)
    header = {"format": FORMAT, "jaxpoly": __version__, "tree": tree}
    _replace_file(Path(path), _pack(header, arrays))


def load(path: str | os.PathLike[str]) -> Any:
    """Return the value that `save` wrote, in the dtypes it had, on JAX's default device.

    Raises:
        ValueError: the file is damaged, is no file of `save`, or has a newer format.
        OSError: it cannot be read.

    Nothing in a file is executed.  The digest tells accidents, not intent: who writes a
    file can write other numbers.  Where `jax_enable_x64` is off, float64 is loaded as
    float32, with one warning.  For an example see `save`.
    """
    content = Path(path).read_bytes()
    if content[-64 - len(MARK) : -64] != MARK or content[-64:] != _digest(content[:-64]):
        raise ValueError(f"{path} is damaged, or is no file of jaxpoly.save")
    try:
        header, arrays = _unpack(content)
        if header["format"] > FORMAT:
            raise ValueError(
                f"its format is {header['format']}, written by jaxpoly {header['jaxpoly']}, and "
                f"this jaxpoly reads formats up to {FORMAT}"
            )
        value = _build("", header["tree"], arrays)
        if type(value) not in KINDS.values():
            raise TypeError(f"it holds a {type(value).__name__}")
        if arrays:
            raise ValueError(f"its arrays {', '.join(sorted(arrays))} belong to nothing")
        loaded = jax.tree.map(_on_device, value)
    except Exception as error:
        # Whatever a well-formed archive of something else makes the steps above stumble over.
        raise ValueError(f"{path} cannot be loaded: {error}") from error
    wide = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(value))
    if wide and jnp.result_type(float) == jnp.float32:
        message = f"{path} is float64 but jax_enable_x64 is off: loaded as float32"
        warnings.warn(message, stacklevel=2)
    return loaded


def _describe(name: str, value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return the entry of a value in the header; its arrays are added to `arrays`."""
    if value is None:
        return None
    if type(value) in KINDS.values():
        parts = {
            field.name: _describe(
                f"{name}.{field.name}".lstrip("."), getattr(value, field.name), arrays
            )
            for field in fields(value)
        }
        _check_fields(value)
        return {"kind": type(value).__name__, "fields": parts}
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name} is traced; expected numbers: call save outside jit, vmap and grad")
    is_array = isinstance(value, Array | np.ndarray | np.generic)
    if not is_array or isinstance(value, np.ma.MaskedArray) or value.dtype.name not in DTYPES:
        seen = f"an array of {value.dtype}" if is_array else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {seen}; expected a JAX or numpy array of {', '.join(DTYPES)}")
    arrays[name] = np.asarray(value, value.dtype.newbyteorder("="))
    return {"dtype": value.dtype.name, "shape": list(value.shape)}


def _build(name: str, entry: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return what an entry of the header describes; its arrays are taken from `arrays`."""
    if entry is None:
        return None
    if "kind" not in entry:
        array = arrays.pop(name)
        if array.dtype.name != entry["dtype"] or list(array.shape) != entry["shape"]:
            raise ValueError(f"{name} is {array.dtype} {array.shape} but its header says {entry}")
        return array
    kind = KINDS[entry["kind"]]
    if [field.name for field in fields(kind)] != list(entry["fields"]):
        raise ValueError(f"its {entry['kind']} has the fields {', '.join(entry['fields'])}")
    parts = {
        field: _build(f"{name}.{field}".lstrip("."), part, arrays)
        for field, part in entry["fields"].items()
    }
    value = kind(**parts)
    _check_fields(value)
    return value


def _check_fields(value: Any) -> None:
    """Refuse fields of another type than declared, and shapes that do not fit each other."""
    kind = type(value)
    for name, hint in get_type_hints(kind).items():
        part = getattr(value, name)
        arrays = (np.ndarray, np.generic) if hint is Array else ()
        if not isinstance(part, (*(get_args(hint) or (hint,)), *arrays)):
            raise TypeError(f"{name} of a {kind.__name__} is a {type(part).__name__}")
    sizes: dict[str, Any] = {}
    for name, axes in AXES.get(kind, {}).items():
        shape = attrgetter(name)(value).shape
        batch = shape[: max(0, len(shape) - len(axes))]
        found = dict(zip(("", *axes), (batch, *shape[len(batch) :]), strict=False))
        if len(found) <= len(axes) or any(sizes.setdefault(a, n) != n for a, n in found.items()):
            raise ValueError(f"{name} of a {kind.__name__} has the shape {shape}, others {sizes}")


def _pack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """Return an archive of the header and the arrays that ends with its digest."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # Each entry has the same date, so that equal values give equal bytes.
        archive.writestr(zipfile.ZipInfo(HEADER), json.dumps(header, indent=1))
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        archive.comment = MARK + bytes(64)
    content = buffer.getvalue()[:-64]
    return content + _digest(content)


def _unpack(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the header and the arrays of an archive."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read(HEADER))
        for name in archive.namelist():
            if name != HEADER:
                with archive.open(name) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                arrays[name.removesuffix(".npy")] = array
    return header, arrays


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _on_device(array: np.ndarray) -> Array:
    placed = jnp.asarray(array)
    if array.dtype.kind in "iu" and not np.array_equal(placed, array):
        raise ValueError(f"integers that {placed.dtype} cannot hold; switch jax_enable_x64 on")
    return placed


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file beside `path`, bring it to the disk and give it its name."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OSError(errno.EINVAL, "is there and is no regular file", os.fspath(path))
    temporary = target.with_name(f".jaxpoly-{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        # Under the name that the caller knows.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
