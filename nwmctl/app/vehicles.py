"""``python -m nwmctl.app.vehicles CONFIG [PARENT]``: drives the vehicles of a virtual fleet.

Ends when it is asked to, or when the process that started it (its id is PARENT) has ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from nwmctl.app.clock import SystemClock
from nwmctl.app.parent import end_with_parent
from nwmctl.errors import NwmError
from nwmctl.toolchains.registry import runtimes_here, toolchain
from nwmctl.trust.payload_key import load_payload_key
from nwmctl.vehicle.inference import inference, lacking
from nwmctl.vehicle.machine import Senses
from nwmctl.vehicle.run import load_config, run_vehicles


def main() -> int:
    """Entry of the process."""
    # A killed parent must not leave vehicles polling a gateway that is gone.
    end_with_parent(int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())

    def observe(vin: str, text: str) -> None:
        sys.stderr.write(f"{vin}: {text}\n")

    try:
        config = load_config(Path(sys.argv[1]))
        key = load_payload_key(config.payload_key).secret if config.payload_key else None
        senses = Senses(SystemClock(), inference(toolchain), lacking(toolchain), runtimes_here, key)
        asyncio.run(run_vehicles(config, senses, observe=observe))
    except NwmError as problem:
        sys.stderr.write(f"{problem.what}: {problem.why}\n")
        return int(problem.exit_code)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
