"""The product's worker with the clock of its own CPU time: ``python -m benchmarks.cpu_worker ORDER``.

On a machine that others use as well, wall clock tells how often an execution was interrupted. One thread executes, so
its CPU time is what the wall clock shows where nobody else is.
"""

from __future__ import annotations

import sys
import time

from nwmctl.toolchains import runtimes, worker

if __name__ == "__main__":
    runtimes._now = time.process_time
    sys.exit(worker.main(sys.argv[1:]))
