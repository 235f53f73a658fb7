"""certify: the signed bundles of all platforms and their papers -> one dossier, if the certifying process agrees.

The process reads bundles and papers from the store itself and judges each again; this step only hands it the paths.
Everything that it writes and seals follows from what it reads, so the step is pure; the key is part of its fingerprint.
A dossier that was drawn up elsewhere (input ``dossier``) is held against the same bundles, judged again, instead; then
the release key is not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nwmctl.domain.certificate import BundleToCertify, CertificationRequest, LeafKind
from nwmctl.domain.clock import Clock
from nwmctl.domain.delta import DeltaBundles
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.release import Tighten
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CertifyWork, StepName
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.steps.delta_sign import to_prove
from nwmctl.storage.content import ContentStore
from nwmctl.trust.certifier import recheck, request_certificate
from nwmctl.trust.dossier import read_dossier
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.payload_key import PayloadKey

VERSION = 2

BROUGHT = "dossier"
"""The input of a dossier that was drawn up elsewhere."""


@dataclass(frozen=True, slots=True)
class _Certify:
    store: ContentStore
    keys: KeyRing
    passphrase: str | None
    clock: Clock
    payload_key: PayloadKey | None

    def __call__(self, work: CertifyWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        brought = inputs.get(BROUGHT)
        if brought is None:
            progress("a process of its own judges every bundle again", -1.0)
            data = documents.encode(request_certificate(self._request(work, inputs)))
        else:
            progress("every bundle is judged again, for the dossier that was brought", -1.0)
            data = self.store.read(brought)
            # The release key is somewhere else; the request holds no passphrase for it.
            recheck(replace(self._request(work, inputs), passphrase=None), read_dossier(data, "the dossier"))
        dossier = read_dossier(data, "the dossier")
        statements = sum(each.leaf.kind in (LeafKind.PROVENANCE, LeafKind.CHECKS) for each in dossier.leaves)
        return Outcome(
            {"dossier": self.store.put_bytes(data)},
            {"leaves": len(dossier.leaves), "statements": statements, "size": len(data)},
        )

    def _request(self, work: CertifyWork, inputs: Mapping[str, Digest]) -> CertificationRequest:
        places = [name.removeprefix("swu:") for name in sorted(inputs) if name.startswith("swu:")]
        return CertificationRequest(
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
            )
            + self._with_deltas(inputs),
            keys=str(self.keys.folder),
            at_us=self.clock.now_us(),
            passphrase=self.passphrase,
            payload_key=self.payload_key.secret.hex() if self.payload_key else None,
        )

    def _with_deltas(self, inputs: Mapping[str, Digest]) -> tuple[BundleToCertify, ...]:
        listed = inputs.get("delta_bundles")
        if listed is None:
            return ()
        bundles = documents.decode(DeltaBundles, self.store.read(listed), "delta bundles").bundles
        return tuple(
            BundleToCertify(self._path(one.swu), self._path(one.papers), to_prove(self.store, one.serves.files))
            for one in bundles
        )

    def _path(self, digest: Digest) -> str:
        return str(self.store.path(digest))


def certify_step(
    store: ContentStore, keys: KeyRing, passphrase: str | None, clock: Clock, payload_key: PayloadKey | None = None
) -> Step[CertifyWork]:
    """The step. ``payload_key`` opens encrypted payloads, so that their plain bytes are proven too."""

    def fingerprint(_: CertifyWork) -> str:
        opened = f" payload {payload_key.name}" if payload_key else ""
        return f"release {keys.public(KeyRole.RELEASE)} {digest_bytes(keys.certificate_pem())}{opened}"

    code = _Certify(store, keys, passphrase, clock, payload_key)
    return Step(StepName.CERTIFY, VERSION, True, CertifyWork, code, fingerprint=fingerprint)
