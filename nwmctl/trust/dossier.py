"""A dossier, opened: leaves are believed because of their proofs, papers because of their digests, nothing else.

Pure; the time is an argument. What the papers say about one another is walked elsewhere (``walk``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nwmctl.domain.certificate import Certificate, Dossier, LeafKind, ProvenLeaf
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import (
    DossierFormatError,
    LeafMissingError,
    LeafUnprovenError,
    NwmError,
    OtherReleaseError,
    PaperAlteredError,
)
from nwmctl.formats import documents
from nwmctl.trust.seal import CERTIFICATE_TYPE, open_seal

MAX_DOSSIER = 128 << 20
"""Bytes. A dossier holds texts, and no payload."""


def open_certificate(dossier: Dossier, ca_pem: bytes, at_us: int) -> Certificate:
    """The certificate of a dossier, if the release authority's key sealed it and every leaf leads to its root.

    A dossier may hold fewer leaves than the certificate counts (a part of it, for one bundle), and never others.
    Raises what ``open_seal`` and ``documents.decode`` raise, LeafUnprovenError, PaperAlteredError, DossierFormatError.
    """
    payload = open_seal(dossier.certificate.encode(), CERTIFICATE_TYPE, ca_pem, at_us)
    certificate = documents.decode(Certificate, payload, "certificate")
    names: set[tuple[LeafKind, str]] = set()
    for proven in dossier.leaves:
        leaf = proven.leaf
        if proven.root(certificate.leaves) != certificate.root:
            raise LeafUnprovenError(
                f"'{leaf.kind}' {leaf.name} is not what was certified",
                why="what should join it to the root of the certificate leads to another root",
                next="fetch the dossier again, from where the release was published",
            )
        names.add((leaf.kind, leaf.name))
    if len(names) != len(dossier.leaves):
        raise _format("two of its leaves have the same name")
    _check_papers(dossier)
    return certificate


def read_dossier(data: bytes, where: str) -> Dossier:
    """A dossier's bytes, nothing of it believed yet. Raises DossierFormatError, SchemaVersionError."""
    if len(data) > MAX_DOSSIER:
        raise _format(f"it has {len(data)} bytes, at most {MAX_DOSSIER} are read")
    try:
        return documents.decode(Dossier, data, where)
    except (NwmError, RecursionError) as problem:
        why = problem.why if isinstance(problem, NwmError) else "it is nested too deeply"
        raise _format(f"{problem}".partition("\n")[0][:300] + f" ({why[:300]})") from problem


def expect_release(certificate: Certificate, release: str, sequence: int) -> None:
    """Return if the certificate is about this release, or raise OtherReleaseError."""
    if (certificate.release, certificate.sequence) != (release, sequence):
        raise OtherReleaseError(
            f"the certificate is about release {certificate.release}, sequence {certificate.sequence}",
            why=f"asked for is release {release}, sequence {sequence}",
            next="name the dossier that was published with this release",
        )


def expect_leaf(certified: Mapping[tuple[LeafKind, str], Digest], kind: LeafKind, name: str, digest: Digest) -> None:
    """Return if the certificate covers this thing as it is here. ``certified`` comes from ``by_name``.

    Raises LeafMissingError where it says nothing about it, LeafUnprovenError where it says something else.
    """
    found = certified.get((kind, name))
    if found is None:
        raise LeafMissingError(
            f"the certificate says nothing about '{kind}' {name}",
            why="none of the dossier's leaves is about it",
            next="name the whole dossier that was published with this release",
        )
    if found != digest:
        raise LeafUnprovenError(
            f"'{kind}' {name} is not what was certified",
            why=f"it is {digest.short}, certified is {found.short}",
            next="fetch bundle and dossier again, from where the release was published",
        )


def _check_papers(dossier: Dossier) -> None:
    for name, text in dossier.papers.items():
        if str(digest_bytes(text.encode("utf-8", "surrogatepass"))) != name:
            raise PaperAlteredError(
                f"a paper of the dossier is not the one that was certified ({name[:24]}...)",
                why="its text has another digest than the one under which it stands",
                next="fetch the dossier again, from where the release was published",
            )


def by_name(leaves: Sequence[ProvenLeaf]) -> dict[tuple[LeafKind, str], Digest]:
    """Leaves by what they are about."""
    return {(proven.leaf.kind, proven.leaf.name): proven.leaf.digest for proven in leaves}


def _format(why: str) -> DossierFormatError:
    return DossierFormatError(
        "this is not a dossier that nwmctl wrote",
        why=why,
        next="fetch the dossier again, from where the release was published",
    )
