"""Packs the payloads of a bundle before it is described: compressed, encrypted, in parts below 4 GiB.

Each payload is read once. Its own digest, unless the caller has just computed it, and the digest of every packed part
are computed while it is compressed; the parts are written to a folder of the caller and named by their digests, so
nothing else has to look at them again before they are copied into the archive. That spool is the price of an archive
whose first member holds the digests of the others: the packed bytes are written once more and read once more. A
payload that is neither compressed, encrypted nor too large has no parts: the archive takes it from where it lies.
Signs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from nwmctl.bundling.flow import Hasher, flow, hashers
from nwmctl.bundling.outlet import Outlet
from nwmctl.domain.digest import Digest
from nwmctl.domain.packing import MAX_PARTS, PART_BYTES, Compression, Packing, Part, part_name
from nwmctl.errors import BundleContentsError, BundleFileError, PackedSizeError
from nwmctl.formats.packing import Cipher, codec_name, packer
from nwmctl.trust.payload_key import PayloadKey


@dataclass(frozen=True, slots=True)
class PackingOrder:
    """How payloads are packed. ``part_bytes``: the most plain bytes in one part."""

    compression: Compression = Compression.ZSTD
    key: PayloadKey | None = None
    part_bytes: int = PART_BYTES

    def __post_init__(self) -> None:
        if not 1 <= self.part_bytes <= PART_BYTES:
            raise ValueError(f"a part has {self.part_bytes} plain bytes, it has 1 to {PART_BYTES}")

    @property
    def fingerprint(self) -> str:
        """What decides the packed bytes beside the plain ones. Names the key, does not give it away."""
        return f"{codec_name(self.compression)}, key {self.key.name if self.key else 'none'}, part {self.part_bytes}"

    def leaves(self, size: int) -> bool:
        """Whether a payload of ``size`` bytes lies in the archive as it is."""
        return self.compression is Compression.NONE and self.key is None and size <= self.part_bytes


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """A payload to pack: its name in the bundle, what it must be, and where it lies."""

    filename: str
    digest: Digest
    size: int
    path: Path


def pack_payload(payload: PayloadFile, order: PackingOrder, folder: Path, *, proven: bool = False) -> Packing | None:
    """Pack a payload into ``folder``, one file per part, named by its digest; None if it stays as it is.

    ``proven``: its digest was computed in this process and it cannot have changed (a file of the content store), so
    it is not computed once more; staging unpacks and hashes what is not encrypted before anything else happens to it.
    Raises BundleContentsError if it is not what it must be, PackedSizeError if it would have too many parts,
    BundleFileError for a folder that is full or cannot be written; then nothing of it is left.
    """
    if order.leaves(payload.size):
        return None
    count = max(1, -(-payload.size // order.part_bytes))
    if count > MAX_PARTS:
        raise PackedSizeError(
            f"'{payload.filename}' is too large for a bundle",
            why=f"it would have {count} parts, at most {MAX_PARTS} are allowed",
            next="raise the size of a part, or divide the model",
        )
    kept: list[Path] = []
    try:
        with payload.path.open("rb", buffering=0) as file, hashers(2) as new:
            spool = _Spool(file, payload, order, folder, None if proven else new(0), new, kept)
            parts = tuple(spool.part(index, count) for index in range(count))
            if file.read(1) or (spool.whole and spool.whole.digest != payload.digest):
                raise spool.changed()
        done, kept = kept, []
        assert len(done) == count
    except OSError as problem:
        raise BundleFileError(
            f"'{payload.filename}' cannot be packed",
            why=str(problem.strerror or problem),
            next="free space for the packed payload, or check the folder's rights, then run the command again",
        ) from problem
    finally:
        for path in kept:
            path.unlink(missing_ok=True)
    return Packing(order.compression, parts)


def pack_all(payloads: Mapping[str, PayloadFile], order: PackingOrder, folder: Path) -> dict[str, Packing]:
    """The packings of those payloads that do not stay as they are, by name. Raises as ``pack_payload``."""
    found = {name: pack_payload(payload, order, folder) for name, payload in payloads.items()}
    return {name: packing for name, packing in found.items() if packing}


@dataclass(frozen=True, slots=True)
class _Spool:
    """One payload on its way. ``whole`` hashes its plain bytes, if need be; ``made`` are the files that are there."""

    file: FileIO
    payload: PayloadFile
    order: PackingOrder
    folder: Path
    whole: Hasher | None
    new: Callable[[int], Hasher]
    made: list[Path]

    def part(self, index: int, count: int) -> Part:
        name = part_name(self.payload.filename, index, count)
        size = min(self.order.part_bytes, self.payload.size - index * self.order.part_bytes)
        cipher = self._cipher(index)
        partial = self.folder / f".{name}.partial-{os.getpid()}"
        try:
            with Outlet(partial, self.new(1), past_cache=True) as out:
                self._pack(out, size, cipher)
            place = self.folder / out.digest.hex
            os.replace(partial, place)
            self.made.append(place)
        finally:
            with suppress(OSError):
                partial.unlink()
        return Part(name, out.digest, out.size, size, cipher.iv.hex() if cipher else "")

    def _pack(self, out: Outlet, size: int, cipher: Cipher | None) -> None:
        """Pack the next ``size`` plain bytes."""
        codec, taken = packer(self.order.compression, size, cipher), 0
        for piece in flow(self.file, size, [self.whole] if self.whole else []):
            taken += len(piece)
            out.put(codec.update(piece))
        if taken != size:
            raise self.changed()
        out.put(codec.finish())
        out.finish()

    def _cipher(self, index: int) -> Cipher | None:
        key, order = self.order.key, self.order
        if key is None:
            return None
        vector = key.vector(self.payload.digest, codec_name(order.compression), index, order.part_bytes)
        return Cipher(key.secret, vector)

    def changed(self) -> BundleContentsError:
        found = f"its bytes have {self.whole.digest}" if self.whole else "it has another size"
        return BundleContentsError(
            f"the payload '{self.payload.filename}' is not the one that was planned",
            why=f"{found}, the plan says {self.payload.digest}",
            next="compile the artifact again",
        )
