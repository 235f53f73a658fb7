"""certify: the signed bundles of all platforms and their papers -> one dossier, if the certifying process agrees.

The process reads bundles and papers from the store itself and judges each again; this step only hands it the paths.
Everything that it writes and seals follows from what it reads, so the step is pure; the key is part of its fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.domain.certificate import BundleToCertify, CertificationRequest, LeafKind
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.release import Tighten
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CertifyWork, StepName
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore
from nwmctl.trust.certifier import request_certificate
from nwmctl.trust.keys import KeyRing

VERSION = 1


@dataclass(frozen=True, slots=True)
class _Certify:
    store: ContentStore
    keys: KeyRing
    passphrase: str | None
    clock: Clock

    def __call__(self, work: CertifyWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        progress("a process of its own judges every bundle again", -1.0)
        places = [name.removeprefix("swu:") for name in sorted(inputs) if name.startswith("swu:")]
        dossier = request_certificate(
            CertificationRequest(
                release=work.release,
                sequence=work.sequence,
                platforms=work.platforms,
                virtual=work.rules.virtual,
                safety_keys=work.safety_keys,
                model_keys=work.model_keys,
                approver_keys=work.approver_keys,
                tighten=Tighten(work.rules.tighten, work.rules.approvals),
                bundles=tuple(
                    BundleToCertify(self._path(inputs[f"swu:{place}"]), self._path(inputs[f"papers:{place}"]))
                    for place in places
                ),
                keys=str(self.keys.folder),
                at_us=self.clock.now_us(),
                passphrase=self.passphrase,
            )
        )
        data = documents.encode(dossier)
        statements = sum(each.leaf.kind in (LeafKind.PROVENANCE, LeafKind.CHECKS) for each in dossier.leaves)
        return Outcome(
            {"dossier": self.store.put_bytes(data)},
            {"leaves": len(dossier.leaves), "statements": statements, "size": len(data)},
        )

    def _path(self, digest: Digest) -> str:
        return str(self.store.path(digest))


def certify_step(store: ContentStore, keys: KeyRing, passphrase: str | None, clock: Clock) -> Step[CertifyWork]:
    """The step."""

    def fingerprint(_: CertifyWork) -> str:
        return f"release {keys.public(KeyRole.RELEASE)} {digest_bytes(keys.certificate_pem())}"

    return Step(
        StepName.CERTIFY, VERSION, True, CertifyWork, _Certify(store, keys, passphrase, clock), fingerprint=fingerprint
    )
