"""Results on disk: one file an experiment, whole or not there, with its provenance.

A table of a sweep is an `xarray.Dataset` and becomes netCDF; all else becomes JSON.
"""

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxpoly
from experiments.ledger import plain
from experiments.ledger_files import RefusedError

Results = dict[str, Any] | xr.Dataset
PACKAGES = ("jaxpoly", "jax", "jaxlib", "optax", "numpy", "scikit-learn", "xarray")


def fingerprint(name: str, config: Any) -> dict[str, Any]:
    """Return what has to agree for two runs to give the same results."""
    return {
        "experiment": name,
        "config": dataclasses.asdict(config),
        "versions": {package: version(package) for package in PACKAGES}
        | {"python": platform.python_version()},
        "code": _source_digest(),
        "dtype": str(jnp.result_type(float)),
        "platform": jax.default_backend(),
    }


def provenance(
    fingerprints: list[dict[str, Any]], seconds: float, notes: list[str] | None = None
) -> dict[str, Any]:
    """Return what it takes to repeat a run: its fingerprint, commit, device and wall time.

    A run that was continued under others, by force, tells these too, and one that met with
    damage, a lack of memory or a problem that hung says so in its notes.
    """
    device = jax.devices()[0]
    others: dict[str, Any] = {"notes": notes} if notes else {}
    if len(fingerprints) > 1:
        others["continued_under"] = fingerprints[1:]
    return (
        fingerprints[0]
        | others
        | {
            "commit": _commit(),
            "device": f"{device.device_kind} ({device.platform}) x {jax.device_count()}",
            "cpu_model": _cpu_model(),
            "cpu_cores": os.cpu_count(),
            "wall_seconds": round(seconds, 2),
        }
    )


def _cpu_model() -> str:
    """Return the name of the processor, or its family where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@cache
def _source_digest() -> str:
    """Return a digest of the source of the package and of the experiments."""
    digest = hashlib.sha256()
    for folder in (Path(jaxpoly.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _commit() -> str:
    """Return the commit of this checkout, with a mark if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def path_of(results: Results, folder: Path, name: str) -> Path:
    """Return the file that results are written to."""
    return folder / (f"{name}.nc" if isinstance(results, xr.Dataset) else f"{name}.json")


def write(path: Path, results: Results, provenance: dict[str, Any]) -> None:
    """Write results so that a reader or a crash never meets half a file.

    Raises:
        OSError: the folder cannot be written; an older file is left as it was.
    """
    if isinstance(results, xr.Dataset):
        described = results.assign_attrs(provenance=json.dumps(provenance, default=plain))
        described = described.assign_attrs(digest=_digest(described))
        replace_file(path, lambda temporary: described.to_netcdf(temporary, engine="scipy"))
    else:
        payload = json.dumps(results | {"provenance": provenance}, default=plain)
        finite = _finite(json.loads(payload))
        text = json.dumps(finite | {"digest": _digest(finite)}, indent=1, allow_nan=False)
        replace_file(path, lambda temporary: Path(temporary).write_text(text))


def _digest(results: Results) -> str:
    """Return a digest of all numbers and of the provenance."""
    entries = results.to_dict() if isinstance(results, xr.Dataset) else dict(results)
    entries.pop("digest", None)
    entries.get("attrs", {}).pop("digest", None)
    text = json.dumps(entries, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_free(folder: Path, name: str, config: dict[str, Any], resume: bool) -> list[Path]:
    """Refuse to write over results of another config, or over a file that is none.

    Returns:
        Damaged files, which a resumed run may set aside and write again from its ledger.

    Raises:
        RefusedError: naming the file.
    """
    damaged = []
    for suffix in (".nc", ".json"):
        path = folder / (name + suffix)
        if path.exists():
            try:
                found = provenance_of(read(path))["config"]
            except ValueError as error:
                if not resume:
                    raise RefusedError(
                        f"{error}; move it away, write it again from its ledger with --resume, "
                        "or use --out"
                    ) from error
                damaged.append(path)
                continue
            if found != json.loads(json.dumps(config, default=plain)):
                raise RefusedError(f"{path} holds results of another config; use another --out")
    return damaged


def replace_file(path: Path, save: Callable[[str], Any]) -> None:
    """Write a temporary file, bring it to the disk and give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # Temporary files are for their owner alone; results are as open as other files.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path) -> Results:
    """Return the results of a file; their provenance is the entry or attribute of that name.

    Raises:
        ValueError: the file is damaged or no file of results.
    """
    try:
        if path.suffix == ".nc":
            with xr.open_dataset(path, engine="scipy") as saved:
                table: Any = saved.load()
            found = table.attrs["digest"]
            marks = json.loads(table.attrs["provenance"])
        else:
            table = json.loads(path.read_text())
            found, marks = table["digest"], table["provenance"]
        if found != _digest(table):
            raise ValueError("its numbers do not match its digest")
        marks["config"]
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged or no file of results: {error}") from error
    if isinstance(table, xr.Dataset):
        return table.assign_attrs(provenance=marks)
    return table


def provenance_of(saved: Results) -> dict[str, Any]:
    """Return the provenance of results that were read."""
    return saved.attrs["provenance"] if isinstance(saved, xr.Dataset) else saved["provenance"]


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
