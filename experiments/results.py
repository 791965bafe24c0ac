"""Results on disk: one JSON file an experiment, whole or not there, with its provenance."""

import dataclasses
import json
import os
import platform
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def provenance(config: Any, seconds: float) -> dict[str, Any]:
    """Return what it takes to repeat a run: config, versions, commit, device, dtype, time."""
    device = jax.devices()[0]
    packages = ("jaxpoly", "jax", "jaxlib", "optax", "numpy", "scikit-learn")
    return {
        "config": dataclasses.asdict(config),
        "versions": {name: version(name) for name in packages}
        | {"python": platform.python_version()},
        "commit": _commit(),
        "device": f"{device.device_kind} ({device.platform}) x {jax.device_count()}",
        "cpu_cores": os.cpu_count(),
        "dtype": str(jnp.result_type(float)),
        "wall_seconds": round(seconds, 2),
    }


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


def write(path: Path, payload: dict[str, Any]) -> None:
    """Write JSON so that a reader or a crash never meets half a file.

    Raises:
        OSError: the folder cannot be written; an older file is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(payload, file, default=_plain, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path) -> dict[str, Any]:
    """Return the payload of a results file."""
    return json.loads(path.read_text())


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    raise TypeError(f"cannot write a {type(value).__name__} to JSON")
