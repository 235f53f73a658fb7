"""Small things that every driver does: digest a payload, name versions, narrow a manifest to this machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path

from nwmctl.domain.digest import Digest

ABSENT = "absent"


def file_digest(path: Path) -> Digest:
    """The digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())


def version_of(package: str) -> str:
    """The installed version of a Python package, or ``absent``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def versions(*packages: str) -> str:
    """``name version`` of several packages, for fingerprints."""
    return ", ".join(f"{package} {version_of(package)}" for package in packages)


def packaged_program(package: str, inside: str) -> Path | None:
    """A program that a Python package carries at the path ``inside``, without importing it; None if there is none."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if os.access(Path(folder) / inside, os.X_OK):
            return Path(folder) / inside
    return None
