"""The command line of the experiments: `python -m experiments NAME [options]`."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import tyro

from experiments import registry, report, results
from experiments.ledger import Ledger
from experiments.ledger_files import RefusedError, set_aside
from experiments.session import Executor, Session

Preset = Literal["smoke", "paper", "full"]
USAGE = """usage: python -m experiments NAME [--preset smoke|paper|full] [--seed N] [--out DIR]
                                  [--resume] [--devices N] [options of the experiment]
       python -m experiments report [--out DIR]
       python -m experiments list

Each experiment writes its results (netCDF or JSON, with all it takes to repeat them), its
figures (PNG and SVG) and a ledger of finished parts to --out.  `python -m experiments NAME
--help` tells its options.  Exit codes: 0 done, 1 refused or failed, 2 wrong usage,
130 interrupted (--resume goes on)."""


@dataclass(frozen=True)
class Options:
    """Where results go and how they are computed."""

    preset: Preset = "paper"
    """Sizes: smoke in seconds, paper as published or in README, full for the night."""
    out: Path = Path("results")
    """Folder for results, figures and ledger."""
    resume: bool = False
    """Go on with a run that was interrupted; what is finished is not computed again."""
    force: bool = False
    """With --resume: go on though code, versions or device differ."""
    devices: int | None = None
    """Devices to use, on CPU worker threads; all by default."""
    executor: Executor = "auto"
    """How many problems are solved at once; see experiments/session.py."""
    time_limit: float | None = None
    """Seconds that a batch of a sweep may take, compilation included.  The run then starts anew,
    solves the problems of that batch one by one, and gives up those that hang again."""
    quiet: bool = False
    """No progress."""


def run_experiment(name: str, args: Sequence[str]) -> None:
    """Run one experiment with the options in `args`."""
    module = registry.experiment(name)
    config, options = parse(name, module, args)
    jax.config.update("jax_enable_x64", True)
    if options.time_limit is not None and not options.time_limit > 0:
        raise ValueError(f"time-limit is {options.time_limit}; expected more than 0 seconds")
    session = Session(
        executor=options.executor,
        devices=options.devices,
        quiet=options.quiet,
        time_limit=options.time_limit,
    )
    marks = results.fingerprint(name, config) | {"executor": session.chosen_executor}
    damaged = results.check_free(options.out, name, marks["config"], options.resume)
    ledger = Ledger(options.out / f"{name}.db", marks, options.resume, options.force)
    try:
        for path in damaged:
            aside = set_aside(path)
            ledger.note(f"{path} was damaged and is written anew; the damaged file is {aside}")
        found = module.run(config, replace(session, ledger=ledger))
        target = results.path_of(found, options.out, name)
        if ledger.is_new and target.exists():
            set_aside(target)
        marks = results.provenance(ledger.fingerprints, ledger.seconds, ledger.notes)
        results.write(target, found, marks)
        ledger.finish()
        saved = results.read(target)
        module.draw(saved, options.out)
        print(module.table(saved))
    finally:
        ledger.close()
    print(f"\nResults and figures: {options.out}/{name}*")


def parse(name: str, module: registry.Experiment, args: Sequence[str]) -> tuple[Any, Options]:
    """Return config and options; the options of the config are on top of its preset."""
    # The preset gives the defaults, so it has to be known before the rest is read.
    words = " ".join(args).replace("--preset ", "--preset=").split()
    named = [word.partition("=")[2] for word in words if word.startswith("--preset=")]
    preset: Any = named[-1] if named and named[-1] in get_args(Preset) else "paper"
    default = module.PRESETS[preset]

    unnamed = tyro.conf.arg(name="")
    arguments = make_dataclass(
        "Arguments",
        [
            ("config", Annotated[module.Config, unnamed], field(default=default)),
            ("options", Annotated[Options, unnamed], field(default=Options(preset=preset))),
        ],
    )
    parsed: Any = tyro.cli(
        arguments,
        prog=f"python -m experiments {name}",
        description=module.__doc__,
        args=args,
    )
    return parsed.config, parsed.options


def listing() -> str:
    """Return the names of all experiments and what they show."""
    return "\n".join(f"{name:<18}{registry.summary(name)}" for name in registry.NAMES)


def main(args: Sequence[str] | None = None) -> int:
    """Run what the arguments name and return the exit code."""
    name, *rest = list(sys.argv[1:] if args is None else args) or ["--help"]
    if name in ("-h", "--help", "list"):
        print(listing() if name == "list" else f"{USAGE}\n\nexperiments:\n{listing()}")
        return 0
    if name != "report" and name not in registry.NAMES:
        print(f"no experiment is called {name!r}; there are:\n{listing()}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)
    try:
        if name == "report":
            page = tyro.cli(report.write_page, prog="python -m experiments report", args=rest)
            print(f"Report: {page}")
        else:
            run_experiment(name, rest)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RefusedError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _end(number: int, frame: object) -> None:
    """End with the code of the signal: the ledger holds what is finished."""
    print("ending; --resume goes on from the last finished part", file=sys.stderr, flush=True)
    # A second signal does not wait for what the workers are at.
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, lambda *_: os._exit(128 + number))
    raise SystemExit(128 + number)
