"""A process that does nothing but stream memory: what runs beside an artifact when a co-load is declared.

``python -m nwmctl.toolchains.streaming`` copies between two arrays that are larger than any cache, over and over,
until it is killed. It prints one line once it has been through both.
"""

from __future__ import annotations

import sys

import numpy as np

BYTES = 128 << 20
READY = b"streaming\n"


def main() -> None:
    """Copy for ever."""
    one, other = np.ones(BYTES // 8), np.ones(BYTES // 8)
    np.copyto(other, one)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    while True:
        np.copyto(one, other)
        np.copyto(other, one)


if __name__ == "__main__":
    main()
