"""How far a run is: a live bar on a terminal, a line now and then in a log file."""

import sys
import time
from contextlib import suppress
from types import TracebackType

from tqdm import tqdm

# Nothing is shown of what takes less.
PATIENCE = 2.0
SECONDS_BETWEEN_LINES = 30.0
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}s, {rate_fmt}, {elapsed} gone, {remaining} left"


class Progress:
    """Counts what is done of a total; used in a `with` statement.

    Args:
        title: what runs.
        total: how many there are.
        done: how many of them were done before.
        unit: what is counted, in the singular.
        quiet: show nothing.
    """

    def __init__(
        self, title: str, total: int, done: int = 0, unit: str = "problem", quiet: bool = True
    ):
        self._title, self._total, self._done, self._unit = title, total, done, unit
        self._before, self._quiet = done, quiet
        self._began = self._shown = time.monotonic()
        self._bar = None
        if not quiet and sys.stderr.isatty():
            self._bar = tqdm(
                desc=title, total=total, initial=done, unit=unit, delay=PATIENCE, dynamic_ncols=True
            )

    def advance(self, count: int = 1) -> None:
        """Tell that `count` more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        last = self._done >= self._total and now - self._began > PATIENCE
        if not self._quiet and (last or now - self._shown > SECONDS_BETWEEN_LINES):
            self._shown = now
            meter = tqdm.format_meter(
                self._done,
                self._total,
                now - self._began,
                initial=self._before,
                prefix=self._title,
                unit=self._unit,
                bar_format=LINE,
            )
            # Whoever read the log may have gone; the run goes on.
            with suppress(BrokenPipeError):
                print(meter, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
