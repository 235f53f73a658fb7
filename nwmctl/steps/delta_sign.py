"""sign_deltas: the deltas, the signed bundles and their papers -> signed delta bundles, if the signing process agrees.

A delta bundle is the full one in another description: same manifest, same evidence, same digests of what is installed.
It is judged by the full one's papers all over again, and the signing process itself has each delta make its file before
it signs. Signatures are deterministic, so the step is pure; the key is part of its fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nwmctl.bundling.bundle import BundlePlan
from nwmctl.bundling.delta_bundle import DeltaFile, with_deltas
from nwmctl.bundling.reopen import known_contents, reopened
from nwmctl.bundling.write import write_bundle
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.certificate import BundlePapers
from nwmctl.domain.clock import Clock
from nwmctl.domain.delta import BuiltDelta, DeltaBundle, DeltaBundles, DeltaSet, VersionDeltas
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.release import Tighten
from nwmctl.domain.signing import DeltaToProve, SigningRequest
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import SignDeltasWork, StepName
from nwmctl.formats import documents
from nwmctl.formats.bundle_names import bundle_filename
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.signer import request_signature

VERSION = 1
_TIMEOUT_S = 900.0


def to_prove(store: ContentStore, files: tuple[BuiltDelta, ...]) -> tuple[DeltaToProve, ...]:
    """What proves the deltas of a bundle, as paths of the store."""
    return tuple(
        DeltaToProve(file.filename, str(store.path(file.base.digest)), str(store.path(file.digest))) for file in files
    )


@dataclass(frozen=True, slots=True)
class _SignDeltas:
    store: ContentStore
    keys: KeyRing
    passphrase: str | None
    clock: Clock
    template: str

    def __call__(self, work: SignDeltasWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        wanted = documents.decode(DeltaSet, self.store.read(inputs["deltas"]), "deltas").deltas
        made = []
        for done, one in enumerate(wanted):
            progress(f"{one.platform}: the signing process judges evidence and delta", done / len(wanted))
            place = f"{BundleKind.RELEASE}/{one.platform}"
            made.append(self._made(work, one, inputs[f"swu:{place}"], inputs[f"papers:{place}"]))
        bundles = DeltaBundles(tuple(made))
        outputs = {
            "bundles": self.store.put_bytes(documents.encode(bundles)),
            **{f"swu:{one.swu.hex}": one.swu for one in made},
            **{f"papers:{one.papers.hex}": one.papers for one in made},
            # What proves them is needed once more, by whoever certifies.
            **{f"delta:{file.digest.hex}": file.digest for one in made for file in one.serves.files},
            **{f"base:{file.base.digest.hex}": file.base.digest for one in made for file in one.serves.files},
        }
        return Outcome(outputs, {"delta_bundles": len(made), "size": sum(one.size for one in made)})

    def _made(self, work: SignDeltasWork, one: VersionDeltas, full: Digest, papers: Digest) -> DeltaBundle:
        plan = self._plan(full, one)
        own = documents.decode(BundlePapers, self.store.read(papers), "papers of a bundle")
        own = replace(own, description=plan.description_bytes.decode())
        result = request_signature(self._request(work, own, one), timeout_s=_TIMEOUT_S)
        with self.store.scratch() as folder:
            signature = bytes.fromhex(result.signature)
            written = write_bundle(plan, signature, self.store.path, folder / "bundle.swu", proven=True)
            swu = self.store.adopt(written.path, written.digest)
        name = bundle_filename(plan.manifest, plan.description)
        return DeltaBundle(one, name, swu, self.store.put_bytes(documents.encode(own)), written.size)

    def _plan(self, full: Digest, one: VersionDeltas) -> BundlePlan:
        """The full bundle's plan, with the deltas in place of the files that they bring."""
        path = self.store.path(full)

        def keep(digest: Digest, chunks: Iterator[bytes]) -> None:
            with self.store.scratch() as folder:
                with (folder / digest.hex).open("wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                self.store.adopt(folder / digest.hex, digest)

        plan = reopened(path, known_contents(path), self.store.has, keep)
        files = {file.filename: DeltaFile(file.base, file.digest, file.size, file.plain_size) for file in one.files}
        return with_deltas(plan, files, self.template)

    def _request(self, work: SignDeltasWork, papers: BundlePapers, one: VersionDeltas) -> SigningRequest:
        return SigningRequest(
            policy=self._path(papers.policy),
            policy_signature=self._path(papers.policy_signature),
            safety_keys=work.safety_keys,
            approver_keys=work.approver_keys,
            virtual=work.rules.virtual,
            tighten=Tighten(work.rules.tighten, work.rules.approvals),
            evidence=self._paths(papers.evidence),
            bundle=self._path(papers.bundle),
            artifacts=self._paths(papers.artifacts),
            description=self._path(papers.description),
            keys=str(self.keys.folder),
            at_us=self.clock.now_us(),
            approvals=self._paths(papers.approvals),
            passphrase=self.passphrase,
            envelopes=self._paths(papers.envelopes),
            deltas=to_prove(self.store, one.files),
        )

    def _path(self, text: str) -> str:
        return str(self.store.path(self.store.put_bytes(text.encode())))

    def _paths(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._path(text) for text in texts)


def sign_deltas_step(
    store: ContentStore, keys: KeyRing, passphrase: str | None, clock: Clock, template: str
) -> Step[SignDeltasWork]:
    """The step. ``template`` is that of the script that applies a delta in the vehicle."""

    def fingerprint(_: SignDeltasWork) -> str:
        key = f"release {keys.public(KeyRole.RELEASE)} {digest_bytes(keys.certificate_pem())}"
        return f"{key}, apply {digest_bytes(template.encode())}"

    work = _SignDeltas(store, keys, passphrase, clock, template)
    return Step(StepName.SIGN_DELTAS, VERSION, True, SignDeltasWork, work, fingerprint=fingerprint)
