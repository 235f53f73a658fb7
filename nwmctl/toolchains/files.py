"""Small things that every driver does: digest a payload, name versions, narrow a manifest to this machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
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
