"""Command line: `python -m experiments NAME --help`."""

import os
import sys

# LAPACK's threads wait for each other on every small eigenproblem, which takes
# seventy times longer as soon as another process keeps one of two cores busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from experiments.cli import main

sys.exit(main())
