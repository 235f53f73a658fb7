"""A gateway as a process of its own, for tests that kill it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAIN = """
import sys
from pathlib import Path
from nwmctl.app.clock import SystemClock
from nwmctl.gateway.server import GatewayConfig, serve
database, mirror, ready = (Path(argument) for argument in sys.argv[1:4])
serve(GatewayConfig(database, mirror, ready_file=ready, tick_s=0.05), SystemClock())
"""


@dataclass
class Process:
    """A running gateway."""

    popen: subprocess.Popen[bytes]
    url: str
    ready: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(10)


@contextlib.contextmanager
def gateway(folder: Path, database: Path) -> Iterator[Process]:
    """Start a gateway on a free port, and see to it that it ends."""
    ready, mirror = folder / "ready.json", folder / "mirror"
    ready.unlink(missing_ok=True)
    mirror.mkdir(exist_ok=True)
    with (folder / "gateway.log").open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, "-c", _MAIN, str(database), str(mirror), str(ready)],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert popen.poll() is None, (folder / "gateway.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield Process(popen, json.loads(ready.read_text())["url"], ready)
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait()
