"""How many problems are solved at once, without one waiting for another.

A worker takes problems from a queue and gives back what became of them.  On CPU there is
one worker thread a core and each solves problem after problem in one compiled `lax.map`.
On an accelerator a worker advances a batch of lanes by a few steps at a time and puts the
next problems into the lanes that have ended.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpoly as jp
from experiments.problems import Outcome, Point, Program

# Problems a call: few, since they are what a kill loses.
MAP_BATCH = 8
VMAP_BATCH = 256
# Lanes at most, and bytes that their inputs may take.
CPU_LANES, LANES, LANE_BYTES = 32, 512, 2**30
SEGMENT = 16


class Task(NamedTuple):
    """A problem and the key its outcome is recorded under."""

    key: str
    point: Point


class Office(NamedTuple):
    """What a worker has to do with the rest of the sweep.

    Attributes:
        queue: where tasks come from.
        emit: takes tasks and their outcomes.
        note: takes a sentence on what happened to the run.
        watch: a context for tasks that are being worked at, which ends those that hang.
    """

    queue: "Queue"
    emit: Callable[[list[Task], Outcome], None]
    note: Callable[[str], None]
    watch: Callable[[list[Task]], AbstractContextManager[None]]


class Queue:
    """Tasks by program, handed to workers so that each stays with its program while it can.

    A worker without one takes a program nobody has begun, so that two workers do not
    compile the same one at once, and helps others when all are begun.
    """

    def __init__(self, groups: Iterable[tuple[Program, Iterator[Task]]]):
        self._new = deque(groups)
        self._begun: dict[Program, Iterator[Task]] = {}
        self._lock = Lock()

    def take(self, program: Program | None, count: int) -> tuple[Program | None, list[Task]]:
        """Return up to `count` tasks of `program`, or else of another one; none at the end."""
        with self._lock:
            while True:
                if program not in self._begun:
                    if self._new:
                        program, tasks = self._new.popleft()
                        self._begun[program] = tasks
                    elif self._begun:
                        program = next(iter(self._begun))
                    else:
                        return None, []
                batch = self._next(program, count)
                if batch:
                    return program, batch

    def more(self, program: Program, count: int) -> list[Task]:
        """Return up to `count` further tasks of this program and no other."""
        with self._lock:
            return self._next(program, count) if program in self._begun else []

    def _next(self, program: Program, count: int) -> list[Task]:
        tasks = self._begun[program]
        batch = [task for _, task in zip(range(count), tasks, strict=False)]
        if not batch:
            del self._begun[program]
        return batch

    def close(self) -> None:
        """Hand out nothing more."""
        with self._lock:
            self._new.clear()
            self._begun.clear()


def work(executor: str, office: Office) -> None:
    """Take tasks until there are none; the body of a worker."""
    if executor == "refill":
        refill(office)
        return
    size = MAP_BATCH if executor == "map" else VMAP_BATCH
    program, tasks = office.queue.take(None, size)
    while program is not None:
        while tasks:
            batch = tasks[:size]
            points = stack([task.point for task in batch], size)
            try:
                with office.watch(batch):
                    outcomes = jax.device_get(solve_batch(program, executor, points))
            except jax.errors.JaxRuntimeError as error:
                size = halved(size, program, error)
                office.note(f"out of memory: batches of {size} from here on ({program})")
                continue
            office.emit(batch, outcomes)
            tasks = tasks[size:]
        program, tasks = office.queue.take(program, size)


def halved(size: int, program: Program, error: jax.errors.JaxRuntimeError) -> int:
    """Return half of a batch size if the memory ran out.

    Raises:
        MemoryError: a single problem does not fit; any other error as it is.
    """
    # A computation that others wait for passes the lack on as INTERNAL, with the same words.
    if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory")):
        raise error
    if size == 1:
        raise MemoryError(f"one problem does not fit into memory: {program}: {error}") from error
    return size // 2


@partial(jax.jit, static_argnames=("program", "executor"))
def solve_batch(program: Program, executor: str, points: Point) -> Outcome:
    """Solve a batch of problems of one program, one by one ("map") or at once ("vmap")."""
    if executor == "map":
        return jax.lax.map(program.solve, points)
    return jax.vmap(program.solve)(points)


def stack(points: list[Point], size: int) -> Point:
    """Return the points as one, filled up to `size` by copies that take no steps."""
    idle = points[0]._replace(max_steps=np.int32(0))
    filled = points + [idle] * (size - len(points))
    return Point(*(np.stack(column) for column in zip(*filled, strict=True)))


class Lanes(NamedTuple):
    """Problems being solved side by side; a leading axis in every array."""

    problem: jp.Problem
    point: Any
    run: jp.Run


def refill(office: Office) -> None:
    """Solve side by side, putting new problems into lanes that have ended."""
    program, tasks = office.queue.take(None, 1)
    while program is not None:
        width, held = num_lanes(program), {task.key: task for task in tasks}
        while held:
            try:
                refill_program(program, held, width, office)
            except jax.errors.JaxRuntimeError as error:
                # What was in the lanes begins again, in fewer.
                width = halved(width, program, error)
                office.note(f"out of memory: {width} lanes from here on ({program})")
        program, tasks = office.queue.take(None, 1)


def num_lanes(program: Program) -> int:
    """Return how many problems of a program are solved side by side, a power of two."""
    most = CPU_LANES if jax.default_backend() == "cpu" else LANES
    fitting = LANE_BYTES // (8 * program.capacity * program.dim)
    return 2 ** int(np.log2(np.clip(fitting, 4, most)))


def refill_program(program: Program, held: dict[str, Task], width: int, office: Office) -> None:
    """Solve the tasks and all others of their program; `held` is what has no outcome yet."""
    share = max(1, width // 4)
    waiting = deque(held.values())
    owners: list[Task | None] = [None] * width
    lanes: Lanes | None = None
    more = True
    while True:
        free = [lane for lane, owner in enumerate(owners) if owner is None]
        while (more or waiting) and len(free) >= share:
            missing = share - len(waiting)
            if more and missing > 0:
                fetched = office.queue.more(program, missing)
                more = len(fetched) == missing
                held |= {task.key: task for task in fetched}
                waiting.extend(fetched)
            tasks = [waiting.popleft() for _ in range(min(share, len(waiting)))]
            if not tasks:
                break
            with office.watch(tasks):
                fresh = begin_lanes(program, stack([task.point for task in tasks], share))
                places, free = free[: len(tasks)], free[share:]
                if lanes is None:
                    lanes = choose(fresh, np.arange(width) % share)
                unused = [width] * (share - len(tasks))
                lanes = place(lanes, fresh, np.array(places + unused))
            for lane, task in zip(places, tasks, strict=True):
                owners[lane] = task
        active = [lane for lane, owner in enumerate(owners) if owner is not None]
        if not active or lanes is None:
            return
        if not more and not waiting and width > 4 and len(active) <= width // 4:
            # The last ones go on in fewer lanes.
            width = width // 4
            kept = active + [active[0]] * (width - len(active))
            lanes = choose(lanes, np.array(kept))
            owners = [owners[lane] for lane in active] + [None] * (width - len(active))
        with office.watch([owner for owner in owners if owner is not None]):
            lanes = advance_lanes(program, lanes)
            status, num_steps = jax.device_get((lanes.run.best.status, lanes.run.best.num_steps))
        ended = [
            (lane, owner)
            for lane, owner in enumerate(owners)
            if owner is not None
            and (status[lane] != jp.Status.MAX_STEPS or num_steps[lane] >= owner.point.max_steps)
        ]
        if ended:
            outcomes = jax.device_get(lane_outcomes(program, lanes))
            rows = np.array([lane for lane, _ in ended])
            office.emit([owner for _, owner in ended], Outcome(*(leaf[rows] for leaf in outcomes)))
            for lane, owner in ended:
                owners[lane] = None
                del held[owner.key]


@partial(jax.jit, static_argnames="program")
def begin_lanes(program: Program, points: Point) -> Lanes:
    """Draw problems and begin their runs."""

    def begin(point: Point) -> Lanes:
        problem, key = program.problem(point)
        data = problem.lifting, problem.targets
        return Lanes(problem, point, jp.init_run(program.solver, *data, key, point.rtol))

    return jax.vmap(begin)(points)


@partial(jax.jit, static_argnames="program", donate_argnames="lanes")
def advance_lanes(program: Program, lanes: Lanes) -> Lanes:
    """Take a few steps in every lane."""

    def advance(lane: Lanes) -> Lanes:
        data = lane.problem.lifting, lane.problem.targets
        left = jnp.minimum(SEGMENT, lane.point.max_steps - lane.run.best.num_steps)
        run = jp.advance(program.solver, *data, lane.run, left, lane.point.rtol)
        return lane._replace(run=run)

    return jax.vmap(advance)(lanes)


@partial(jax.jit, static_argnames="program")
def lane_outcomes(program: Program, lanes: Lanes) -> Outcome:
    """Return what is kept of every lane."""
    return jax.vmap(program.outcome)(lanes.problem.truth, jax.vmap(jp.finish)(lanes.run))


@partial(jax.jit, donate_argnames="lanes")
def place(lanes: Lanes, fresh: Lanes, places: Array) -> Lanes:
    """Put fresh lanes into the places; those beyond the last lane are dropped."""
    return jax.tree.map(lambda old, new: old.at[places].set(new, mode="drop"), lanes, fresh)


@jax.jit
def choose(lanes: Lanes, places: Array) -> Lanes:
    """Return the lanes at the places."""
    return jax.tree.map(lambda leaf: leaf[places], lanes)
