"""The command line of the experiments."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments import energy_model, limits, quickstart, real_data, recovery


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


def run_energy_model(
    config: Annotated[energy_model.Config, tyro.conf.arg(name="")],
    out: Path = Path("results"),
) -> None:
    """Find the filters of a simulated visual cell, beside spike-triggered covariance.

    Args:
        config: the cell, sizes and seed.
        out: folder for the results and figures.
    """
    jax.config.update("jax_enable_x64", True)
    energy_model.main(config, out)


def run_limits(
    config: Annotated[limits.Config, tyro.conf.arg(name="")],
    out: Path = Path("results"),
) -> None:
    """Count how often planted networks are found close to the limit and on unruly data.

    Args:
        config: trials, grid and seed.
        out: folder for the results and figure.
    """
    jax.config.update("jax_enable_x64", True)
    limits.main(config, out)


def run_real_data(
    config: Annotated[real_data.Config, tyro.conf.arg(name="")],
    out: Path = Path("results"),
) -> None:
    """Score quadratic networks on real data beside linear, degree-2 and boosted models.

    Args:
        config: splits and seed.
        out: folder for the results and figure.
    """
    jax.config.update("jax_enable_x64", True)
    real_data.main(config, out)


def main(args: Sequence[str] | None = None) -> None:
    """Run the experiment that the arguments name."""
    if args is None:
        args = sys.argv[1:]
    tyro.extras.subcommand_cli_from_dict(
        {
            "quickstart": run_quickstart,
            "recovery": run_recovery,
            "limits": run_limits,
            "energy-model": run_energy_model,
            "real-data": run_real_data,
        },
        prog="python -m experiments",
        description="Experiments with jaxpoly; each writes its results and figures to a folder.",
        args=args,
    )
