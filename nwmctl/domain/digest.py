"""The one digest function, and the one step-key function.

A digest is sha256. A step key binds everything that decides a step's output: the step, the version of its code, its
parameters, its named inputs and the toolchain's fingerprint. Fields are length-prefixed, so no two different
requests can be spelled with the same bytes. Only ``steps/`` calls ``step_key``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.errors import DigestFormatError

_PATTERN = re.compile(r"sha256:([0-9a-f]{64})\Z")
_KEY_TAG = b"nwmctl.step-key/1"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest; ``hex`` has 64 lowercase hexadecimal digits. Written ``sha256:<hex>``."""

    hex: str

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<hex>``. Raises DigestFormatError."""
        found = _PATTERN.match(text)
        if not found:
            raise DigestFormatError(
                f"'{text[:80]}' is not a digest",
                why="a digest is written sha256: followed by 64 lowercase hexadecimal digits",
                next="copy the digest from `nwmctl pull --json` or from the model card's publisher",
            )
        return cls(found.group(1))


def digest_bytes(data: bytes | memoryview) -> Digest:
    """The digest of bytes in memory."""
    return Digest(hashlib.sha256(data).hexdigest())


def step_key(step: str, version: int, parameters: bytes, inputs: Mapping[str, Digest], toolchain: str) -> Digest:
    """The key under which a step's result is stored.

    ``parameters`` are canonical JSON bytes; ``toolchain`` is a fingerprint, empty for steps that use none.
    """
    state = hashlib.sha256()
    fields = [_KEY_TAG, step.encode(), str(version).encode(), parameters, toolchain.encode()]
    for name in sorted(inputs):
        fields += [name.encode(), inputs[name].hex.encode()]
    for field in fields:
        state.update(len(field).to_bytes(8, "big"))
        state.update(field)
    return Digest(state.hexdigest())
