"""SSH connections to hosts whose key is known beforehand.

Invariants: no key is ever learnt from a connection; a login is attempted only after the host has proved the pinned
key; paramiko's exceptions do not leave this room. Does not retry and does not know what the connection is for.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from nwmctl.errors import (
    HostKeyError,
    HostKeyFormatError,
    HostUnreachableError,
    IdentityError,
    LoginRefusedError,
    MirrorUriError,
)

if TYPE_CHECKING:
    import paramiko

_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host's public key: ``kind`` (``ssh-ed25519``) and its wire form."""

    kind: str
    blob: bytes

    @classmethod
    def parse(cls, text: str) -> HostKey:
        """Read ``ssh-ed25519 AAAA...`` (a comment may follow). Raises HostKeyFormatError, HostKeyError if empty."""
        if not text.strip():
            raise HostKeyError(
                "no host key is pinned for this host",
                why="a key that is learnt from the connection itself proves nothing",
                next="ask the host's operator for its public key and write it as host_key: 'ssh-ed25519 AAAA...'",
            )
        kind, *rest = text.split()
        try:
            blob = base64.b64decode(rest[0] if rest else "", validate=True)
        except (binascii.Error, ValueError):
            blob = b""
        # The wire form repeats its own kind: a cheap proof that the text is whole.
        if kind not in _KEY_TYPES or blob[4 : 4 + len(kind)] != kind.encode() or len(blob) < len(kind) + 20:
            raise HostKeyFormatError(
                f"'{text[:60]}' is not a host key",
                why="a host key is written as its type and base64, as in /etc/ssh/ssh_host_ed25519_key.pub",
                next="copy the whole line from that file of the host",
            )
        return cls(kind, blob)


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where to log in as whom, and a path there."""

    user: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"

    @classmethod
    def parse(cls, uri: str) -> SshAddress:
        """Read ``sftp://user@host:port/path``. Raises MirrorUriError."""
        try:
            parts = urlsplit(uri)
            port = parts.port or 22
        except ValueError as problem:
            raise _bad_uri(uri.partition("@")[2], str(problem)) from problem
        if parts.password is not None:
            raise _bad_uri(parts.hostname or "", "it holds a password; logins use a private key")
        if parts.scheme != "sftp" or not parts.hostname or not parts.username or parts.query or parts.fragment:
            raise _bad_uri(uri, "it must be sftp://user@host:port/path")
        return cls(unquote(parts.username), parts.hostname, port, unquote(parts.path) or "/")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect and prove keys; and for one answer once connected."""

    connect_s: float = 15.0
    answer_s: float = 60.0


def connect(address: SshAddress, pinned: HostKey, identity: Path, timeouts: Timeouts) -> paramiko.Transport:
    """An authenticated connection. The caller closes it.

    Raises IdentityError, HostUnreachableError, HostKeyError, LoginRefusedError.
    """
    import paramiko

    # Without a handler paramiko's thread prints tracebacks to stderr; whoever wants them adds a handler of their own.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    key = _private_key(identity)
    try:
        sock = socket.create_connection((address.host, address.port), timeout=timeouts.connect_s)
    except OSError as problem:
        raise unreachable(address, str(problem.strerror or problem)) from problem
    transport: paramiko.Transport | None = None
    try:
        transport = paramiko.Transport(sock)
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = timeouts.connect_s
        _prove_host(transport, address, pinned, timeouts)
        _log_in(transport, address, key)
    except BaseException:
        with contextlib.suppress(Exception):
            transport.close() if transport else sock.close()
        raise
    return transport


def _prove_host(transport: paramiko.Transport, address: SshAddress, pinned: HostKey, timeouts: Timeouts) -> None:
    import paramiko

    # Asking for the pinned kind only: a host with several keys must not show us another, unpinned one.
    transport.get_security_options().key_types = _RSA_SIGNATURES if pinned.kind == "ssh-rsa" else (pinned.kind,)
    try:
        transport.start_client(timeout=timeouts.connect_s)
        shown = transport.get_remote_server_key()
    except paramiko.SSHException as problem:
        if "host key" in str(problem).lower():
            raise _other_key(address, pinned, f"it has no key of the pinned kind {pinned.kind}") from problem
        raise unreachable(address, str(problem)) from problem
    except (OSError, EOFError) as problem:
        raise unreachable(address, str(problem) or type(problem).__name__) from problem
    if shown.asbytes() != pinned.blob:
        text = base64.b64encode(shown.asbytes()).decode()
        raise _other_key(address, pinned, f"it showed {shown.get_name()} {text}")


def _log_in(transport: paramiko.Transport, address: SshAddress, key: paramiko.PKey) -> None:
    import paramiko

    try:
        open_ = transport.auth_publickey(address.user, key)
    except paramiko.AuthenticationException as problem:
        raise _refused(address, str(problem)) from problem
    except (paramiko.SSHException, OSError, EOFError) as problem:
        raise unreachable(address, str(problem) or type(problem).__name__) from problem
    if open_ or not transport.is_authenticated():
        raise _refused(address, "it wants more than a public key")


def _private_key(path: Path) -> paramiko.PKey:
    import paramiko

    try:
        key: paramiko.PKey = paramiko.PKey.from_path(str(path))
    except OSError as problem:
        raise _bad_identity(path, str(problem.strerror or problem)) from problem
    except Exception as problem:  # paramiko passes on whatever its key parsers raise
        reason = str(problem) or type(problem).__name__
        raise _bad_identity(path, f"it is not an unencrypted private key: {reason[:120]}") from problem
    return key


def unreachable(address: SshAddress, reason: str) -> HostUnreachableError:
    """The refusal for a connection that could not be made or broke."""
    return HostUnreachableError(
        f"{address} cannot be reached",
        why=reason,
        next="check the address and the network, then run the command again; what was done stays done",
    )


def _other_key(address: SshAddress, pinned: HostKey, reason: str) -> HostKeyError:
    return HostKeyError(
        f"{address} is not the host whose key is pinned",
        why=f"{reason}; nothing was sent to it, not even a login",
        next=f"ask its operator whether the {pinned.kind} key was changed; only then replace the pinned host_key",
    )


def _refused(address: SshAddress, reason: str) -> LoginRefusedError:
    return LoginRefusedError(
        f"{address} refuses the login",
        why=reason,
        next="check user and identity, and that the public key is in the host's authorized_keys",
    )


def _bad_identity(path: Path, reason: str) -> IdentityError:
    return IdentityError(
        f"the identity '{path.name}' cannot be used",
        why=reason,
        next="name a private key file in OpenSSH or PEM form without a passphrase",
    )


def _bad_uri(uri: str, reason: str) -> MirrorUriError:
    return MirrorUriError(
        f"'{uri[:120]}' is not an SFTP address", why=reason, next="write sftp://user@host:port/path, without a password"
    )
