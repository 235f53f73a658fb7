"""Refusals of other hosts. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, RemoteError, VerificationError


class HostKeyError(VerificationError):
    """A host showed another key than the pinned one, or none is pinned."""


class HostKeyFormatError(InputError):
    """A pinned host key is not written as type and base64."""


class IdentityError(InputError):
    """The private key for a login is missing or cannot be read."""


class LoginRefusedError(RemoteError):
    """A host does not accept the login."""


class HostUnreachableError(RemoteError):
    """A host does not answer, or the connection broke."""


class RemoteFileError(RemoteError):
    """A host answered, but a file operation on it failed."""


class RemoteDiskFullError(RemoteError):
    """A host has no room for a file."""


class TransferDamagedError(RemoteError):
    """A file arrived with other bytes than it was sent with."""


class HostChangedError(RemoteError):
    """A program on a host became another version while it was used."""


class HostUndeclaredError(InputError):
    """A declaration names a host that the file of hosts lacks, or that file is wrong."""
