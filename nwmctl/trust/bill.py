"""The bill of materials of a release: CycloneDX 1.6 (ML-BOM), with model cards and quantitative analysis.

Components are the models, one artifact per build (each with its own figures, for a figure about a model as trained is
not one about what was compiled from it), the compilers and the runtimes. CycloneDX has no field for how a figure was
obtained nor for a check that was not run, so the one stands in the metric's slice and the other in properties
(``nwmctl:not_run:CHECK``). Holds no time and no serial number, so the same release has the same bytes. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nwmctl
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.certificate import DRAFT
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import CheckResult, Evidence, Verdict
from nwmctl.domain.figure import Obtained, ResultFigure
from nwmctl.domain.model import ModelCard, TensorSpec
from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.trust.statements import LAYER, Compiled

SPECIFICATION = "1.6"
NOT_RUN = "nwmctl:not_run:"


@dataclass(frozen=True, slots=True)
class BilledModel:
    """A model of the release. ``card_digest`` is the model's; ``signer`` who signed it, in words."""

    kind: BundleKind
    card: ModelCard
    card_digest: Digest
    signer: str

    @property
    def reference(self) -> str:
        """Its name inside the bill."""
        return f"model/{self.kind}"


@dataclass(frozen=True, slots=True)
class BilledArtifact:
    """One build's artifact with its evidence."""

    made: Compiled
    evidence: Evidence

    @property
    def reference(self) -> str:
        """Its name inside the bill."""
        return f"artifact/{self.made.bundle.kind}/{self.made.bundle.platform}/{self.made.place}"


def bill_of_materials(
    release: str,
    sequence: int,
    models: Sequence[BilledModel],
    artifacts: Sequence[BilledArtifact],
    *,
    virtual_only: bool,
) -> bytes:
    """The bill, as canonical JSON."""
    tools = sorted({(each.made.artifact.recipe.toolchain, each.made.artifact.toolchain_version) for each in artifacts})
    needs = sorted({(each.made.artifact.needs.runtime, each.made.artifact.needs.version) for each in artifacts})
    components: list[Plain] = [
        *(_model(model) for model in models),
        *(_artifact(each) for each in artifacts),
        *(_component("application", f"toolchain/{name}/{version}", name, version) for name, version in tools),
        *(_component("library", f"runtime/{name}/{version}", name, version) for name, version in needs),
    ]
    dependencies: list[Plain] = [_depends("release", [each.reference for each in artifacts])]
    dependencies += [_depends(each.reference, _needs(each)) for each in artifacts]
    tool = _component("application", "nwmctl", "nwmctl", nwmctl.__version__)
    return canonical.encode(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": SPECIFICATION,
            "version": 1,
            "metadata": {
                "tools": {"components": [tool]},
                "component": _component("firmware", "release", release, str(sequence)),
                "properties": [
                    _property("nwmctl:status", DRAFT),
                    _property("nwmctl:virtual_only", str(virtual_only).lower()),
                ],
            },
            "components": components,
            "dependencies": dependencies,
        }
    )


def _model(model: BilledModel) -> Plain:
    card = model.card
    datasets: list[Plain] = [
        {"type": "dataset", "name": stage.name, "description": f"{stage.data} (seeds {_seeds(stage.seeds)})"}
        for stage in card.lineage
    ]
    trained: list[Plain] = [
        {"type": f"training.{name}", "value": f"{value:g}", "slice": f"{stage.name}; as the model card says"}
        for stage in card.lineage
        for name, value in sorted(stage.metrics.items())
    ]
    return {
        **_component("machine-learning-model", model.reference, card.name, card.version),
        "description": card.description,
        "hashes": [_hash(card.files["weights"].digest)] if "weights" in card.files else [],
        "licenses": [{"license": {"name": card.licence}}],
        "modelCard": {
            "modelParameters": {
                "datasets": datasets,
                "inputs": [_tensor(spec) for spec in card.contract.inputs],
                "outputs": [_tensor(spec) for spec in card.contract.outputs],
                "task": "driving: controls from what the vehicle sees",
            },
            "quantitativeAnalysis": {"performanceMetrics": trained},
            "considerations": {"technicalLimitations": list(card.limitations)},
        },
        "properties": [
            _property("nwmctl:card", str(model.card_digest)),
            _property("nwmctl:parameters", str(card.parameters)),
            _property("nwmctl:signer", model.signer),
        ],
    }


def _artifact(each: BilledArtifact) -> Plain:
    artifact, place = each.made.artifact, f"{each.made.bundle.platform}/{each.made.place}"
    results = each.evidence.results
    metrics: list[Plain] = [
        _metric(result, figure, place)
        for result in results
        for figure in result.figures
        if not figure.name.startswith(LAYER) and figure.obtained is not Obtained.NOT_RUN
    ]
    card, kind = each.made.card, "machine-learning-model"
    return {
        **_component(kind, each.reference, f"{card.name} for {place}", card.version),
        "hashes": [_hash(each.made.payload.digest)],
        "pedigree": {"ancestors": [_component(kind, "", card.name, card.version)]},
        "modelCard": {"quantitativeAnalysis": {"performanceMetrics": metrics}},
        "properties": [
            _property("nwmctl:manifest", str(each.made.payload.manifest)),
            _property("nwmctl:evidence", str(each.made.payload.evidence)),
            _property("nwmctl:precision_found", artifact.found_precision),
            _property("nwmctl:compiled_further_in_vehicle", str(artifact.jit_in_vehicle).lower()),
            *(_verdict(result) for result in results),
        ],
    }


def _verdict(result: CheckResult) -> Plain:
    judge = f", judged by {result.judge}" if result.judge else ""
    if result.verdict is Verdict.NOT_RUN:
        return _property(f"{NOT_RUN}{result.check}", f"{result.summary}{judge}")
    return _property(f"nwmctl:check:{result.check}", f"{result.verdict}, {result.obtained}{judge}")


def _metric(result: CheckResult, figure: ResultFigure, place: str) -> Plain:
    metric: dict[str, Plain] = {
        "type": f"{result.check}.{figure.name}",
        "value": f"{figure.value:g} {figure.unit}".rstrip(),
        "slice": f"{place}; obtained: {figure.obtained}; verdict: {result.verdict}",
    }
    if figure.low is not None or figure.high is not None:
        ends = (("lowerBound", figure.low), ("upperBound", figure.high))
        metric["confidenceInterval"] = {name: f"{value:g}" for name, value in ends if value is not None}
    return metric


def _needs(each: BilledArtifact) -> list[str]:
    artifact = each.made.artifact
    return [
        f"model/{each.made.bundle.kind}",
        f"runtime/{artifact.needs.runtime}/{artifact.needs.version}",
        f"toolchain/{artifact.recipe.toolchain}/{artifact.toolchain_version}",
    ]


def _depends(reference: str, needs: Sequence[str]) -> Plain:
    return {"ref": reference, "dependsOn": list(dict.fromkeys(needs))}


def _component(kind: str, reference: str, name: str, version: str) -> dict[str, Plain]:
    named: dict[str, Plain] = {"bom-ref": reference} if reference else {}
    return {"type": kind, **named, "name": name, "version": version}


def _hash(digest: Digest) -> Plain:
    return {"alg": "SHA-256", "content": digest.hex}


def _property(name: str, value: str) -> Plain:
    return {"name": name, "value": value}


def _tensor(spec: TensorSpec) -> Plain:
    return {"format": f"{spec.name}: {spec.dtype}[{','.join(map(str, spec.shape))}], {spec.description}"}


def _seeds(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "none stated"
