"""Real counterparties: skip where one is missing, fail where the run demands them all."""

from __future__ import annotations

import os
import shutil

import pytest


def require_real(name: str, present: bool, install: str) -> None:
    """Go on if the counterparty is ``present``; else skip, or fail where NWMCTL_REQUIRE_REAL=1."""
    if present:
        return
    reason = f"real counterparty '{name}' is missing; install it with: {install}"
    if os.environ.get("NWMCTL_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def require_program(program: str, package: str) -> str:
    """The path of a program from a Debian package, or skip/fail."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    require_real(program, path is not None, f"apt-get install {package}")
    assert path is not None
    return path
