"""The files of a bundle as they come out of its archive, held against the signed description while they are read.

The members must be those that the description names, in its order and none beside them. What lies in the archive must
have the digest that is signed for it there, and what it unpacks to the size and digest that are signed for the file.
An encrypted file that nobody gave a key for is hashed as it lies and called sealed, and so is a delta. Bytes that are
wrong are noticed at the end of the member, so whoever keeps what it reads keeps it aside until then. Opens no file;
memory does not grow with the bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nwmctl.domain.digest import Digest
from nwmctl.domain.packing import Packing, Part
from nwmctl.errors import (
    ArchiveSizeError,
    BundleContentsError,
    PackedDataError,
    PackedSizeError,
    PayloadChangedError,
)
from nwmctl.formats.cpio import Entry
from nwmctl.formats.packing import Cipher, unpacked
from nwmctl.formats.swu import (
    DESCRIPTION_NAME,
    MAX_DESCRIPTION,
    MAX_SIGNATURE,
    SIGNATURE_NAME,
    InstalledFile,
    SwDescription,
)

_NEXT = "fetch the bundle again; if it stays so, build it again"


@dataclass(slots=True)
class FoundFile:
    """A file on its way out of the archive. ``chunks`` gives its plain bytes once, and raises where they are wrong;
    those of a ``sealed`` file are the bytes that lie in the archive. ``size`` is that of the plain bytes.

    ``offsets``: where its members begin in the archive, as far as they were read.
    """

    file: InstalledFile
    size: int
    sealed: bool
    chunks: Iterator[bytes] = field(default_factory=lambda: iter(()))
    offsets: list[int] = field(default_factory=list)


def leading(entries: Iterator[Entry]) -> tuple[bytes, bytes]:
    """The description and its signature. Raises BundleContentsError, ArchiveSizeError."""
    return _leading(entries, DESCRIPTION_NAME, MAX_DESCRIPTION), _leading(entries, SIGNATURE_NAME, MAX_SIGNATURE)


def found_files(entries: Iterator[Entry], description: SwDescription, key: bytes | None = None) -> Iterator[FoundFile]:
    """The files in order; each must be used before the next. What the caller leaves unread is verified all the same.

    Raises ArchiveError, BundleContentsError, ArchiveSizeError, PackedDataError, PackedSizeError.
    """
    known = {name for name, _ in description.members}
    for file in description.files:
        name = file.members[0][0]
        entry = _next(entries, name, known)
        if file.packing is None:
            found = FoundFile(file, entry.size, False, offsets=[entry.offset])
            found.chunks = verified(entry.chunks(), file.digest, name)
        else:
            hidden = file.packing.base is not None or (file.packing.encrypted and key is None)
            found = FoundFile(file, file.packing.size, hidden)
            found.chunks = _parts(entry, entries, found, file.packing, known, key)
        yield found
        for _ in found.chunks:
            pass
        if file.join:
            script = _next(entries, file.join.filename, known)
            for _ in verified(script.chunks(), file.join.digest, script.name):
                pass
    if (extra := next(entries, None)) is not None:
        raise _contents(f"'{extra.name}' is not in the signed description, or is there twice")


def unpack_part(chunks: Iterable[bytes], packing: Packing, part: Part, key: bytes | None) -> Iterator[bytes]:
    """The plain bytes of a part whose packed bytes are ``chunks``. Raises PackedDataError, PackedSizeError."""
    cipher = Cipher(key, bytes.fromhex(part.iv)) if part.iv and key is not None else None
    return unpacked(chunks, packing.compression, part.plain_size, cipher)


def verified(chunks: Iterable[bytes], digest: Digest, name: str) -> Iterator[bytes]:
    """The same pieces; raises PayloadChangedError behind the last one if they do not have the digest."""
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
        yield chunk
    if state.hexdigest() != digest.hex:
        raise PayloadChangedError(
            f"'{name}' is not the file that was signed",
            why=f"it has sha256:{state.hexdigest()}, the signed description says {digest}",
            next=_NEXT,
        )


def _parts(
    first: Entry, entries: Iterator[Entry], found: FoundFile, packing: Packing, known: set[str], key: bytes | None
) -> Iterator[bytes]:
    whole = hashlib.sha256()
    for index, part in enumerate(packing.parts):
        entry = _next(entries, part.name, known) if index else first
        if entry.size != part.size:
            raise ArchiveSizeError(
                f"'{part.name}' has another size than was signed",
                why=f"{entry.size} bytes in the archive, the signed description says {part.size}",
                next=_NEXT,
            )
        found.offsets.append(entry.offset)
        lying = verified(entry.chunks(), part.digest, part.name)
        if found.sealed:
            yield from lying
            continue
        try:
            for chunk in unpack_part(lying, packing, part, key):
                whole.update(chunk)
                yield chunk
        except (PackedDataError, PackedSizeError):
            # A changed member is named as such, whatever the unpacker made of it: the rest of it is read for that.
            for _ in lying:
                pass
            if part.iv:
                raise PackedDataError(
                    f"'{part.name}' does not open with this key",
                    why="its bytes are the ones that were signed, and what the key makes of them is nothing packed",
                    next="name the key that the bundle was encrypted with: --aes-key file:PATH",
                ) from None
            raise
        for _ in lying:
            pass
    if not found.sealed and whole.hexdigest() != found.file.digest.hex:
        raise _contents(
            f"'{found.file.filename}' unpacks to sha256:{whole.hexdigest()}, "
            f"the signed description says {found.file.digest}"
        )


def _leading(entries: Iterator[Entry], name: str, limit: int) -> bytes:
    entry = next(entries, None)
    if entry is None or entry.name != name:
        raise _contents(f"'{name}' is not where it must be, in front of all files")
    return entry.read(limit)


def _next(entries: Iterator[Entry], name: str, known: set[str]) -> Entry:
    entry = next(entries, None)
    if entry is None:
        raise _contents(f"'{name}' is in the signed description and not in the bundle")
    if entry.name != name:
        where = f"lies where '{name}' has to be" if entry.name in known else "is not in the signed description"
        raise _contents(f"'{entry.name}' {where}")
    return entry


def _contents(why: str) -> BundleContentsError:
    return BundleContentsError("the bundle contradicts itself", why=why, next=_NEXT)
