"""One small document of every schema, with every field away from its default where that is possible."""

from __future__ import annotations

from dataclasses import replace

from nwmctl.domain.amounts import Validation
from nwmctl.domain.artifact import ArtifactManifest, Port, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.bundle import BundleKind, BundleManifest, BundleTarget, CarriedRuntime, ChassisFile, Payload
from nwmctl.domain.certificate import (
    BundlePapers,
    BundleToCertify,
    Certificate,
    CertificationRequest,
    Dossier,
    Leaf,
    LeafKind,
    ProvenLeaf,
)
from nwmctl.domain.chassis import Chassis, adaptation, own_limits
from nwmctl.domain.delta import (
    BuiltDelta,
    BundleAtHand,
    Counted,
    DeltaBundle,
    DeltaBundles,
    DeltaSet,
    FleetCensus,
    VersionDeltas,
)
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.drill import Cell, Client, Counterparty, DrillReport, Holds, Outcome, Threat
from nwmctl.domain.evidence import Check, CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Confidence, Figure, Obtained, ResultFigure
from nwmctl.domain.homologation import MarketApproval
from nwmctl.domain.judge import Case, DriveLog, JudgeEvidence, JudgeRequest, JudgeSource
from nwmctl.domain.keys import (
    KeyEntry,
    KeyRingDocument,
    KeyRole,
    KeyState,
    RoleThreshold,
    RootSignature,
    RootSignatures,
)
from nwmctl.domain.measurement import Latency
from nwmctl.domain.model import (
    Channel,
    FileEntry,
    ModelCard,
    ModelContract,
    ModelOrigin,
    ModelReference,
    SignatureMethod,
    TensorSpec,
    TrainingStage,
)
from nwmctl.domain.packing import Base
from nwmctl.domain.platform import (
    Budget,
    Build,
    Catalogue,
    Chip,
    Envelope,
    EnvelopeLimit,
    PlatformProfile,
    Role,
    Seat,
    Slots,
    Variant,
    VehicleModel,
)
from nwmctl.domain.policy import FleetRules, Policy, Rule, TrustedJudge
from nwmctl.domain.prediction import Constants, CostFit, PredictionError
from nwmctl.domain.release import FleetReference, Gate, Mirror, Release, Tighten, Trust, WaveSpec
from nwmctl.domain.requires import (
    ReleaseRequires,
    Requires,
    RuntimeFile,
    RuntimeRequirement,
    RuntimeWay,
    VersionRange,
)
from nwmctl.domain.roofline import Bound
from nwmctl.domain.scenario import (
    EgoStart,
    Family,
    OtherVehicle,
    ScenarioDocument,
    WrittenScenario,
)
from nwmctl.domain.search import Candidate, CandidateState, Ranked, RecipeFile, SearchReport
from nwmctl.domain.signing import Approval, DeltaToProve, SigningRefusal, SigningRequest, SigningResult
from nwmctl.domain.split import Crossing, SplitPlan, Stage
from nwmctl.domain.traffic import ByteBudget, DeltaOrder, LinkClass
from nwmctl.domain.train import BundleFile, BundleResult


def digest(name: str) -> Digest:
    return digest_bytes(name.encode())


def figure(value: float | None, unit: str, confidence: Confidence = Confidence.PUBLIC) -> Figure:
    return Figure(value, unit, "a data sheet", confidence)


RECIPE = Recipe("iree", Precision.FP16, {"arch": "sm_87", "level": 3, "share": 0.5, "tiling": True})
CHASSIS = Chassis(
    figure(3.0, "m"), figure(14.0, "rad/rad"), figure(0.5, "rad"), figure(4.0, "m/s2"), figure(8.0, "m/s2"),
    figure(0.125, "s"),
)  # fmt: skip
_KEY = f"ed25519:{'0' * 64}"
_RULES = FleetRules({"*": {"parity": Rule(Obtained.BENCH, False, {"steer.max_abs": 0.005})}}, 2, figure(5.0, "m/s2"))
_CHANNEL = Channel("steer", "rad", -0.5, 0.5)
_CASE = Case(digest("card"), digest("manifest"), "nt9", "single/gpu")
_BASELINES = {"Cedar": VersionRange("2.1")}
_PARTS = {"gpu-driver": VersionRange("535", "550")}
_MARKETS = (MarketApproval("DE", "R157 NWM 1", "E1*157R01*0001"),)
_PROOF = DeltaToProve("payload.vmfb", "base", "delta")
_SERVES = VersionDeltas(
    "nt9", "0123", (10, 11),
    (BuiltDelta("payload.vmfb", Base("old.vmfb", digest("old")), digest("delta"), 12, 34),),
)  # fmt: skip
_GATE = Gate(0.9, 0.1, 0.5, 2.0)

