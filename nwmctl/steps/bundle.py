"""bundle: artifacts, evidence and chassis figures -> what one platform's bundle holds, ready to be signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.bundling.bundle import BuiltArtifact, BundleInputs, BundlePlan, plan_bundle
from nwmctl.bundling.chassis import render_chassis
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Evidence
from nwmctl.domain.model import ModelCard
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
                vehicle.code: render_chassis(vehicle, template, profile.envelope) for vehicle in catalogue.vehicles
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

    def __call__(self, work: BundleWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        plan = planned_bundle(self.store, work, inputs)
        outputs = {
            "bundle": self.store.put_bytes(plan.manifest_bytes),
            "description": self.store.put_bytes(plan.description_bytes),
        }
        return Outcome(
            outputs,
            {
                "payloads": len(plan.payloads),
                "chassis_adaptations": len(plan.manifest.chassis),
                "virtual_fleets_only": plan.manifest.virtual_only,
            },
        )


def bundle_step(store: ContentStore) -> Step[BundleWork]:
    """The step."""
    return Step(StepName.BUNDLE, 4, True, BundleWork, _Bundle(store))
