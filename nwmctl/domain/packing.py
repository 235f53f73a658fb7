"""How a file of a bundle lies in the archive: compressed or not, encrypted or not, whole or in parts.

A file's digest is always that of its plain bytes; each part has the digest of its bytes as they lie in the archive.
Parts exist because an archive's sizes have 32 bits. Holds no bytes and knows no codec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from nwmctl.domain.digest import Digest

MAX_PARTS = 1000
PART_BYTES = (1 << 32) - (32 << 20)
"""Plain bytes in one part: below 4 GiB by what compressing the incompressible and encrypting may add."""
_IV = re.compile(r"[0-9a-f]{32}\Z")


class Compression(StrEnum):
    """How the bytes of a file are made smaller."""

    NONE = "none"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Part:
    """One member of the archive. ``digest`` and ``size`` are of its bytes there, ``plain_size`` of what they hold.

    ``iv``: the initialisation vector as 32 hexadecimal digits where the part is encrypted (AES-256-CBC), else ''.
    """

    name: str
    digest: Digest
    size: int
    plain_size: int
    iv: str = ""

    def __post_init__(self) -> None:
        if min(self.size, self.plain_size) < 0:
            raise ValueError(f"part '{self.name[:80]}' has a negative size")
        if self.iv and not _IV.match(self.iv):
            raise ValueError(f"the vector of part '{self.name[:80]}' is not 32 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class Base:
    """The file that a delta starts from, as it lies in the vehicle's other slot."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Packing:
    """The parts of one file, in order: its plain bytes are those of the parts, one after the other.

    With a ``base`` the one part is a delta that makes the file of it (docs/delta-format.md).
    """

    compression: Compression
    parts: tuple[Part, ...]
    base: Base | None = None

    def __post_init__(self) -> None:
        if self.base and (len(self.parts) != 1 or self.compression is not Compression.NONE or self.parts[0].iv):
            raise ValueError("a delta is one part, neither compressed nor encrypted")
        if not 1 <= len(self.parts) <= MAX_PARTS:
            raise ValueError(f"a file has {len(self.parts)} parts, it has 1 to {MAX_PARTS}")
        if len({bool(part.iv) for part in self.parts}) != 1:
            raise ValueError("a file is encrypted as a whole or not at all")
        vectors = [part.iv for part in self.parts if part.iv]
        if len(set(vectors)) != len(vectors):
            raise ValueError("two parts of a file have the same vector")

    @property
    def size(self) -> int:
        """Plain bytes of the whole file."""
        return sum(part.plain_size for part in self.parts)

    @property
    def packed_size(self) -> int:
        """Bytes in the archive."""
        return sum(part.size for part in self.parts)

    @property
    def encrypted(self) -> bool:
        """Whether a key is needed to read it."""
        return bool(self.parts[0].iv)

    @property
    def split(self) -> bool:
        """Whether the file has to be joined after its parts were installed."""
        return len(self.parts) > 1

    @property
    def scripted(self) -> bool:
        """Whether a script makes the file of what was installed: it joins parts, or applies a delta."""
        return self.split or self.base is not None

    def names(self, filename: str) -> tuple[str, ...]:
        """The names that the parts of a file must have."""
        if self.base is not None:
            return (f"{filename}.delta",)
        return tuple(part_name(filename, index, len(self.parts)) for index in range(len(self.parts)))


def part_name(filename: str, index: int, count: int) -> str:
    """The member's name of part ``index`` of ``count``: the file's own, or with ``.000`` and so on behind it."""
    return filename if count == 1 else f"{filename}.{index:03d}"
