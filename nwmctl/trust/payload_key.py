"""The symmetric key that encrypts payloads, and the initialisation vectors under it.

The key lies in a file of SWUpdate's own form (``swupdate -K``: key and vector in hexadecimal digits; the vector is
not used, every part has its own), mode 0600, outside every workspace. Vectors are derived, not drawn: HMAC of what is
encrypted and how it was compressed, under a key of its own. So the same bytes give the same bundle again, and two
different contents never share a vector. Who signs is another matter: this key proves nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nwmctl.domain.digest import Digest
from nwmctl.errors import PayloadKeyError

_LINE = re.compile(rb"([0-9a-fA-F]{64}) ([0-9a-fA-F]{32})\r?\n?\Z")
_MAX_FILE = 1 << 10
_VECTOR_TAG = b"nwmctl payload vector 1"
_NAME_TAG = b"nwmctl payload key name 1"


@dataclass(frozen=True, slots=True)
class PayloadKey:
    """An AES-256 key."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != 32:
            raise ValueError(f"the key has {len(self.secret)} bytes, AES-256 takes 32")

    @property
    def name(self) -> str:
        """What names the key without giving it away: 16 hexadecimal digits."""
        return hmac.new(self.secret, _NAME_TAG, hashlib.sha256).hexdigest()[:16]

    def vector(self, content: Digest, codec: str, index: int, part_bytes: int) -> bytes:
        """The vector of part ``index`` of a file with this digest, cut every ``part_bytes`` and compressed so."""
        own = hmac.new(self.secret, _VECTOR_TAG, hashlib.sha256).digest()
        # Every field has one form and none holds a line break, so no two requests are spelled alike.
        words = "\n".join((content.hex, codec, str(index), str(part_bytes)))
        return hmac.new(own, words.encode(), hashlib.sha256).digest()[:16]


def load_payload_key(uri: str, workspace: Path | None = None) -> PayloadKey:
    """The key at ``file:PATH``. Raises PayloadKeyError, also for a file within ``workspace`` or open to others."""
    scheme, _, place = uri.partition(":")
    if scheme != "file" or not place:
        raise _refuse(f"'{uri[:80]}' does not name a key", "only file:PATH is known")
    path = Path(place).expanduser()
    if workspace and path.resolve().is_relative_to(workspace.resolve()):
        raise _refuse(f"'{path.name}' lies in the workspace", "what lies there is copied, kept and shown")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise _refuse(f"'{path.name}' is open to others", "only its owner may read a key file (mode 0600)")
        with path.open("rb") as file:
            found = _LINE.match(file.read(_MAX_FILE))
    except OSError as problem:
        raise _refuse(f"'{path.name}' cannot be read", str(problem.strerror or problem)) from problem
    if not found:
        raise _refuse(f"'{path.name}' is not a key file", "it holds 64 and 32 hexadecimal digits, with a space between")
    return PayloadKey(bytes.fromhex(found.group(1).decode()))


def create_payload_key(path: Path, draw: Callable[[int], bytes] = os.urandom) -> PayloadKey:
    """Make a key file; an existing one is never replaced. Raises PayloadKeyError."""
    key, unused = draw(32), draw(16)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(f"{key.hex()} {unused.hex()}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise _refuse(f"'{path.name}' cannot be made", str(problem.strerror or problem)) from problem
    return PayloadKey(key)


def _refuse(what: str, why: str) -> PayloadKeyError:
    return PayloadKeyError(what, why=why, next="name a key file outside the workspace: --aes-key file:PATH")
