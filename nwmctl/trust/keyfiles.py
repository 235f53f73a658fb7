"""Files of a key folder, written: private ones once and readable by their owner alone, others replaced by renaming.

Every write is on the disk before it counts. A finished root is kept as ``N.root.json`` or ``N.director-root.json`` and
is never replaced by another. Knows no key and decides nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import KeyRingError, KeyRingExistsError
from nwmctl.trust.ring import KeyRing


def keep_root(ring: KeyRing, root: bytes, version: int, role: KeyRole = KeyRole.ROOT, reference: bytes = b"") -> Path:
    """Keep a finished root of the image repository, or of the director (``role``); ``reference`` is the same root in
    the reference dialect. Raises KeyRingExistsError for a version that is kept with other bytes, KeyRingError."""
    path = ring.root_path(version, role)
    try:
        if path.exists() and path.read_bytes() != root:
            raise KeyRingExistsError(
                f"version {version} of the root is kept already, with other content",
                why="vehicles may have seen it; a root is never replaced",
                next="draft the next version on top of it",
            )
        if reference:
            # First, because a root counts as finished when its own file is there.
            replace_file(ring.reference_path(version, role), reference)
        replace_file(path, root)
    except OSError as problem:
        raise unwritable(ring.folder, problem) from problem
    return path


def free_name(folder: Path, stem: str, *, numbered: bool) -> str:
    """A name for a key's files that no other key has."""

    # A key behind a URI has no private file here, but a public one.
    def taken(name: str) -> bool:
        return any((folder / f"{name}.{kind}").exists() for kind in ("pem", "pub"))

    if not numbered and not taken(stem):
        return stem
    number = 1 if numbered else 2
    while taken(f"{stem}-{number}"):
        number += 1
    return f"{stem}-{number}"


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what was there."""
    hidden = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        write_new(hidden, data, 0o644)
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(folder: Path, problem: OSError) -> KeyRingError:
    """A refusal of the file system."""
    return KeyRingError(
        f"the key folder '{folder.name}' cannot be written",
        why=str(problem.strerror or problem),
        next="choose a folder that you may write to",
    )
