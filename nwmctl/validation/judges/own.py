"""nwmctl's own checks as an outside judge: for a machine that has a chip, a log or the time that another one lacks.

It opens the artifact with a toolchain of this machine and signs what the checks say under its own name. ``obtained`` is
how its operator says that figures are obtained here; the asking side's policy decides how much of that it believes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from nwmctl.domain.artifact import ArtifactManifest, Port
from nwmctl.domain.evidence import Check, CheckResult
from nwmctl.domain.figure import Obtained
from nwmctl.domain.judge import JudgeEvidence, JudgeRequest, silent
from nwmctl.domain.model import ModelCard
from nwmctl.domain.policy import Rule
from nwmctl.errors import JudgeFailedError, JudgeUnreachableError
from nwmctl.formats import documents
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.protocol import Place, Session
from nwmctl.toolchains.registry import Registry
from nwmctl.toolchains.sessions import open_worker
from nwmctl.trust.judgements import sign_evidence
from nwmctl.trust.keys import Signer
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.judges.protocol import Material
from nwmctl.validation.subject import Pace, Way

_REFERENCE_TIMEOUT_S = 60.0

Run = Callable[[Candidate, Callable[[], Session], Rule, int], CheckResult]
"""One check: the artifact, the model as trained, the margins, the seed."""


@dataclass(frozen=True, slots=True)
class OwnJudge:
    """Answers for the checks in ``runs``. ``used`` goes into its evidence."""

    name: str
    version: str
    signer: Signer
    toolchains: Registry
    obtained: Obtained
    runs: Mapping[Check, Run]
    used: dict[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Its version and what it uses."""
        return f"{self.version} {sorted(self.used.items())}"

    def ask(self, request: JudgeRequest, material: Material) -> bytes:
        """See ``Judge.ask``. Raises JudgeFailedError, JudgeUnreachableError and what the reference raises."""
        card = documents.decode(ModelCard, material.card.read_bytes(), "model card")
        manifest = documents.decode(ArtifactManifest, material.manifest.read_bytes(), "artifact manifest")
        self._compare(request, material)
        driver = self.toolchains.get(manifest.recipe.toolchain)
        reason = driver.places(manifest)[Place.HOST]
        if reason:
            raise JudgeUnreachableError(
                f"judge '{self.name}' cannot execute this artifact", why=reason, next="ask it on a machine that can"
            )
        way = Way(
            self.obtained,
            f"{self.name} through {driver.name}",
            Pace.BATCH,
            lambda: driver.open(material.payload, manifest, Place.HOST),
        )
        with Candidate(card.contract, way) as candidate:
            results = tuple(
                self._one(check, candidate, lambda: _reference(material, card), request) for check in request.checks
            )
        evidence = JudgeEvidence(self.name, self.version, request.case, results, self.used)
        return sign_evidence(evidence, self.signer)

    def _one(
        self, check: Check, candidate: Candidate, reference: Callable[[], Session], request: JudgeRequest
    ) -> CheckResult:
        run = self.runs.get(check)
        if run is None:
            return silent(self.name, check, "it does not know this check", "ask a judge that does")
        rule = Rule(self.obtained, margins=request.margins.get(check, {}))
        return replace(run(candidate, reference, rule, request.seed), judge=self.name)

    def _compare(self, request: JudgeRequest, material: Material) -> None:
        """Somebody who signs for digests looks at them first."""
        for what, said, path in [
            ("model card", request.case.model, material.card),
            ("artifact manifest", request.case.artifact, material.manifest),
            ("payload", request.payload, material.payload),
        ]:
            found = file_digest(path)
            if found != said:
                raise JudgeFailedError(
                    f"judge '{self.name}' was given another {what} than it was asked about",
                    why=f"it is {found}, the question is about {said}",
                    next="ask again",
                )


def _reference(material: Material, card: ModelCard) -> Session:
    inputs, outputs = (
        tuple(Port(spec.name, spec.dtype, spec.shape) for spec in side)
        for side in (card.contract.inputs, card.contract.outputs)
    )
    return open_worker("onnxruntime", material.weights, inputs, outputs, _REFERENCE_TIMEOUT_S)