_LATENCY = Latency(200, 1.5, 2.0, 2.5, 3.0, 1, 200.0, "stream:1", 0.25, Obtained.MEASURED)
_RANKED = Ranked("nine", "gpu", (RECIPE,), "the fastest that passed")

SAMPLES: tuple[object, ...] = (
    SearchReport(
        digest("card"), "nine", "gpu", "full",
        (
            Candidate(
                RECIPE, CandidateState.WON, "the fastest", 1.5, Obtained.MEASURED, 1.25, _LATENCY, 512,
                0.5, Precision.FP16,
            ),
        ),
        0.125, ("a note",),
    ),
    _RANKED,
    RecipeFile(digest("card"), {"nt9/single/gpu": _RANKED}),
    DrillReport(
        "1.0",
        True,
        (Counterparty(Client.VEHICLE, "nwmctl 1.0"), Counterparty(Client.TUF_JS, "", "node is missing")),
        (Threat("freeze", "Freeze", Holds.NETWORK, "holds back", "expiry", "hears nothing", "MetadataFrozenError"),),
        (
            Cell("freeze", Client.VEHICLE, Outcome.REFUSED, "it has expired", "MetadataFrozenError"),
            Cell("freeze", Client.TUF_JS, Outcome.NOT_RUN, "node is missing"),
        ),
    ),
    RECIPE,
    ModelCard(
        "nwm", "2.5", "a network", 681128,
        ModelContract(
            (TensorSpec("ego", "float32", ("B", 4, 1), (_CHANNEL,), "own motion"),),
            (TensorSpec("control", "float32", ("B", 1), (_CHANNEL,), "commands"),), 5.0, "steering",
        ),
        (TrainingStage("supervised", "drives", (7, 12), {"loss": 0.25}),),
        {"weights": FileEntry("model.onnx", digest("weights"), 10)}, "Apache-2.0", ("a simulator's roads only",),
    ),
    ArtifactManifest(
        digest("card"), RECIPE, digest("payload"), 10, "iree-vmfb", ("iree-compile", "model.mlir"), "compiler 3.13.0",
        "sm_87", {"mma": 111}, Precision.FP16, RuntimeNeeds("runtime", "3.13.0", ("--flag=1",), "540.4.0"), True,
        ("a note",), (Port("ego", "float32", (1, 4, 1)),), (Port("control", "float32", (1, 1)),),
        {"LC_ALL": "C.UTF-8"}, {"weights": digest("weights")}, {"MatMul.float32": 3}, {"MatMul.float16": 2},
    ),
    Evidence(
        digest("card"), digest("manifest"), "nt2.0", "quad-orin/gpu",
        (
            CheckResult(
                Check.PARITY, Verdict.PASSED, Obtained.PROXY, "compared",
                (ResultFigure("steer.max_abs", 0.001, "rad", Obtained.PROXY, 0.005),), "nothing", (1, 2),
            ),
            CheckResult(
                Check.CLOSED_LOOP, Verdict.INCONCLUSIVE, Obtained.BENCH, "too few drives",
                (ResultFigure("score_shift", 0.01, "", Obtained.BENCH, 0.02, -0.01, 0.03),), "drive 400", (3,), "rig",
                400,
            ),
        ),
    ),
    Policy(
        "example", 1, FleetRules({"*": {"contract": Rule(Obtained.PROXY)}}), _RULES,
        (TrustedJudge("rig", _KEY, (Check.CLOSED_LOOP,), Obtained.BENCH),),
    ),
    PlatformProfile(
        "nt9", "NT9", "nt90", "a generation",
        (Chip("chip", "a chip", figure(200.0, "GB/s"), figure(None, "GB", Confidence.UNKNOWN), {}, ("sm_87",)),),
        (
            Variant(
                "single", "single", (Seat(Role.MAIN, "chip", 2, "a report", Confidence.ASSUMED),),
                (
                    Build("gpu", "chip", "gpu", (Role.MAIN,), (RECIPE,), "a note", "cpu"),
                    Build("cpu", "chip", "cpu", (), (RECIPE,)),
                ), "a report", Confidence.DERIVED, figure(4.0, "GB/s"),
            ),
        ),
        Budget(figure(50.0, "ms"), figure(4096.0, "MB"), figure(0.5, "share")), Slots("/a", "/b"), "540.4.0",
        "a guess", Confidence.ASSUMED,
        Envelope(
            *(EnvelopeLimit(figure(limit, unit)) for limit, unit in ((0.2, "1/m"), (3.0, "m/s2"))),
            EnvelopeLimit(figure(5.0, "m/s3"), 0.5), EnvelopeLimit(figure(4.0, "m/s2")),
            EnvelopeLimit(figure(5.0, "m/s2")), EnvelopeLimit(figure(5.0, "m/s3"), 1.0),
        ),
    ),
    Catalogue(
        (VehicleModel("et9", "ET9", "NIO", "nt9", "single", "Cedar", CHASSIS, "a page", Confidence.PUBLIC),),
    ),
    Release(
        "nwm-9", 20, ModelReference("model", digest("card")), ModelReference("old", digest("old")), ("nt9",),
        "policy.yaml",
        Trust((_KEY,), (_KEY,)), FleetReference("showroom", "fleet.csv", True, 10),
        (WaveSpec("canary", _GATE, per_model=1), WaveSpec("rest", _GATE, share=1.0)),
        (Mirror("far", "sftp://a@b:22/c", "ssh-ed25519 AAAA", "id"),), Tighten(_RULES.platforms, 1), 2, 1.5,
        (
            JudgeSource(
                "rig", "", ("./rig.sh", "--fast"), "a@b:22", "ssh-ed25519 AAAA", "id", "", (Check.LATENCY,), ("nt9",),
                9.5, 512,
            ),
            JudgeSource("far", file="far/{artifact}.json"), JudgeSource("logs", log="drives.parquet"),
        ),
        Validation("full"), "recipes.yaml",
        runtime=RuntimeWay.CARRY,
        runtimes=(RuntimeFile("other", "1.2", "wheels/r.whl", digest("wheel"), "MIT", ("nt9",)),),
        requires=ReleaseRequires({"runtime": VersionRange("3.12", "3.13")}, _BASELINES, _PARTS),
        markets=_MARKETS,
        bytes=ByteBudget(1, 2, True),
        deltas=DeltaOrder(3, 1.5, 4096, 0.25),
    ),
    BundleManifest(
        "nwm-9", BundleKind.RETURN, 21, "nt9", "nt90", ("single",), digest("card"), "2.5", digest("policy"),
        (
            Payload(
                "payload-1.iree-vmfb", digest("payload"), 10, "single", "gpu", digest("m"), digest("e"),
                (Role.BACKUP, Role.FLEET_LEARNING),
            ),
        ),
        (ChassisFile("chassis-et9.json", digest("chassis"), 20, "et9"),), True,
        Requires((RuntimeRequirement("runtime", VersionRange("3.12", "3.13"), ("single",)),), _BASELINES, 1, _PARTS),
        (CarriedRuntime("r.whl", digest("wheel"), 30, "other", "1.2", "MIT", ("single",)),), _MARKETS,
    ),
    BundleTarget(
        "nwm-9", BundleKind.RELEASE, 20, "nt9", "nt90", ("single",), True,
        Requires((RuntimeRequirement("runtime", VersionRange("3.12", "3.13"), ("single",)),), _BASELINES, 1, _PARTS),
        "0" * 16,
    ),
    BundleResult(
        "nwm-9", 20, "nt9", digest("card"), digest("old"), digest("policy"), (digest("e"),),
        (BundleFile(BundleKind.RELEASE, "nwm-9.swu", digest("swu"), 10, 20, digest("m"), digest("card")),),
    ),
    KeyRingDocument(
        True, 1_700_000_000_000_000,
        (
            KeyEntry(KeyRole.RELEASE, "file:a.pem", "rsa3072:0", "a.crt", "b.crt"),
            KeyEntry(KeyRole.TARGETS, "hsm:2?label=nt9", "ed25519:00", platform="nt9", state=KeyState.RETIRED),
        ),
        (RoleThreshold(KeyRole.ROOT, 2),),
    ),
    RootSignatures((RootSignature(digest("root"), _KEY, "00", "ff"),)),
    adaptation("et9", "nt9", CHASSIS, replace(own_limits(CHASSIS), deceleration=figure(5.0, "m/s2"))),
    SigningRequest(
        "p", "ps", (_KEY,), True, Tighten(_RULES.platforms, 1), ("e",), "b", ("a",), "d", "k", 1, ("y",), "secret",
        deltas=(_PROOF,),
    ),
    SigningResult("00", digest("d"), digest("b"), digest("p"), _KEY, (_KEY,), True, True),
    SigningRefusal("SigningRefusedError", "what", "why", "next"),
    Approval(digest("b"), "looked at it"),
    ScenarioDocument(
        "a lorry in the lane",
        written=WrittenScenario(
            Family.HIGHWAY, ((0.0, 0.0), (400.0, 0.0)), EgoStart(10.0, 20.0, 22.0, 0.5, 0.125),
            (OtherVehicle(80.0, 0.0, 0.0, ((0.0, 3.0), (400.0, 3.0)), 2.5, False),), (3, 4), 1,
        ),
    ),
    JudgeRequest(_CASE, digest("payload"), (Check.CLOSED_LOOP,), 7, {"closed_loop": {"score_shift": 0.02}}),
    JudgeEvidence(
        "rig", "firmware 7", _CASE,
        (
            CheckResult(
                Check.CLOSED_LOOP, Verdict.PASSED, Obtained.BENCH, "drove",
                (ResultFigure("score_shift", 0.01, "", Obtained.BENCH, None, 0.0, 0.015),), "", (3,),
            ),
        ),
        {"scenarios": "sha256:00"},
    ),
    DriveLog("drives", digest("log"), "a simulator"),
    CostFit(
        "host",
        (
            Constants(
                "iree", "host", {"opt_level": "O3"}, {"call_us": 2.5}, {"fp32": 40.0}, {"fp16": 3.0},
                PredictionError(5, 3, 0.125, 0.5),
            ),
        ),
        ("one", "two"), Obtained.MEASURED, "a calibration", 33554432,
    ),
    SplitPlan(
        digest("card"), "chip", "gpu", RECIPE, 10.0, (Crossing(Port("flow", "float32", (1, 4, 8)), 128),), 128, 64, 32,
        (
            Stage(
                digest("one"), ("first",), 1000, 200, 300, 1.5, Bound.ARITHMETIC, digest("payload"), digest("manifest")
            ),
            Stage(digest("two"), ("second",), 900, 100, 200, 1.25, Bound.BANDWIDTH),
        ),
        figure(4.0, "GB/s"), "predicted time", 2.5, 0.25, 3.0, 571.5, PredictionError(0, 0, 1.0, 3.0), "assumed",
        ("a note",), Obtained.PROXY, True,
    ),
    ModelOrigin(digest("card"), SignatureMethod.OPENSSF, f"p256:02{'0' * 64}"),
    BundlePapers("p", "ps", "c", "cs", "o", "pr", "b", "d", ("e",), ("a",), ("j",), ("y",)),
    CertificationRequest(
        "nwm-9", 20, ("nt9",), True, (_KEY,), (_KEY,), Tighten(_RULES.platforms, 1),
        (BundleToCertify("s", "p", (_PROOF,)),), "k", 1, "secret", (_KEY,), "0" * 64,
    ),
    Certificate(
        "nwm-9", 20, digest("card"), digest("old"), digest("policy"), digest("root"), 2, True, True, True, "draft",
        Tighten(_RULES.platforms, 1), ("release/nt9/payload-gpu",),
    ),
    Dossier(
        "{}", (ProvenLeaf(Leaf(LeafKind.PAYLOAD, "release/nt9/single/gpu", digest("payload")), 1, (digest("leaf"),)),),
        {str(digest("paper")): "paper"},
    ),
    FleetCensus(
        "showroom", True, (Counted("nt9", 10, LinkClass.CELLULAR, 3),), (BundleAtHand("nt9", 10, digest("swu")),)
    ),
    DeltaSet((_SERVES,)),
    DeltaBundles((DeltaBundle(_SERVES, "nwm-9-nt9-20-delta-0.swu", digest("swu"), digest("papers"), 100),)),
)  # fmt: skip
