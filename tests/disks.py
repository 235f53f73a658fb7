"""A file system that is soon full, for tests of what happens then."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.real import require_real


@contextmanager
def small_disk(place: Path, size: int = 1 << 20) -> Iterator[Path]:
    """A file system in memory of ``size`` bytes, mounted on ``place``; skips where nothing may be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    require_real("a small file system", done, "run the tests as root, in a container that may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def free_bytes(disk: Path) -> int:
    """What may still be written there."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize
