"""Measurements in a Python process of their own, which prints one line of JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def measured(module: str, *arguments: str, num_devices: int | None = None) -> Any:
    """Return what a module prints that is run with these arguments; see `printed`."""
    return printed("-m", module, *arguments, num_devices=num_devices)


def printed(*arguments: str, num_devices: int | None = None) -> Any:
    """Return what a fresh Python process prints last.

    Args:
        arguments: its command line.
        num_devices: as many virtual devices on the CPU; None leaves them as they are.

    Raises:
        RuntimeError: the process failed; with what it said.
    """
    environment = dict(os.environ)
    # A cache on disk would hide the compilation.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if num_devices is not None:
        count = f"--xla_force_host_platform_device_count={num_devices}"
        flags = f"{environment.get('XLA_FLAGS', '')} {count}".strip()
        environment |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
