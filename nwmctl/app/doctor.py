"""What is installed here, what works, and what to install for the rest. Changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from nwmctl.app.settings import Settings
from nwmctl.errors import NwmError

if TYPE_CHECKING:
    from nwmctl.app.keychanges import Watched


class Health(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and will not for much longer."""
    OPTIONAL = "optional"
    """Not here; something is then `not_run` or cannot be used, and nothing else suffers."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``install`` says what to type."""

    group: str
    name: str
    health: Health
    detail: str
    install: str = ""


_COUNTERPARTS = (
    ("swupdate", "swupdate", "the real vehicle client, for tests of bundles and gateway"),
    ("sshd", "openssh-server", "a real SFTP mirror on loopback, for tests"),
    ("qemu-aarch64-static", "qemu-user-static", "executes Arm artifacts: 'emulated' evidence"),
    ("llvm-objdump", "llvm", "reads instructions out of Arm payloads"),
    ("node", "nodejs npm", "tuf-js verifies our repository, for tests"),
)


def examine(settings: Settings) -> list[Finding]:
    """Everything, in the order of reading."""
    return [*_base(settings), *_toolchains(), *_counterparts(), *_hardware(), *_keys(settings), *_expiries(settings)]


def _base(settings: Settings) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding(
        "base", "python", Health.OK if good else Health.PROBLEM, python, "" if good else "Python 3.11 or newer"
    )
    for package in ("onnxruntime", "onnx", "tuf", "cryptography", "paramiko"):
        try:
            yield Finding("base", package, Health.OK, version(package))
        except PackageNotFoundError:
            yield Finding("base", package, Health.PROBLEM, "not installed", f"pip install {package}")
    cores = len(os.sched_getaffinity(0))
    yield Finding("base", "cores", Health.OK, f"{cores} for this process; {settings.workers} steps at a time")
    place = settings.workspace if settings.workspace.exists() else Path()
    free = shutil.disk_usage(place).free >> 20
    health = Health.OK if free > 2000 else Health.PROBLEM
    yield Finding(
        "base", "workspace", health, f"{settings.workspace}, {free} MB free", "" if free > 2000 else "free space"
    )


def _toolchains() -> Iterator[Finding]:
    from nwmctl.app.compose import toolchain_registry

    for probe in toolchain_registry().probe_all():
        health = Health.OK if probe.available else Health.OPTIONAL
        detail = f"{probe.version}  {probe.detail}".strip()
        yield Finding("toolchains", probe.name, health, detail, probe.install)
    yield _assembler()
    yield _model_signatures()


def _model_signatures() -> Finding:
    from nwmctl.sources import openssf

    purpose = "judges models that carry an OpenSSF signature"
    if absent := openssf.missing_packages():
        detail = f"not installed ({', '.join(absent)}): {purpose}"
        return Finding("toolchains", "model-signing", Health.OPTIONAL, detail, openssf.INSTALL)
    return Finding("toolchains", "model-signing", Health.OK, f"{version('model-signing')}  {purpose}")


def _assembler() -> Finding:
    from nwmctl.toolchains import ptxas

    purpose = "assembles GPU code: the recipe's option 'machine_code', and a check of PTX"
    if ptxas.missing():
        return Finding("toolchains", ptxas.TOOL, Health.OPTIONAL, f"not installed: {purpose}", ptxas.INSTALL)
    return Finding("toolchains", ptxas.TOOL, Health.OK, f"{ptxas.version()}  {purpose}")


def _counterparts() -> Iterator[Finding]:
    for program, package, purpose in _COUNTERPARTS:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if path:
            yield Finding("real counterparties", program, Health.OK, f"{path}  {purpose}")
        else:
            install = f"apt-get install {package}"
            yield Finding("real counterparties", program, Health.OPTIONAL, f"not here: {purpose}", install)


def _hardware() -> Iterator[Finding]:
    yield Finding(
        "hardware",
        "Orin, NX9031",
        Health.OPTIONAL,
        "none within reach: figures for NT2.0, NT2.5 and NT3.0 are at best 'proxy' or 'emulated' here",
    )


def _keys(settings: Settings) -> Iterator[Finding]:
    from nwmctl.trust.keys import load_keyring

    folder = settings.keys or settings.development_keys
    if not folder.exists():
        yield Finding("keys", "key folder", Health.OPTIONAL, "none yet", "nwmctl keys init FOLDER")
        return
    try:
        ring = load_keyring(folder)
    except NwmError as problem:
        yield Finding("keys", str(folder), Health.PROBLEM, problem.what, problem.next)
        return
    word = "development keys, for virtual fleets only" if ring.development else "keys"
    yield Finding("keys", str(folder), Health.OK, f"{len(ring.document.keys)} {word}")


def _expiries(settings: Settings) -> Iterator[Finding]:
    """Keys and repository, as long as they can be read; what cannot be read is reported by itself."""
    from nwmctl.app.keychanges import watch
    from nwmctl.app.renewal import watched_database, watched_repository
    from nwmctl.storage.workspace import Workspace
    from nwmctl.trust.keys import load_keyring

    folder = settings.keys or settings.development_keys
    found: list[Watched] = []
    with suppress(NwmError):  # a folder that cannot be read has its own line already
        found += watch(load_keyring(folder)) if folder.exists() else ()
    try:
        found += watched_repository(Workspace(settings.workspace).repository)
    except NwmError as problem:
        yield Finding("expiry", "repository", Health.PROBLEM, f"{problem.what}: {problem.why}", problem.next)
    try:
        found += watched_database(settings)
    except NwmError as problem:
        yield Finding("expiry", "database", Health.PROBLEM, f"{problem.what}: {problem.why}", problem.next)
    yield from map(_expiry, found)


def _expiry(watched: Watched) -> Finding:
    from datetime import UTC, datetime

    from nwmctl.trust.expiry import ExpiryState

    expiry = watched.expiry
    ends = datetime.fromtimestamp(expiry.expires_us / 1e6, UTC)
    match watched.state:
        case ExpiryState.HOLDS:
            return Finding("expiry", expiry.name, Health.OK, f"until {ends:%Y-%m-%d}")
        case ExpiryState.SOON:
            return Finding("expiry", expiry.name, Health.WARNING, f"expires on {ends:%Y-%m-%d}", expiry.next)
        case ExpiryState.EXPIRED:
            return Finding("expiry", expiry.name, Health.PROBLEM, f"expired on {ends:%Y-%m-%d}", expiry.next)
    assert_never(watched.state)
