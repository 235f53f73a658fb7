"""The process that certifies a release, and the function that asks it.

Run as ``python -m nwmctl.trust.certifier``: one request on stdin, the dossier on stdout. As the signing process it
reads every bundle and every paper from their files, judges all of them again, and only then opens the release key; it
writes the statements itself and never seals one that it was handed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nwmctl.domain.certificate import BundlePapers, BundleToCertify, CertificationRequest, Dossier
from nwmctl.errors import SigningInputError
from nwmctl.formats import documents
from nwmctl.trust.certificate import Judged, draw_up, judge_bundle
from nwmctl.trust.dossier import open_certificate
from nwmctl.trust.keys import load_keyring
from nwmctl.trust.seal import sealer
from nwmctl.trust.signer import ask, read_paper, refuse_development, serve

_MODULE = "nwmctl.trust.certifier"


def request_certificate(request: CertificationRequest, *, timeout_s: float = 900.0) -> Dossier:
    """Ask a process of its own to certify. Raises what it refuses with, or SigningProcessError."""
    return ask(_MODULE, request, Dossier, timeout_s)


def certify(request: CertificationRequest) -> Dossier:
    """What the process does. Raises what ``judge_bundle``, ``draw_up`` and the key ring raise."""
    keyring = load_keyring(Path(request.keys))
    ca_pem = keyring.ca_pem()
    judged = [_judge(bundle, request, ca_pem) for bundle in request.bundles]
    for one in judged:
        refuse_development(keyring, virtual_only=one.manifest.virtual_only)
    passphrase = None if request.passphrase is None else request.passphrase.encode()
    dossier = draw_up(judged, request, sealer(keyring, passphrase), development=keyring.development)
    # What readers would refuse (an expired certificate) is refused here, where somebody can act.
    open_certificate(dossier, ca_pem, request.at_us)
    return dossier


def _judge(bundle: BundleToCertify, request: CertificationRequest, ca_pem: bytes) -> Judged:
    papers = documents.decode(BundlePapers, read_paper(bundle.papers), "papers of a bundle")
    try:
        with Path(bundle.swu).open("rb") as file:
            return judge_bundle(papers, file.read, request, ca_pem)
    except OSError as problem:
        raise SigningInputError(
            f"the bundle '{Path(bundle.swu).name}' cannot be read",
            why=str(problem.strerror or problem),
            next="run the release again, it writes its bundles",
        ) from problem


def main() -> int:
    """Entry of the process: 0 with a Dossier on stdout, 5 with a SigningRefusal."""
    return serve(lambda data: certify(documents.decode(CertificationRequest, data, "certification request")))


if __name__ == "__main__":
    sys.exit(main())
