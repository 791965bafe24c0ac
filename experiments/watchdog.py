"""A limit on the wall-clock time of what a worker is at.

Python cannot interrupt compiled code.  What takes too long is written down, and the process
starts anew in its own place and goes on with the rest.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any


def start_anew() -> None:
    """Replace this process by one of the same command that resumes; compiled code ends too."""
    command = sys.orig_argv if "--resume" in sys.orig_argv else [*sys.orig_argv, "--resume"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *command[1:]])


@contextmanager
def time_limit(seconds: float | None, when_late: Callable[[], Any]) -> Iterator[None]:
    """Call `when_late`, then start the process anew, if the body takes more than `seconds`.

    The body runs in any thread, and nothing happens if it ends in time or raises.
    """
    if seconds is None:
        yield
        return

    def late() -> None:
        when_late()
        start_anew()

    timer = Timer(seconds, late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
