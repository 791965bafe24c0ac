"""The command line of the experiments."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments import quickstart, recovery


def run_quickstart(
    config: Annotated[quickstart.Config, tyro.conf.arg(name="")],
    out: Path = Path("results"),
) -> None:
    """Learn a planted network with all three algorithms, then the handwritten digits.

    Args:
        config: sizes and seed.
        out: folder for the results and figures.
    """
    jax.config.update("jax_enable_x64", True)
    quickstart.main(config, out)


def run_recovery(
    config: Annotated[recovery.Config, tyro.conf.arg(name="")],
    out: Path = Path("results"),
) -> None:
    """Count how often each solver finds the planted network, the paper's setting included.

    Args:
        config: trials and seed.
        out: folder for the results.
    """
    jax.config.update("jax_enable_x64", True)
    recovery.main(config, out)


def main(args: Sequence[str] | None = None) -> None:
    """Run the experiment that the arguments name."""
    if args is None:
        args = sys.argv[1:]
    tyro.extras.subcommand_cli_from_dict(
        {"quickstart": run_quickstart, "recovery": run_recovery},
        prog="python -m experiments",
        description="Experiments with jaxpoly; each writes its results and figures to a folder.",
        args=args,
    )
