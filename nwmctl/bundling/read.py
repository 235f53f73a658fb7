"""Reads a bundle, believing nothing before the signature over ``sw-description`` was verified.

``open_bundle`` streams: whoever uses it gets each file only in order, and an error as soon as one does not have its
promised hash. ``read_bundle`` reads a whole file and cross-checks everything that it says. Writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BUNDLE_MANIFEST_NAME, BundleManifest
from nwmctl.domain.chassis import ChassisAdaptation
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import BundleContentsError, BundleFileError
from nwmctl.formats import cpio, documents
from nwmctl.formats.swu import (
    DESCRIPTION_NAME,
    MAX_DESCRIPTION,
    MAX_SIGNATURE,
    SIGNATURE_NAME,
    SwDescription,
    parse_description,
)
from nwmctl.trust.coherence import check_coherence

VerifySignature = Callable[[bytes, bytes], None]
"""Takes the signed description and the CMS signature; raises if nobody trusted signed it (see ``trust.cms``)."""

_MAX_DOCUMENT = 4 << 20


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file of the bundle, in order; ``chunks`` gives its bytes once and raises at the end if the hash is wrong."""

    name: str
    digest: Digest
    size: int
    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """A bundle whose description is verified. ``files`` must be read in order, each before the next."""

    description: SwDescription
    description_digest: Digest
    files: Iterator[BundleFile]


@dataclass(frozen=True, slots=True)
class BundleContents:
    """A bundle that was read whole and contradicts itself nowhere. ``sizes`` are the bytes of each file."""

    description: SwDescription
    manifest: BundleManifest
    artifacts: dict[Digest, ArtifactManifest]
    chassis: tuple[ChassisAdaptation, ...]
    sizes: dict[str, int]
    digest: Digest
    size: int


def open_bundle(read: Callable[[int], bytes], verify: VerifySignature) -> OpenBundle:
    """Verify the signature at the front of a bundle and hand on its files; ``read(n)`` gives up to ``n`` bytes.

    Raises ArchiveError, DescriptionError, BundleContentsError and what ``verify`` raises.
    """
    entries = cpio.unpack(read)
    data = _leading(entries, DESCRIPTION_NAME, MAX_DESCRIPTION)
    verify(data, _leading(entries, SIGNATURE_NAME, MAX_SIGNATURE))
    description = parse_description(data)
    return OpenBundle(description, digest_bytes(data), _files(entries, description))


def read_bundle(path: Path, verify: VerifySignature) -> BundleContents:
    """Read and check a whole bundle. Raises as ``open_bundle``, BundleFileError, and for its documents SchemaError
    and NotCanonicalError."""
    with _opened(path) as stream:
        counter = _Counter(stream, hashlib.sha256())
        opened = open_bundle(counter.read, verify)
        sizes: dict[str, int] = {}
        small: dict[str, bytes] = {}
        for file in opened.files:
            sizes[file.name] = file.size
            if file.name.endswith(".json") and file.size <= _MAX_DOCUMENT:
                small[file.name] = b"".join(file.chunks)
            else:
                for _ in file.chunks:
                    pass
    if BUNDLE_MANIFEST_NAME not in small:
        raise _contents(f"'{BUNDLE_MANIFEST_NAME}' is missing")
    manifest = documents.decode(BundleManifest, small[BUNDLE_MANIFEST_NAME], BUNDLE_MANIFEST_NAME)
    artifacts = _artifacts(manifest, small)
    check_coherence(opened.description, manifest, digest_bytes(small[BUNDLE_MANIFEST_NAME]), artifacts)
    listed = [(file.filename, file.size) for file in manifest.payloads]
    for name, size in listed + [(file.filename, file.size) for file in manifest.chassis]:
        if sizes[name] != size:
            raise _contents(f"'{name}' has {sizes[name]} bytes, {BUNDLE_MANIFEST_NAME} says {size}")
    chassis = _chassis(manifest, small)
    digest = Digest(counter.state.hexdigest())
    return BundleContents(opened.description, manifest, artifacts, chassis, sizes, digest, counter.size)


def _artifacts(manifest: BundleManifest, small: dict[str, bytes]) -> dict[Digest, ArtifactManifest]:
    wanted = {payload.manifest for payload in manifest.payloads}
    found = {digest_bytes(data): (name, data) for name, data in small.items()}
    return {
        digest: documents.decode(ArtifactManifest, data, name)
        for digest, (name, data) in found.items()
        if digest in wanted
    }


def _chassis(manifest: BundleManifest, small: dict[str, bytes]) -> tuple[ChassisAdaptation, ...]:
    found = []
    for file in manifest.chassis:
        if file.filename not in small:
            raise _contents(f"'{file.filename}' is not a small JSON file")
        adaptation = documents.decode(ChassisAdaptation, small[file.filename], file.filename)
        if (adaptation.vehicle_model, adaptation.platform) != (file.vehicle_model, manifest.platform):
            raise _contents(f"'{file.filename}' is the adaptation of another vehicle model")
        found.append(adaptation)
    return tuple(found)


def _leading(entries: Iterator[cpio.Entry], name: str, limit: int) -> bytes:
    entry = next(entries, None)
    if entry is None or entry.name != name:
        raise _contents(f"'{name}' is not where it must be, in front of all files")
    return entry.read(limit)


def _files(entries: Iterator[cpio.Entry], description: SwDescription) -> Iterator[BundleFile]:
    missing = {file.filename: file.digest for file in description.files}
    for entry in entries:
        digest = missing.pop(entry.name, None)
        if digest is None:
            raise _contents(f"'{entry.name}' is not in the signed description")
        chunks = _hashed(entry, digest)
        yield BundleFile(entry.name, digest, entry.size, chunks)
        # What the caller left unread is hashed as well: nobody gets past a wrong file.
        for _ in chunks:
            pass
    for name in missing:
        raise _contents(f"'{name}' is in the signed description and not in the bundle")


def _hashed(entry: cpio.Entry, digest: Digest) -> Iterator[bytes]:
    state = hashlib.sha256()
    for chunk in entry.chunks():
        state.update(chunk)
        yield chunk
    if state.hexdigest() != digest.hex:
        raise _contents(f"'{entry.name}' has sha256:{state.hexdigest()}, the signed description says {digest}")


@dataclass(slots=True)
class _Counter:
    """Hashes and counts a whole file while it is read."""

    stream: BinaryIO
    state: hashlib._Hash
    size: int = 0

    def read(self, most: int) -> bytes:
        data = self.stream.read(most)
        self.state.update(data)
        self.size += len(data)
        return data


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as problem:
        raise BundleFileError(
            f"'{path.name}' cannot be read", why=str(problem.strerror or problem), next="name an existing bundle file"
        ) from problem


def _contents(why: str) -> BundleContentsError:
    return BundleContentsError(
        "the bundle contradicts itself", why=why, next="fetch the bundle again; if it stays so, build it again"
    )
