"""What the user chose: from options, then the environment, then defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.errors import InputError
from nwmctl.storage.resources import platforms_folder
from nwmctl.storage.workspace import Workspace

COMPILE_TIMEOUT_S = 600.0
"""Seconds that one process of a compiler may take."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths and amounts. ``keys`` is None where the user named no key folder: a virtual fleet then gets development
    keys of its own."""

    workspace: Path
    keys: Path | None
    development_keys: Path
    platforms: Path
    workers: int
    user: str
    compile_timeout_s: float = COMPILE_TIMEOUT_S
    aes_key: str = ""
    """URI of the key that encrypts payloads, empty for none."""

    def open(self) -> Workspace:
        """The workspace, created if need be."""
        return Workspace.open(self.workspace)


def load_settings(
    workspace: Path | None = None,
    keys: Path | None = None,
    platforms: Path | None = None,
    workers: int | None = None,
    aes_key: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from options (None: not given) and ``NWMCTL_WORKSPACE``, ``NWMCTL_KEYS``, ``NWMCTL_WORKERS``,
    ``NWMCTL_COMPILE_TIMEOUT`` (seconds), ``NWMCTL_AES_KEY`` (URI). Raises InputError."""
    named_keys = keys or (Path(environment["NWMCTL_KEYS"]) if environment.get("NWMCTL_KEYS") else None)
    data_home = Path(environment.get("XDG_DATA_HOME") or Path(environment.get("HOME", "/")) / ".local" / "share")
    return Settings(
        workspace=workspace or Path(environment.get("NWMCTL_WORKSPACE") or ".nwmctl"),
        keys=named_keys,
        development_keys=data_home / "nwmctl" / "development-keys",
        platforms=platforms or platforms_folder(),
        workers=workers or _workers(environment.get("NWMCTL_WORKERS", "")),
        user=environment.get("USER") or environment.get("LOGNAME") or f"uid {os.getuid()}",
        compile_timeout_s=_seconds(environment.get("NWMCTL_COMPILE_TIMEOUT", "")),
        aes_key=_absolute(aes_key or environment.get("NWMCTL_AES_KEY", "")),
    )


def _absolute(uri: str) -> str:
    """The same key for a process that runs elsewhere."""
    scheme, _, place = uri.partition(":")
    return f"file:{Path(place).expanduser().resolve()}" if scheme == "file" and place else uri


def _workers(text: str) -> int:
    if not text:
        # One more than there are cores: a step that waits for another's result must not leave a core idle.
        return len(os.sched_getaffinity(0)) + 1
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(
            f"NWMCTL_WORKERS is '{text}'", why="it must be a whole number of at least 1", next="correct or unset it"
        )
    return int(text)


def _seconds(text: str) -> float:
    if not text:
        return COMPILE_TIMEOUT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(
            f"NWMCTL_COMPILE_TIMEOUT is '{text}'",
            why="it must be a positive number of seconds",
            next="correct or unset it",
        )
    return seconds
