"""The sweep engine: a grid of planted problems, solved and recorded batch by batch.

Every problem is derived from the seed, its cell and its trial alone.  With the executor
"map" its outcome is bitwise the same whatever the grid, the order, the number of workers or
the interruptions; the others multiply in batches, which round otherwise, and agree with it to
the tolerance of the solver.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import jax
import numpy as np
import xarray as xr

from experiments.executors import MAP_BATCH, Office, Queue, Task, solve_batch, stack, work
from experiments.ledger import Ledger
from experiments.problems import Cell, Outcome, Program
from experiments.session import Session
from experiments.watchdog import time_limit

# Records of problems that were being solved when a batch took too long.
SUSPECT = "suspect/"
GIVEN_UP = [math.nan, math.nan, math.nan, -1, 0]  # as an Outcome


def sweep(name: str, cells: list[Cell], trials: int, seed: int, session: Session) -> xr.Dataset:
    """Solve `trials` problems of every cell that the ledger does not have yet.

    Args:
        name: prefix of the records, and title of the progress.
        cells: the grid, as a list without repetition.
        trials: problems a cell.
        seed: of everything random.
        session: ledger, executor, devices.

    Returns:
        A Dataset with dimensions cell and trial: relative and spectral error, relative
        residual, status and number of steps; the numbers of the cells are coordinates.

    Raises:
        ValueError: the same cell twice, or none; trials or seed out of range.
        OSError: the ledger cannot be written.
    """
    if not cells or trials < 1 or not 0 <= seed < 2**32:
        raise ValueError(
            f"the grid has {len(cells)} cells, trials is {trials} and seed {seed}; expected at "
            "least one cell, one trial, and a seed from 0 to 2^32 - 1"
        )
    if len(set(cells)) < len(cells):
        raise ValueError("the grid has the same cell twice; expected each once")
    total = len(cells) * trials
    ledger = session.ledger
    groups = list(_groups(name, cells, trials, seed, ledger))
    with (
        session.progress(name, total, ledger.count(f"{name}/")) as progress,
        _workers(Queue(groups), session) as batches,
    ):
        for batch in batches:
            ledger.add(batch)
            progress.advance(len(batch))
        for program, tasks in _groups(name, cells, trials, seed, ledger, suspect=True):
            for task in tasks:
                _solve_alone(program, task, session)
                progress.advance()
    return _collect(name, cells, trials, ledger)


def _groups(
    name: str, cells: list[Cell], trials: int, seed: int, ledger: Ledger, suspect: bool = False
) -> Iterator[tuple[Program, Iterator[Task]]]:
    """Yield the unfinished tasks of every program; dear programs first, to end together.

    Those that were in a batch that took too long are left out, or yielded alone.
    """
    by_program: dict[Program, list[Cell]] = {}
    for cell in cells:
        by_program.setdefault(cell.program, []).append(cell)

    def tasks(members: list[Cell]) -> Iterator[Task]:
        for cell in members:
            for trial in range(trials):
                key = f"{name}/{cell.name}/{trial:06d}"
                if not ledger.has(key) and ledger.has(SUSPECT + key) == suspect:
                    yield Task(key, cell.point(seed, trial))

    def cost(program: Program) -> float:
        return program.capacity * program.dim * program.rank

    for program in sorted(by_program, key=cost, reverse=True):
        yield program, tasks(by_program[program])


def _solve_alone(program: Program, task: Task, session: Session) -> None:
    """Solve one problem in a batch of its own and record it, as given up if it hangs again."""
    ledger = session.ledger

    def give_up() -> None:
        ledger.add({task.key: GIVEN_UP})
        ledger.note(f"given up after {session.time_limit:g} s: {task.point} of {program}")

    with time_limit(session.time_limit, give_up):
        points = stack([task.point], MAP_BATCH)
        outcome = jax.device_get(solve_batch(program, "map", points))
    ledger.add({task.key: [column[0].item() for column in outcome]})


def _watch(session: Session, tasks: list[Task]) -> AbstractContextManager[None]:
    """Return a context that suspects the tasks, and starts anew without, if it takes too long."""
    suspects = {SUSPECT + task.key: True for task in tasks}
    return time_limit(session.time_limit, partial(session.ledger.add, suspects))


@contextmanager
def _workers(queue: Queue, session: Session) -> Iterator[Iterator[dict[str, Any]]]:
    """Run the workers; give what they finish as records, in transactions of what has come in.

    After an interruption every worker finishes the batch it is at.
    """
    inbox: SimpleQueue[Any] = SimpleQueue()

    def emit(tasks: list[Task], outcomes: Outcome) -> None:
        columns = [np.asarray(leaf)[: len(tasks)].tolist() for leaf in outcomes]
        rows = zip(*columns, strict=True)
        inbox.put({task.key: list(row) for task, row in zip(tasks, rows, strict=True)})

    office = Office(queue, emit, session.ledger.note, partial(_watch, session))

    def body(device: jax.Device) -> None:
        try:
            with jax.default_device(device):
                work(session.chosen_executor, office)
        except BaseException as error:
            queue.close()
            inbox.put(error)
        finally:
            inbox.put(None)

    devices = jax.local_devices()
    threads = [
        Thread(target=body, args=(devices[number % len(devices)],), daemon=True)
        for number in range(session.num_workers)
    ]

    def batches() -> Iterator[dict[str, Any]]:
        running = len(threads)
        while running:
            message = inbox.get()
            batch: dict[str, Any] = {}
            while isinstance(message, dict):
                batch |= message
                message = {} if inbox.empty() else inbox.get()
                if not message:
                    break
            if batch:
                yield batch
            if isinstance(message, BaseException):
                raise message
            running -= message is None

    for thread in threads:
        thread.start()
    try:
        yield batches()
    finally:
        queue.close()
        for thread in threads:
            thread.join()
        # After an interruption: what the workers have finished since.
        rest: dict[str, Any] = {}
        while not inbox.empty():
            message = inbox.get()
            rest |= message if isinstance(message, dict) else {}
        if rest:
            session.ledger.add(rest)


def _collect(name: str, cells: list[Cell], trials: int, ledger: Ledger) -> xr.Dataset:
    """Return the records of the grid as one table."""
    index = {cell.name: number for number, cell in enumerate(cells)}
    columns = {
        field: np.full((len(cells), trials), *((-1, np.int32) if field in INTEGERS else (np.nan,)))
        for field in Outcome._fields
    }
    for key, row in ledger.records(f"{name}/"):
        _, cell, trial = key.rsplit("/", 2)
        if cell in index and int(trial) < trials:
            for field, value in zip(Outcome._fields, row, strict=True):
                columns[field][index[cell], int(trial)] = value
    coordinates = {
        field: ("cell", [_coordinate(getattr(cell, field)) for cell in cells])
        for field in COORDINATES
    }
    table = xr.Dataset(
        {field: (("cell", "trial"), column) for field, column in columns.items()},
        coords=coordinates,
    )
    for field, text in DESCRIPTIONS.items():
        table[field].attrs["long_name"] = text
    return table


def _coordinate(value: Any) -> Any:
    return math.nan if value is None else value


INTEGERS = ("status", "num_steps")
COORDINATES = (
    "solver",
    "dim",
    "rank",
    "num_samples",
    "signs",
    "condition",
    "noise",
    "inputs",
    "max_steps",
    "rtol",
)
DESCRIPTIONS = {
    "relative_error": "|L - L*|_F / |L*|_F",
    "spectral_error": "|L - L*|_2 / |L*|_2",
    "relative_residual": "norm of A(L) + c - y over that of y - mean(y)",
    "status": "jaxpoly.Status: 0 converged, 1 stationary, 2 out of steps, 3 stalled, "
    "4 diverged; -1 given up after the time limit",
    "num_steps": "steps taken",
    "num_samples": "samples m",
    "dim": "inputs p",
    "rank": "neurons r",
    "condition": "largest over smallest magnitude of the eigenvalues; NaN: a Gaussian factor",
    "noise": "standard deviation of the noise of y",
}
