"""A signed bundle, opened again: as the plan that it was written from, and file by file.

A delta bundle is made from the signed full one, wherever that was built, so that both say the same. What lies in the
archive is held against the signed description while it is read. The signature itself was looked at by whoever let the
bundle in, and is looked at again by whoever hands it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nwmctl.bundling.bundle import BundlePlan
from nwmctl.bundling.read import BundleContents, open_bundle, read_bundle
from nwmctl.domain.bundle import BundleManifest
from nwmctl.domain.digest import Digest
from nwmctl.errors import BundleFileError
from nwmctl.formats import cpio
from nwmctl.formats.members import verified

Keep = Callable[[Digest, Iterator[bytes]], None]
"""Takes the bytes of a file under their digest."""


def known_contents(path: Path) -> BundleContents:
    """What a bundle holds whose signature was verified before. Raises as ``read_bundle``."""
    return read_bundle(path, _verified_before)


def large_names(manifest: BundleManifest) -> frozenset[str]:
    """The files that are not read into memory: payloads and runtimes."""
    return frozenset([file.filename for file in manifest.payloads] + [file.filename for file in manifest.runtimes])


def take_files(path: Path, wanted: Mapping[str, Digest], keep: Keep) -> None:
    """Hand the plain bytes of the ``wanted`` files (name -> digest) to ``keep``. What is encrypted, or comes as a
    delta, is passed over. Raises as ``read_bundle``."""
    try:
        with path.open("rb") as stream:
            for found in open_bundle(stream.read, _verified_before).files:
                if found.file.filename in wanted and not found.sealed:
                    keep(found.file.digest, found.chunks)
    except OSError as problem:
        raise _unreadable(path, problem) from problem


def reopened(path: Path, contents: BundleContents, has: Callable[[Digest], bool], keep: Keep) -> BundlePlan:
    """The plan of a bundle. Large members that ``has`` does not know are handed to ``keep`` as they lie in the archive.

    Raises as ``read_bundle``.
    """
    description, large = contents.description, large_names(contents.manifest)
    members = {
        part: digest
        for file in description.files
        if file.filename in large
        for part, digest in (file.members[:-1] if file.join else file.members)
    }
    digests = dict(description.members)
    documents: dict[str, bytes] = {}
    try:
        with path.open("rb") as stream:
            for entry in cpio.unpack(stream.read):
                if entry.name not in digests:
                    continue  # the description and its signature
                chunks = verified(entry.chunks(), digests[entry.name], entry.name)
                if entry.name not in members:
                    documents[entry.name] = b"".join(chunks)
                elif not has(members[entry.name]):
                    keep(members[entry.name], chunks)
    except OSError as problem:
        raise _unreadable(path, problem) from problem
    payloads = {file.filename: file.digest for file in description.files if file.filename in large}
    return BundlePlan(contents.manifest, description, documents, dict(sorted(payloads.items())))


def _verified_before(description: bytes, signature: bytes) -> None:
    """See the module's first paragraph."""


def _unreadable(path: Path, problem: OSError) -> BundleFileError:
    return BundleFileError(
        f"'{path.name}' cannot be read", why=str(problem.strerror or problem), next="name an existing bundle file"
    )
