"""A bundle with policy and evidence on disk, ready to be signed; tests spoil one paper at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.bundling.bundle import BundlePlan, plan_bundle
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.keys import KeyRole
from nwmctl.domain.release import Tighten
from nwmctl.domain.signing import Approval, SigningRequest
from nwmctl.formats import documents
from nwmctl.trust.dsse import APPROVAL_TYPE, POLICY_TYPE, sign_dsse
from nwmctl.trust.keys import KeyRing
from tests.bundling import samples

POLICY = b"""
schema: nwmctl.policy/2
name: tests
version: 1
virtual:
  platforms:
    "*":
      parity: {weakest: proxy, margins: {difference: 0.01}}
      latency: {weakest: estimated, required: false}
real:
  platforms:
    "*":
      parity: {weakest: bench, margins: {difference: 0.01}}
      latency: {weakest: bench}
"""
PROXY = CheckResult(
    Check.PARITY,
    Verdict.PASSED,
    Obtained.PROXY,
    "equal",
    (ResultFigure("difference", 0.001, "1", Obtained.PROXY, 0.01),),
)
BENCH = replace(PROXY, obtained=Obtained.BENCH, figures=(ResultFigure("difference", 0.001, "1", Obtained.BENCH, 0.01),))
LATENCY = CheckResult(Check.LATENCY, Verdict.PASSED, Obtained.BENCH, "4 ms")
BAD = replace(PROXY, verdict=Verdict.FAILED, summary="they differ", next="use fp32")


@dataclass
class Desk:
    """A folder of papers and the request that names them."""

    folder: Path
    keyring: KeyRing
    plan: BundlePlan
    request: SigningRequest

    def replaced(self, **change: object) -> SigningRequest:
        return replace(self.request, **change)  # type: ignore[arg-type]


def lay_out(
    folder: Path,
    keyring: KeyRing,
    results: tuple[CheckResult, ...] = (PROXY,),
    *,
    virtual: bool = True,
    virtual_only: bool = True,
    policy: bytes = POLICY,
    changes: Mapping[str, object] | None = None,
    jit: bool = False,
) -> Desk:
    """Write all papers. ``changes`` are made to every evidence pack before the bundle names it; with ``jit`` a driver
    in the vehicle compiles the GPU's artifact further."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = samples.inputs()
    if jit:
        first, *others = inputs.artifacts
        inputs = replace(
            inputs, artifacts=(replace(first, manifest=replace(first.manifest, jit_in_vehicle=True)), *others)
        )
    packs: dict[str, bytes] = {}
    artifacts = []
    for built in inputs.artifacts:
        pack = Evidence(samples.MODEL, samples.manifest_digest(built.manifest), "p1", built.build, results)
        data = documents.encode(replace(pack, **(changes or {})))  # type: ignore[arg-type]
        packs[f"evidence-{digest_bytes(data).short}.json"] = data
        artifacts.append(replace(built, evidence=digest_bytes(data)))
    plan = plan_bundle(
        replace(inputs, artifacts=tuple(artifacts), policy=digest_bytes(policy), virtual_only=virtual_only)
    )
    files = {
        **packs,
        **{name: data for name, data in plan.documents.items() if not name.startswith("chassis")},
        "policy.yaml": policy,
        "policy.yaml.sig": sign_dsse(policy, POLICY_TYPE, keyring.signer(KeyRole.SAFETY)),
        "sw-description": plan.description_bytes,
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    request = SigningRequest(
        policy=str(folder / "policy.yaml"),
        policy_signature=str(folder / "policy.yaml.sig"),
        safety_keys=(keyring.public(KeyRole.SAFETY),),
        virtual=virtual,
        tighten=Tighten(),
        evidence=tuple(str(folder / name) for name in packs),
        bundle=str(folder / "bundle.json"),
        artifacts=tuple(str(folder / name) for name in plan.documents if name.startswith("artifact")),
        description=str(folder / "sw-description"),
        keys=str(keyring.folder),
        at_us=keyring.document.created_us,
    )
    return Desk(folder, keyring, plan, request)


def approve(desk: Desk, keyring: KeyRing, role: KeyRole = KeyRole.SAFETY, bundle: bytes | None = None) -> str:
    """Write an approval of the desk's bundle (or of other bytes); returns its path."""
    approval = Approval(digest_bytes(bundle or desk.plan.manifest_bytes))
    path = desk.folder / f"approval-{role}.json"
    path.write_bytes(sign_dsse(documents.encode(approval), APPROVAL_TYPE, keyring.signer(role)))
    return str(path)
