"""sign: bundle, evidence and policy -> signed .swu, if the signing process agrees, and the papers it was judged by.

The signing process reads the papers from the store itself and judges again; this step only hands it the paths and
packs what it signed. RSA signatures are deterministic, so the step is pure; the key is part of its fingerprint. (An
ECDSA key of a device signs otherwise each time: what was published is then only in the content store.) Approvals are
none of its inputs: the papers hold those that the first permission was given by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.bundling.write import write_bundle
from nwmctl.domain.certificate import BundlePapers
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.release import Tighten
from nwmctl.domain.signing import SigningRequest
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import SignWork, StepName
from nwmctl.formats import documents
from nwmctl.formats.swu import parse_description
from nwmctl.steps.base import Progress, Step
from nwmctl.steps.bundle import planned_bundle
from nwmctl.storage.content import ContentStore
from nwmctl.trust.keys import KeyRing, KeyRole
from nwmctl.trust.signer import request_signature


@dataclass(frozen=True, slots=True)
class _Sign:
    store: ContentStore
    keys: KeyRing
    passphrase: str | None
    approvals: tuple[Path, ...]
    clock: Clock

    def __call__(self, work: SignWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        described = parse_description(self.store.read(inputs["description"]))
        plan = replace(planned_bundle(self.store, work.bundle, inputs), description=described)
        progress("the signing process judges the evidence", -1.0)
        result = request_signature(
            SigningRequest(
                policy=self._path(inputs["policy"]),
                policy_signature=self._path(inputs["policy_signature"]),
                safety_keys=work.safety_keys,
                approver_keys=work.approver_keys,
                virtual=work.rules.virtual,
                tighten=Tighten(work.rules.tighten, work.rules.approvals),
                evidence=self._papers(inputs, "evidence:"),
                bundle=self._path(inputs["bundle"]),
                artifacts=self._papers(inputs, "manifest:"),
                description=self._path(inputs["description"]),
                keys=str(self.keys.folder),
                at_us=self.clock.now_us(),
                approvals=tuple(str(path) for path in self.approvals),
                passphrase=self.passphrase,
                envelopes=self._papers(inputs, "envelope:"),
            )
        )
        progress("packing", -1.0)
        with self.store.scratch() as folder:
            signature = bytes.fromhex(result.signature)
            written = write_bundle(plan, signature, self.store.path, folder / "bundle.swu", proven=True)
            swu = self.store.adopt(written.path, written.digest)
        papers = self.store.put_bytes(documents.encode(self._collected(inputs)))
        return Outcome(
            {"swu": swu, "papers": papers},
            {"size": written.size, "_file": plan.manifest.filename, "development_key": result.development},
        )

    def _collected(self, inputs: Mapping[str, Digest]) -> BundlePapers:
        """All texts that this bundle was judged by."""
        named = ("policy", "policy_signature", "card", "card_signature", "origin", "profile", "bundle", "description")
        return BundlePapers(
            **{name: self.store.read(inputs[name]).decode() for name in named},
            evidence=self._texts(inputs, "evidence:"),
            artifacts=self._texts(inputs, "manifest:"),
            envelopes=self._texts(inputs, "envelope:"),
            approvals=tuple(path.read_text("utf-8") for path in self.approvals),
        )

    def _texts(self, inputs: Mapping[str, Digest], prefix: str) -> tuple[str, ...]:
        return tuple(Path(path).read_text("utf-8") for path in self._papers(inputs, prefix))

    def _path(self, digest: Digest) -> str:
        return str(self.store.path(digest))

    def _papers(self, inputs: Mapping[str, Digest], prefix: str) -> tuple[str, ...]:
        # Two builds may share an artifact; each paper is handed over once.
        digests = dict.fromkeys(digest for name, digest in sorted(inputs.items()) if name.startswith(prefix))
        return tuple(self._path(digest) for digest in digests)


def sign_step(
    store: ContentStore, keys: KeyRing, passphrase: str | None, approvals: tuple[Path, ...], clock: Clock
) -> Step[SignWork]:
    """The step. ``approvals`` are envelopes of people who approve bundles of this release."""
    key = f"release {keys.public(KeyRole.RELEASE)} {_certificate(keys)}"
    return Step(
        StepName.SIGN, 5, True, SignWork, _Sign(store, keys, passphrase, approvals, clock), fingerprint=lambda _: key
    )


def _certificate(keys: KeyRing) -> str:
    from nwmctl.domain.digest import digest_bytes

    return str(digest_bytes(keys.certificate_pem()))
