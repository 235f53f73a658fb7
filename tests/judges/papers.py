"""A model, an artifact of it, a question about it, and a judge's key: what every test of judges starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.judge import Case, JudgeEvidence, JudgeRequest
from nwmctl.domain.policy import Rule, TrustedJudge
from nwmctl.formats import documents
from nwmctl.toolchains.protocol import CompileRequest
from nwmctl.toolchains.registry import registry
from nwmctl.trust.keys import Ed25519Signer
from nwmctl.validation.judges.protocol import Material
from tests.project import CONTRACT, Network, write_model

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(3, 35)))
KEY = Ed25519Signer(PRIVATE)
NAME = "rig"
MARGINS = {Check.CLOSED_LOOP: {"score_shift": 0.05}, Check.LOG_REPLAY: {"disagreements_per_km": 60.0}}
JUDGE = TrustedJudge(NAME, KEY.public, (Check.CLOSED_LOOP, Check.LOG_REPLAY), Obtained.BENCH)
RULES = {check.value: Rule(Obtained.PROXY, margins=margins) for check, margins in MARGINS.items()}
__all__ = ["CONTRACT"]


@dataclass(frozen=True)
class Papers:
    """``question`` about ``material``."""

    material: Material
    question: JudgeRequest

    @property
    def case(self) -> Case:
        return self.question.case


def write_key(folder: Path) -> Path:
    """The judge's private key as a file."""
    path = folder / "judge.pem"
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(PRIVATE.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    path.chmod(0o600)
    return path


def made_up(folder: Path, checks: tuple[Check, ...] = (Check.CLOSED_LOOP,)) -> Papers:
    """Files of a few bytes: for judges that look at digests only."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("card", "weights", "manifest", "payload")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return papers(Material(*paths), checks)


def compiled(folder: Path, checks: tuple[Check, ...]) -> Papers:
    """A tiny driving model and its artifact for this machine, which really drives."""
    model = folder / "model"
    write_model(model, Network())
    scratch = folder / "scratch"
    scratch.mkdir()
    card = model / "model-card.json"
    recipe = Recipe("onnxruntime", Precision.FP32)
    request = CompileRequest(model / "model.onnx", digest_bytes(card.read_bytes()), recipe, "host", "", scratch)
    made = registry().get("onnxruntime").compile(request)
    manifest = folder / "manifest.json"
    manifest.write_bytes(documents.encode(made.manifest))
    return papers(Material(card, model / "model.onnx", manifest, made.payload), checks)


def papers(material: Material, checks: tuple[Check, ...]) -> Papers:
    """The question about some material."""
    model, artifact, payload = (
        digest_bytes(path.read_bytes()) for path in (material.card, material.manifest, material.payload)
    )
    case = Case(model, artifact, "virtual", "host/host")
    margins = {check.value: dict(MARGINS[check]) for check in checks}
    return Papers(material, JudgeRequest(case, payload, checks, 7, margins))


def result(value: float = 0.01, low: float | None = 0.0, high: float | None = 0.02) -> CheckResult:
    """A closed loop that a rig has driven."""
    figure = ResultFigure("score_shift", value, "", Obtained.BENCH, None, low, high)
    return CheckResult(Check.CLOSED_LOOP, Verdict.PASSED, Obtained.BENCH, "drove 400 laps", (figure,), "", (7,))


def evidence(case: Case, *results: CheckResult) -> JudgeEvidence:
    """What the rig says."""
    return JudgeEvidence(NAME, "firmware 7", case, results or (result(),), {"laps": "400"})
