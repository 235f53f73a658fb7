"""bundle: artifacts, evidence and chassis figures -> what one platform's bundle holds, packed and ready to be signed.

The description that is signed names the digests of the packed payloads, so they are packed here; the sign step takes
them from the store by those digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.bundling.bundle import BuiltArtifact, BundleInputs, BundlePlan, plan_bundle
from nwmctl.bundling.chassis import render_chassis
from nwmctl.bundling.pack import PackingOrder, PayloadFile, pack_payload
from nwmctl.bundling.settle import settle
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Evidence
from nwmctl.domain.model import ModelCard
from nwmctl.domain.packing import Packing
from nwmctl.domain.platform import Catalogue, PlatformProfile
from nwmctl.domain.policy import Policy, judge
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import BundleWork, StepName
from nwmctl.formats import documents
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore


def planned_bundle(store: ContentStore, work: BundleWork, inputs: Mapping[str, Digest]) -> BundlePlan:
    """The plan of a bundle, from the store. Pure in the inputs: the sign step makes the same plan again."""
    profile = documents.decode(PlatformProfile, store.read(inputs["profile"]), "profile")
    catalogue = documents.decode(Catalogue, store.read(inputs["catalogue"]), "catalogue")
    card = documents.decode(ModelCard, store.read(inputs["card"]), "model card")
    policy = documents.decode_yaml(Policy, store.read(inputs["policy"]), "policy")
    template = store.read(inputs["chassis_template"]).decode("utf-8")
    evidence = [
        documents.decode(Evidence, store.read(digest), name)
        for name, digest in inputs.items()
        if name.startswith("evidence:")
    ]
    artifacts = tuple(
        _artifact(store, inputs, variant.name, build.name) for variant in profile.variants for build in variant.builds
    )
    jit = {inputs[f"manifest:{each.variant}/{each.build}"] for each in artifacts if each.manifest.jit_in_vehicle}
    return plan_bundle(
        BundleInputs(
            release=work.release,
            kind=work.kind,
            sequence=work.sequence,
            profile=profile,
            model=inputs["card"],
            model_version=card.version,
            policy=inputs["policy"],
            artifacts=artifacts,
            chassis={
                vehicle.code: render_chassis(vehicle, template, profile.envelope, policy.braking)
                for vehicle in catalogue.vehicles
            },
            # What a real fleet's rules would refuse must never look as if it could go there.
            virtual_only=bool(judge(policy.real, evidence, jit)),
            terms=work.terms,
            runtime_sizes={
                each.name: store.path(inputs[f"runtime:{each.name}"]).stat().st_size for each in work.terms.runtimes
            },
        )
    )


def _artifact(store: ContentStore, inputs: Mapping[str, Digest], variant: str, build: str) -> BuiltArtifact:
    place = f"{variant}/{build}"
    manifest = documents.decode(ArtifactManifest, store.read(inputs[f"manifest:{place}"]), "artifact manifest")
    return BuiltArtifact(variant, build, manifest, inputs[f"evidence:{place}"])


@dataclass(frozen=True, slots=True)
class _Bundle:
    store: ContentStore
    order: PackingOrder
    join_template: str

    def __call__(self, work: BundleWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        plan = planned_bundle(self.store, work, inputs)
        profile = documents.decode(PlatformProfile, self.store.read(inputs["profile"]), "profile")
        packings = self._packed(plan, progress)
        small = plan.documents.keys()
        plan = settle(plan, profile, packings, self.join_template)
        outputs = {
            "bundle": self.store.put_bytes(plan.manifest_bytes),
            "description": self.store.put_bytes(plan.description_bytes),
            # Named, so that a result whose packed bytes are gone is not taken for whole.
            **{f"packed:{part.name}": part.digest for packing in packings.values() for part in packing.parts},
        }
        outputs |= {f"script:{n}": self.store.put_bytes(data) for n, data in plan.documents.items() if n not in small}
        return Outcome(
            outputs,
            {
                "payloads": len(plan.payloads),
                "payload_bytes": sum(self.store.path(digest).stat().st_size for digest in plan.payloads.values()),
                "packed_bytes": sum(packing.packed_size for packing in packings.values()),
                "chassis_adaptations": len(plan.manifest.chassis),
                "virtual_fleets_only": plan.manifest.virtual_only,
            },
        )

    def _packed(self, plan: BundlePlan, progress: Progress) -> dict[str, Packing]:
        found: dict[str, Packing] = {}
        for done, (name, digest) in enumerate(plan.payloads.items()):
            progress(f"packing {name}", done / len(plan.payloads))
            path = self.store.path(digest)
            with self.store.scratch() as folder:
                payload = PayloadFile(name, digest, path.stat().st_size, path)
                # The store has hashed it in this process. Staging opens no encrypted bundle: such a payload is
                # hashed while it is packed, too.
                packing = pack_payload(payload, self.order, folder, proven=self.order.key is None)
                if packing:
                    found[name] = packing
                    for part in packing.parts:
                        self.store.adopt(folder / part.digest.hex, part.digest)
        return found


def bundle_step(store: ContentStore, order: PackingOrder | None = None, join_template: str = "") -> Step[BundleWork]:
    """The step. ``order`` says how payloads are packed (zstd, without a key); ``join_template`` is that of the script
    that joins payloads over 4 GiB in the vehicle."""
    order = order or PackingOrder()
    fingerprint = f"{order.fingerprint}, join {digest_bytes(join_template.encode())}"
    return Step(
        StepName.BUNDLE,
        5,
        True,
        BundleWork,
        _Bundle(store, order, join_template),
        fingerprint=lambda _: fingerprint,
    )
