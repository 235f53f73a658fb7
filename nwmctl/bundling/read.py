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
from nwmctl.formats.members import FoundFile, found_files, leading
from nwmctl.formats.swu import SwDescription, parse_description
from nwmctl.trust.coherence import check_coherence

VerifySignature = Callable[[bytes, bytes], None]
"""Takes the signed description and the CMS signature; raises if nobody trusted signed it (see ``trust.cms``)."""

_MAX_DOCUMENT = 4 << 20


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """A bundle whose description is verified. ``files`` must be read in order, each before the next."""

    description: SwDescription
    description_digest: Digest
    files: Iterator[FoundFile]


@dataclass(frozen=True, slots=True)
class BundleContents:
    """A bundle that was read whole and contradicts itself nowhere. ``sizes`` are the plain bytes of each file.

    ``sealed`` names the encrypted files that nobody gave a key for: their bytes are the signed ones, and that they
    unpack to the file that the manifest lists is not proven.
    """

    description: SwDescription
    manifest: BundleManifest
    artifacts: dict[Digest, ArtifactManifest]
    chassis: tuple[ChassisAdaptation, ...]
    sizes: dict[str, int]
    digest: Digest
    size: int
    sealed: tuple[str, ...] = ()


def open_bundle(read: Callable[[int], bytes], verify: VerifySignature, key: bytes | None = None) -> OpenBundle:
    """Verify the signature at the front of a bundle and hand on its files; ``read(n)`` gives up to ``n`` bytes.

    ``key`` opens encrypted files. Raises ArchiveError, DescriptionError, BundleContentsError, PackedDataError,
    PackedSizeError and what ``verify`` raises.
    """
    entries = cpio.unpack(read)
    data, signature = leading(entries)
    verify(data, signature)
    description = parse_description(data)
    return OpenBundle(description, digest_bytes(data), found_files(entries, description, key))


def read_bundle(path: Path, verify: VerifySignature, key: bytes | None = None) -> BundleContents:
    """Read and check a whole bundle. Raises as ``open_bundle``, BundleFileError, and for its documents SchemaError
    and NotCanonicalError."""
    with _opened(path) as stream:
        counter = _Counter(stream, hashlib.sha256())
        opened = open_bundle(counter.read, verify, key)
        sizes: dict[str, int] = {}
        small: dict[str, bytes] = {}
        sealed: list[str] = []
        for file in opened.files:
            name = file.file.filename
            sizes[name] = file.size
            if file.sealed:
                sealed.append(name)
            elif name.endswith(".json") and file.size <= _MAX_DOCUMENT:
                small[name] = b"".join(file.chunks)
    if BUNDLE_MANIFEST_NAME not in small:
        raise _contents(f"'{BUNDLE_MANIFEST_NAME}' is missing")
    manifest = documents.decode(BundleManifest, small[BUNDLE_MANIFEST_NAME], BUNDLE_MANIFEST_NAME)
    artifacts = _artifacts(manifest, small)
    check_coherence(opened.description, manifest, digest_bytes(small[BUNDLE_MANIFEST_NAME]), artifacts)
    listed = [(file.filename, file.size) for file in manifest.payloads]
    listed += [(file.filename, file.size) for file in manifest.runtimes]
    for name, size in listed + [(file.filename, file.size) for file in manifest.chassis]:
        if sizes[name] != size:
            raise _contents(f"'{name}' has {sizes[name]} bytes, {BUNDLE_MANIFEST_NAME} says {size}")
    chassis = _chassis(manifest, small)
    digest = Digest(counter.state.hexdigest())
    return BundleContents(opened.description, manifest, artifacts, chassis, sizes, digest, counter.size, tuple(sealed))


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
