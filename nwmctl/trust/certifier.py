"""The process that certifies a release, and the function that asks it.

Run as ``python -m nwmctl.trust.certifier``: one request on stdin, the dossier on stdout. As the signing process it
reads every bundle and every paper from their files, judges all of them again, and only then opens the release key; it
writes the statements itself and never seals one that it was handed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nwmctl.domain.certificate import BundlePapers, BundleToCertify, Certificate, CertificationRequest, Dossier
from nwmctl.errors import SigningInputError
from nwmctl.formats import documents
from nwmctl.trust.certificate import Judged, draw_up, judge_bundle, unopened
from nwmctl.trust.delta_proof import prove_deltas
from nwmctl.trust.dossier import open_certificate
from nwmctl.trust.keys import KeyRing, load_keyring
from nwmctl.trust.redraw import check_dossier
from nwmctl.trust.script_proof import packaged_templates, prove_scripts
from nwmctl.trust.seal import sealer
from nwmctl.trust.signer import ask, own_keys, read_paper, refuse_development, refuse_strangers, serve

_MODULE = "nwmctl.trust.certifier"


def request_certificate(request: CertificationRequest, *, timeout_s: float = 900.0) -> Dossier:
    """Ask a process of its own to certify. Raises what it refuses with, or SigningProcessError."""
    return ask(_MODULE, request, Dossier, timeout_s)


def certify(request: CertificationRequest) -> Dossier:
    """What the process does. Raises what ``judge_bundle``, ``draw_up`` and the key ring raise."""
    keyring, passphrase = own_keys(request.keys, request.passphrase)
    judged = _judged(request, keyring)
    seal = sealer(keyring, passphrase)
    dossier = draw_up(judged, request, seal, development=keyring.development, unopened=unopened(judged))
    # What readers would refuse (an expired certificate) is refused here, where somebody can act.
    open_certificate(dossier, keyring.ca_pem(), request.at_us)
    return dossier


def recheck(request: CertificationRequest, dossier: Dossier) -> Certificate:
    """The certificate of a dossier that was drawn up elsewhere, if it is the very one that this request would get.

    Needs a process of its own no more than any reader: no private key is opened. Raises as ``certify``, and what
    ``check_dossier`` raises.
    """
    keyring = load_keyring(Path(request.keys))
    judged = _judged(request, keyring)
    return check_dossier(dossier, judged, request, keyring.ca_pem(), development=keyring.development)


def _judged(request: CertificationRequest, keyring: KeyRing) -> list[Judged]:
    """Every bundle of a request, judged again from its file. Opens no private key."""
    refuse_strangers(keyring, request.safety_keys, request.approver_keys)
    ca_pem = keyring.ca_pem()
    judged = [_judge(bundle, request, ca_pem) for bundle in request.bundles]
    for one in judged:
        refuse_development(keyring, virtual_only=one.manifest.virtual_only)
    return judged


def _judge(bundle: BundleToCertify, request: CertificationRequest, ca_pem: bytes) -> Judged:
    papers = documents.decode(BundlePapers, read_paper(bundle.papers), "papers of a bundle")
    try:
        with Path(bundle.swu).open("rb") as file:
            judged = judge_bundle(papers, file.read, request, ca_pem)
    except OSError as problem:
        raise SigningInputError(
            f"the bundle '{Path(bundle.swu).name}' cannot be read",
            why=str(problem.strerror or problem),
            next="run the release again, it writes its bundles",
        ) from problem
    prove_scripts(judged.description, packaged_templates())
    prove_deltas(judged.description, bundle.deltas)
    return judged


def main() -> int:
    """Entry of the process: 0 with a Dossier on stdout, 5 with a SigningRefusal."""
    return serve(lambda data: certify(documents.decode(CertificationRequest, data, "certification request")))


if __name__ == "__main__":
    sys.exit(main())
