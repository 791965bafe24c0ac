"""Run a script in several processes that make one JAX job.

    python launch.py --processes 4 SCRIPT [ARGS]    starts four on this machine, for CPU
    srun python launch.py SCRIPT [ARGS]             joins the job of the cluster
    python launch.py --coordinator HOST:PORT --processes 4 --process 2 SCRIPT [ARGS]

The first form chooses a free port and starts the third one four times.  The script itself needs
nothing of this: JAX is initialised when it begins, and it runs alone as well.

The first process that fails ends the job: the others are told to end, after a grace period
killed, and its exit code is returned (128 + n for signal n).  Ctrl-C and SIGTERM end all too.
Needs nothing but JAX; copy it.
"""

import argparse
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from queue import SimpleQueue
from threading import Thread

GRACE = 3.0


def main() -> int:
    """Start the processes, or be one of them; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, help="how many in all")
    parser.add_argument("--devices", type=int, help="CPU devices of each process")
    parser.add_argument("--coordinator", help="address and free port of process 0")
    parser.add_argument("--process", type=int, help="which of them this is")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for the others")
    parser.add_argument("script")
    parser.add_argument("args", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.coordinator is None and options.process is not None:
        parser.error("--process is one of a job: it needs --coordinator and --processes")
    if options.coordinator is not None and not options.coordinator.rpartition(":")[2].isdigit():
        parser.error(f"--coordinator is {options.coordinator}; expected HOST:PORT")
    if options.processes is None or options.coordinator is not None:
        return join(options)
    if options.processes < 1:
        parser.error(f"--processes is {options.processes}; expected at least 1")
    return launch(options)


def launch(options: argparse.Namespace) -> int:
    """Start all processes on this machine and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{1}".format(*probe.getsockname())
    command = [sys.executable, __file__, "--coordinator", address]
    command += ["--processes", str(options.processes)]
    if options.devices is not None:
        command += ["--devices", str(options.devices)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    children: list[subprocess.Popen] = []
    # In the order of their ends.
    codes: SimpleQueue[int] = SimpleQueue()
    try:
        for process in range(options.processes):
            words = [*command, "--process", str(process), options.script, *options.args]
            # A session of its own: Ctrl-C comes to this process alone, which ends the others.
            child = subprocess.Popen(words, start_new_session=True)
            children.append(child)
            Thread(target=lambda child=child: codes.put(child.wait()), daemon=True).start()
        for _ in children:
            code = codes.get()
            if code:
                return code if code > 0 else 128 - code
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        end(children)


def end(children: list[subprocess.Popen]) -> None:
    """End the processes that still run."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    # JAX takes SIGTERM for a notice of preemption and goes on, hence the kill.
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GRACE
    for child in children:
        try:
            child.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def check_coordinator(options: argparse.Namespace) -> None:
    """End with a message where JAX would abort: a busy port, or nobody who answers at it."""
    host, _, port = options.coordinator.rpartition(":")
    address = host, int(port)
    if options.process == 0:
        try:
            with socket.create_server(address):
                return
        except OSError as error:
            sys.exit(f"process 0 cannot listen at {options.coordinator}: {error}; choose another")
    deadline = time.monotonic() + options.patience
    while True:
        try:
            with socket.create_connection(address, timeout=1):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"no coordinator at {options.coordinator}: {error}; is process 0 running?")
            time.sleep(0.1)


def join(options: argparse.Namespace) -> int:
    """Join the job and run the script."""
    if options.coordinator is not None and options.process is not None:
        check_coordinator(options)
    import jax

    if options.devices is not None:
        jax.config.update("jax_num_cpu_devices", options.devices)
    # What is None here comes from the environment of the cluster.
    jax.distributed.initialize(
        options.coordinator,
        options.processes,
        options.process,
        initialization_timeout=int(options.patience),
        heartbeat_timeout_seconds=10,
        shutdown_timeout_seconds=15,
    )
    sys.argv = [options.script, *options.args]
    sys.path[0] = os.path.dirname(os.path.abspath(options.script))
    try:
        runpy.run_path(options.script, run_name="__main__")
        return 0
    except SystemExit as error:
        if not error.code:
            return 0
        code = error.code
    except BaseException:
        code = traceback.format_exc()
    if not isinstance(code, int):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # If this one fails because another is gone, that one shall be the first to have ended.
    time.sleep(0.5)
    # At an ordinary exit JAX waits for the other processes, while they wait for this one.
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    sys.exit(main())
