"""Hosts by name: where the machines are that declarations of external toolchains speak of.

The file (``NWMCTL_HOSTS``) is a site's own: it holds addresses, pinned keys and logins, and nothing of it enters a
digest, an artifact or a key. A host moves and its results stay. Reads the file; connects to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.errors import HostUndeclaredError
from nwmctl.formats import yamldoc
from nwmctl.formats.codec import from_plain
from nwmctl.remote.ssh import HostKey, SshAddress
from nwmctl.remote.workroom import Login


@dataclass(frozen=True, slots=True)
class Host:
    """One machine. ``host_key`` is pinned and needed: ``ssh-ed25519 AAAA...``. ``identity`` is a private key's file,
    beside the file of hosts unless it is absolute or begins with ``~``; ``folder`` is where fresh folders are made;
    ``path`` names folders of programs there that are searched before the usual ones."""

    address: str
    user: str
    host_key: str
    identity: str
    port: int = 22
    folder: str = "/tmp"
    path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"port is {self.port}, a port lies from 1 to 65535")
        for name in (self.folder, *self.path):
            if not name.startswith("/") or ":" in name:
                raise ValueError(f"'{name}' must be an absolute path there")
        if not self.address or not self.user:
            raise ValueError("a host needs an address and a user")


@dataclass(frozen=True, slots=True)
class _Document:
    hosts: dict[str, Host]


class Hosts:
    """The hosts of one file; None for none at all. The file is read when a host is asked for."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def names(self) -> tuple[str, ...]:
        """Every known name. Raises HostUndeclaredError, SchemaError."""
        return tuple(self._read())

    def login(self, name: str) -> Login:
        """How to log in to the host of that name. Raises HostUndeclaredError, SchemaError, HostKeyError,
        HostKeyFormatError."""
        known = self._read()
        if name not in known:
            raise HostUndeclaredError(
                f"no host is called '{name}'",
                why=f"known are {', '.join(known) or 'none'}",
                next="write it into a file of hosts (docs/toolchains.md) and name that file in NWMCTL_HOSTS",
            )
        host = known[name]
        HostKey.parse(host.host_key)
        identity = Path(host.identity).expanduser()
        if self._path is not None:
            identity = self._path.parent / identity
        address = SshAddress(host.user, host.address, host.port, host.folder)
        return Login(address, host.host_key, identity, host.folder, host.path)

    def _read(self) -> Mapping[str, Host]:
        if self._path is None:
            return {}
        try:
            data = self._path.read_bytes()
        except OSError as problem:
            raise HostUndeclaredError(
                f"the file of hosts '{self._path.name}' cannot be read",
                why=problem.strerror or str(problem),
                next="correct or unset NWMCTL_HOSTS",
            ) from problem
        plain, source = yamldoc.parse(data, self._path.name)
        return from_plain(_Document, plain, source).hosts
