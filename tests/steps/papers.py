"""Fixed inputs of the bundle and sign steps in a content store: a made-up platform, its artifacts, evidence, a policy.

All bytes come from constants, so whatever the steps make of them is the same on every machine.
"""

from __future__ import annotations

from dataclasses import replace

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Evidence
from nwmctl.domain.model import ModelCard, ModelOrigin, SignatureMethod, TrainingStage
from nwmctl.domain.platform import Catalogue
from nwmctl.domain.work import BundleWork, FleetRulesWork, SignWork
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.storage.content import ContentStore
from nwmctl.trust.dsse import MODEL_CARD_TYPE, POLICY_TYPE, sign_dsse
from tests.bundling import samples
from tests.project import CONTRACT, MODEL_KEY, SAFETY_KEY
from tests.trust.papers import POLICY, PROXY

CARD = ModelCard("m", "1.0", "made up", 3, CONTRACT, (TrainingStage("none", "none", (1,)),), {}, "Apache-2.0")
SITES = (("big", "gpu", samples.GPU), ("big", "cpu", samples.CPU), ("small", "cpu", samples.CPU))
WORK = BundleWork("nwm-x", 7, BundleKind.RELEASE, "p1")
SIGN_WORK = SignWork(FleetRulesWork(True), (SAFETY_KEY.public,), WORK)


def bundle_inputs(store: ContentStore, *, policy: bytes = POLICY) -> dict[str, Digest]:
    """The inputs of a bundle step, stored."""
    card = store.put_bytes(documents.encode(CARD))
    inputs = {
        "profile": store.put_bytes(documents.encode(samples.profile())),
        "catalogue": store.put_bytes(documents.encode(Catalogue(samples.VEHICLES))),
        "chassis_template": store.put_bytes(samples.TEMPLATE.encode()),
        "policy": store.put_bytes(policy),
        "card": card,
    }
    for variant, build, payload in SITES:
        place = f"{variant}/{build}"
        manifest = replace(samples.manifest(payload, build), model=card)
        paper = store.put_bytes(documents.encode(manifest))
        evidence = Evidence(card, paper, "p1", place, (PROXY,))
        inputs |= {
            f"payload:{place}": store.put_bytes(payload),
            f"manifest:{place}": paper,
            f"evidence:{place}": store.put_bytes(documents.encode(evidence)),
        }
    return inputs


def sign_inputs(store: ContentStore, bundle: dict[str, Digest], outputs: dict[str, Digest]) -> dict[str, Digest]:
    """The inputs of a sign step: those of the bundle, what the bundle step left, and who signed policy and model."""
    policy, card = store.read(bundle["policy"]), store.read(bundle["card"])
    origin = ModelOrigin(bundle["card"], SignatureMethod.MODEL_CARD, MODEL_KEY.public)
    return {
        **bundle,
        **outputs,
        "policy_signature": store.put_bytes(sign_dsse(policy, POLICY_TYPE, SAFETY_KEY)),
        "card_signature": store.put_bytes(sign_dsse(card, MODEL_CARD_TYPE, MODEL_KEY)),
        "origin": store.put_bytes(documents.encode(origin)),
    }


def plain(work: object) -> object:
    """A work order as the plan writes it."""
    return to_plain(work)
