"""A dossier that was drawn up elsewhere, held against the bundles that lie here: the whole of it is drawn up again.

Everything in a dossier follows from bundles, papers and release file, but for the seals. So it is drawn up here from
the bundles, judged again, with the dossier's own seals in the places where the release key would seal; what comes out
must be that very dossier. One thing is the sealing process's own word: which encrypted files nobody could open there.
Needs no private key. Pure; the time comes in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nwmctl.domain.certificate import Certificate, CertificationRequest, Dossier, LeafKind
from nwmctl.errors import DossierMismatchError
from nwmctl.formats import documents
from nwmctl.trust.certificate import Judged, draw_up
from nwmctl.trust.dossier import by_name, expect_release, open_certificate
from nwmctl.trust.seal import CERTIFICATE_TYPE, STATEMENT_TYPE, open_seal

_STATEMENTS = (LeafKind.PROVENANCE, LeafKind.CHECKS)
_SHOWN = 5


def check_dossier(
    dossier: Dossier, judged: Sequence[Judged], request: CertificationRequest, ca_pem: bytes, *, development: bool
) -> Certificate:
    """The certificate of a dossier, if these bundles and this request lead to the very same dossier.

    ``judged`` are all bundles of the release, from ``judge_bundle``; ``development`` says what kind of keys this key
    folder has. Raises DossierMismatchError, OtherReleaseError, and what ``open_certificate``, ``open_seal`` and
    ``draw_up`` raise.
    """
    certificate = open_certificate(dossier, ca_pem, request.at_us)
    expect_release(certificate, request.release, request.sequence)
    # A seal need not come out the same twice (ECDSA), so each is used once, in the order in which they were made.
    seals: dict[tuple[bytes, str], list[bytes]] = {}
    for payload, envelope in _statements(dossier, ca_pem, request.at_us):
        seals.setdefault((payload, STATEMENT_TYPE), []).append(envelope)
    seals[documents.encode(certificate), CERTIFICATE_TYPE] = [dossier.certificate.encode()]

    def seal(payload: bytes, payload_type: str) -> bytes:
        # What nobody sealed stands for itself: its digest is none of the dossier's, and the comparison names its leaf.
        found = seals.get((payload, payload_type))
        return found.pop(0) if found else payload

    again = draw_up(judged, request, seal, development=development, unopened=certificate.unopened)
    if again != dossier:
        raise DossierMismatchError(
            f"the dossier of release {request.release} is not the one that these bundles lead to",
            why=_differences(again, dossier),
            next="certify these very parts with this release file and this version of nwmctl: `nwmctl certify`",
        )
    return certificate


def _statements(dossier: Dossier, ca_pem: bytes, at_us: int) -> Iterator[tuple[bytes, bytes]]:
    """Every sealed statement: what it says, and its envelope."""
    for proven in dossier.leaves:
        text = dossier.papers.get(str(proven.leaf.digest))
        if proven.leaf.kind in _STATEMENTS and text is not None:
            yield open_seal(text.encode(), STATEMENT_TYPE, ca_pem, at_us), text.encode()


def _differences(again: Dossier, dossier: Dossier) -> str:
    here, there = by_name(again.leaves), by_name(dossier.leaves)
    changed = [
        f"'{kind}' {name}" for kind, name in sorted(here.keys() & there.keys()) if here[kind, name] != there[kind, name]
    ]
    missing = [f"'{kind}' {name} is missing in it" for kind, name in sorted(here.keys() - there.keys())]
    added = [f"'{kind}' {name} is in it alone" for kind, name in sorted(there.keys() - here.keys())]
    told = changed + missing + added
    if not told:
        return "its leaves are the same, its certificate or its papers are not"
    more = f", and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return f"it differs in {', '.join(told[:_SHOWN])}{more}"
