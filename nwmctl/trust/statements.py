"""in-toto statements about one artifact: how it was compiled (SLSA provenance), and what the checks found.

Pure: typed values in, canonical JSON out, the same bytes for the same values; sealing is done elsewhere. A statement
says what its documents say and adds nothing. The builder that it names is the machine that ran nwmctl: nobody
isolated it, so the provenance is the signer's word (SLSA build level 1), and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import nwmctl
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BundleManifest, Payload
from nwmctl.domain.certificate import DRAFT
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import CheckResult, Evidence
from nwmctl.domain.figure import ResultFigure
from nwmctl.domain.model import CARD_NAME, ModelCard
from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.formats.codec import to_plain

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
CHECKS = "urn:nwmctl:predicate:checks:1"
BUILD_TYPE = "urn:nwmctl:build:compile:1"
BUILDER = "urn:nwmctl:builder:unisolated"
LAYER = "layer."
"""Figures of single layers begin so; they stay in the evidence."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One payload of a bundle with the documents about it."""

    bundle: BundleManifest
    payload: Payload
    artifact: ArtifactManifest
    card: ModelCard

    @property
    def place(self) -> str:
        """``variant/build``."""
        return f"{self.payload.variant}/{self.payload.build}"


def provenance(made: Compiled) -> bytes:
    """How the payload was compiled, from which inputs, with what, as the artifact's manifest tells it."""
    artifact = made.artifact
    recipe = to_plain(artifact.recipe)
    definition: dict[str, Plain] = {
        "buildType": BUILD_TYPE,
        "externalParameters": {"build": made.place, "platform": made.bundle.platform, "recipe": recipe},
        "internalParameters": {"argv": list(artifact.argv), "environment": dict(artifact.environment)},
        "resolvedDependencies": _inputs(made),
    }
    builder: dict[str, Plain] = {"id": BUILDER, "version": {"nwmctl": nwmctl.__version__}}
    byproducts: list[Plain] = [
        _resource("artifact manifest", made.payload.manifest),
        _resource("evidence", made.payload.evidence),
    ]
    details: dict[str, Plain] = {"builder": builder, "byproducts": byproducts}
    return _statement(made.payload, PROVENANCE, {"buildDefinition": definition, "runDetails": details})


def checks(made: Compiled, evidence: Evidence) -> bytes:
    """What every check found: verdict, figures, how each was obtained; what was not run stands there as such."""
    predicate: dict[str, Plain] = {
        "artifact": _resource("artifact manifest", made.payload.manifest),
        "build": made.place,
        "evidence": _resource("evidence", made.payload.evidence),
        "judges": [_resource("answer of an outside judge", digest) for digest in evidence.envelopes],
        "model": _resource(CARD_NAME, evidence.model),
        "platform": evidence.platform,
        "policy": _resource("policy", made.bundle.policy),
        "results": [_result(result) for result in evidence.results],
        "status": DRAFT,
        "virtualOnly": made.bundle.virtual_only,
    }
    return _statement(made.payload, CHECKS, predicate)


def _inputs(made: Compiled) -> list[Plain]:
    """Model card, files read, and the tool: of that the version is known and no digest."""
    tool: dict[str, Plain] = {
        "annotations": {"version": made.artifact.toolchain_version},
        "name": "toolchain",
        "uri": f"urn:nwmctl:toolchain:{made.artifact.recipe.toolchain}",
    }
    files = [_resource(name, digest) for name, digest in sorted(made.artifact.sources.items())]
    if not files and "weights" in made.card.files:
        files = [_resource("weights", made.card.files["weights"].digest)]
    return [_resource(CARD_NAME, made.artifact.model), *files, tool]


def _statement(payload: Payload, kind: str, predicate: dict[str, Plain]) -> bytes:
    return canonical.encode(
        {
            "_type": STATEMENT,
            "predicate": predicate,
            "predicateType": kind,
            "subject": [_resource(payload.filename, payload.digest)],
        }
    )


def _resource(name: str, digest: Digest) -> dict[str, Plain]:
    return {"digest": {"sha256": digest.hex}, "name": name}


def _result(result: CheckResult) -> Plain:
    return {
        "check": str(result.check),
        "figures": [_figure(figure) for figure in result.figures if not figure.name.startswith(LAYER)],
        "judge": result.judge or "nwmctl",
        "next": result.next,
        "obtained": str(result.obtained),
        "summary": result.summary,
        "verdict": str(result.verdict),
    }


def _figure(figure: ResultFigure) -> Plain:
    bounds = {"high": figure.high, "limit": figure.limit, "low": figure.low}
    known: dict[str, Plain] = {name: value for name, value in bounds.items() if value is not None}
    return {
        **known,
        "name": figure.name,
        "obtained": str(figure.obtained),
        "unit": figure.unit,
        "value": figure.value,
    }
