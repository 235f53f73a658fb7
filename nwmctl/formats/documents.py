"""Schema-tagged documents: canonical JSON that says what it is.

Every hashed document carries ``schema: nwmctl.<name>/<N>``. A reader accepts its own version and the one before
(through a migration of the plain value), and refuses newer ones. The table below is the registry of schemas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nwmctl.domain.artifact import ArtifactManifest, Recipe
from nwmctl.domain.bundle import BundleManifest, BundleTarget
from nwmctl.domain.certificate import BundlePapers, Certificate, CertificationRequest, Dossier
from nwmctl.domain.chassis import ChassisAdaptation
from nwmctl.domain.delta import DeltaBundles, DeltaSet, FleetCensus
from nwmctl.domain.drill import DrillReport
from nwmctl.domain.evidence import Evidence
from nwmctl.domain.judge import DriveLog, JudgeEvidence, JudgeRequest
from nwmctl.domain.keys import KeyRingDocument, RootSignatures
from nwmctl.domain.model import ModelCard, ModelOrigin
from nwmctl.domain.platform import Catalogue, PlatformProfile
from nwmctl.domain.policy import Policy
from nwmctl.domain.prediction import CostFit
from nwmctl.domain.release import Release
from nwmctl.domain.scenario import ScenarioDocument
from nwmctl.domain.search import Ranked, RecipeFile, SearchReport
from nwmctl.domain.signing import Approval, SigningRefusal, SigningRequest, SigningResult
from nwmctl.domain.split import SplitPlan
from nwmctl.domain.train import BundleResult
from nwmctl.errors import SchemaError, SchemaVersionError
from nwmctl.formats import canonical, yamldoc
from nwmctl.formats.canonical import Plain
from nwmctl.formats.codec import Source, from_plain, to_plain

T = TypeVar("T")
Migration = Callable[[dict[str, Plain]], dict[str, Plain]]


@dataclass(frozen=True, slots=True)
class Schema:
    """A document's name and current version; ``migrate`` lifts version N-1 to N."""

    name: str
    version: int
    migrate: Migration | None = None

    @property
    def tag(self) -> str:
        """``name/N``."""
        return f"{self.name}/{self.version}"


def _only_added(table: dict[str, Plain]) -> dict[str, Plain]:
    """The new version only added fields that have a default."""
    return table


SCHEMAS: dict[type, Schema] = {
    ModelCard: Schema("nwmctl.model-card", 1),
    Recipe: Schema("nwmctl.recipe", 1),
    ArtifactManifest: Schema("nwmctl.artifact", 2, _only_added),
    Evidence: Schema("nwmctl.evidence", 2, _only_added),
    Policy: Schema("nwmctl.policy", 2, _only_added),
    PlatformProfile: Schema("nwmctl.platform", 2, _only_added),
    Catalogue: Schema("nwmctl.vehicle-catalogue", 1),
    Release: Schema("nwmctl.release", 2, _only_added),
    BundleManifest: Schema("nwmctl.bundle", 1),
    BundleResult: Schema("nwmctl.bundle-result", 1),
    KeyRingDocument: Schema("nwmctl.keyring", 1),
    RootSignatures: Schema("nwmctl.root-signatures", 1),
    ChassisAdaptation: Schema("nwmctl.chassis", 1),
    BundleTarget: Schema("nwmctl.bundle-target", 1),
    SigningRequest: Schema("nwmctl.signing-request", 1),
    SigningResult: Schema("nwmctl.signing-result", 1),
    SigningRefusal: Schema("nwmctl.signing-refusal", 1),
    Approval: Schema("nwmctl.approval", 1),
    ScenarioDocument: Schema("nwmctl.scenario", 1),
    JudgeRequest: Schema("nwmctl.judge-request", 1),
    JudgeEvidence: Schema("nwmctl.judge-evidence", 1),
    DriveLog: Schema("nwmctl.drive-log", 1),
    CostFit: Schema("nwmctl.cost-fit", 1),
    SplitPlan: Schema("nwmctl.split", 1),
    SearchReport: Schema("nwmctl.search-report", 1),
    Ranked: Schema("nwmctl.ranked-recipes", 1),
    RecipeFile: Schema("nwmctl.recipes", 1),
    DrillReport: Schema("nwmctl.drill-report", 1),
    ModelOrigin: Schema("nwmctl.model-origin", 1),
    BundlePapers: Schema("nwmctl.bundle-papers", 1),
    CertificationRequest: Schema("nwmctl.certification-request", 1),
    Certificate: Schema("nwmctl.certificate", 1),
    Dossier: Schema("nwmctl.dossier", 1),
    FleetCensus: Schema("nwmctl.fleet-census", 1),
    DeltaSet: Schema("nwmctl.delta-set", 1),
    DeltaBundles: Schema("nwmctl.delta-bundles", 1),
}


def encode(value: object) -> bytes:
    """Canonical bytes of a registered document."""
    plain = to_plain(value)
    if not isinstance(plain, dict):
        raise TypeError(f"{type(value).__name__} is not a document")
    return canonical.encode({**plain, "schema": SCHEMAS[type(value)].tag})


def decode(kind: type[T], data: bytes, where: str) -> T:
    """Read canonical bytes of a document. Raises NotCanonicalError, SchemaError, SchemaVersionError."""
    return _build(kind, canonical.decode(data, where), Source(where))


def decode_yaml(kind: type[T], data: bytes, where: str) -> T:
    """Read a document that a person wrote in YAML. Raises SchemaError with file, line and key."""
    return decode_yaml_with_places(kind, data, where)[0]


def decode_yaml_with_places(kind: type[T], data: bytes, where: str) -> tuple[T, Source]:
    """As ``decode_yaml``, and where each key stands: for refusals that only a later look at the values can make."""
    plain, source = yamldoc.parse(data, where)
    return _build(kind, plain, source), source


def _build(kind: type[T], plain: Plain, source: Source) -> T:
    schema = SCHEMAS[kind]
    if not isinstance(plain, dict):
        raise source.refuse((), "not a mapping", f"a {schema.tag} document is a mapping", "correct the document")
    table = dict(plain)
    tag = table.pop("schema", None)
    name, _, number = str(tag).rpartition("/")
    if name != schema.name or not number.isascii() or not number.isdigit():
        raise source.refuse(
            ("schema",), f"schema is {tag!r}", f"{schema.tag} is expected here", f"write 'schema: {schema.tag}'"
        )
    version = int(number)
    if version > schema.version:
        raise SchemaVersionError(
            f"{source.name} is {tag}",
            why=f"this nwmctl reads {schema.name} up to version {schema.version}",
            next="upgrade nwmctl",
        )
    if version == schema.version - 1 and schema.migrate is not None:
        table = schema.migrate(table)
    elif version != schema.version:
        raise SchemaError(
            f"{source.name} is {tag}", why=f"this nwmctl reads {schema.tag}", next="convert it with an older nwmctl"
        )
    return from_plain(kind, table, source)
