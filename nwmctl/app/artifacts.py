"""What a person means by "this artifact", and how it can drive on this machine.

A model package's folder, a bare ONNX file, or something that a run of this workspace compiled: ``PLATFORM/BUILD``,
``PLATFORM/VARIANT/BUILD``, either with ``RUN/`` before it (else the latest run that has it), or the first digits of
the payload's or manifest's digest. Reads only: no lock, no new folder. Signatures are not looked at here: that is for
the steps that ship something. Each artifact says how its figures are obtained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nwmctl.agent.journal import History, fold, list_runs, read_journal
from nwmctl.app.compose import toolchain_registry
from nwmctl.app.project import read_file
from nwmctl.app.settings import Settings
from nwmctl.domain.artifact import ArtifactManifest, Port
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import CARD_NAME, ModelCard, ModelContract
from nwmctl.domain.platform import Build, PlatformProfile
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.domain.work import StepName
from nwmctl.errors import (
    ArtifactAmbiguousError,
    ArtifactUnknownError,
    ArtifactUnreachableError,
    CardContentError,
    ContentMissingError,
    NotDrivableError,
    VerificationError,
)
from nwmctl.formats import documents
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import data_folder
from nwmctl.storage.workspace import Workspace
from nwmctl.toolchains.protocol import Session

_DIGITS = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})\Z")
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Drivable:
    """Something that can drive: ``open`` loads it in a process of its own. ``how`` is how it executes, for people."""

    name: str
    obtained: Obtained
    how: str
    contract: ModelContract
    open: Callable[[], Session]
    model: Model | None
    """What it was compiled from; None where it is a model itself."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as it was trained."""

    name: str
    contract: ModelContract
    weights: Path
    data: Path | None = None
    """Weights outside of the graph."""

    def drivable(self) -> Drivable:
        """The model, executed by onnxruntime on this host. Raises ContractBrokenError, NotDrivableError."""
        from nwmctl.toolchains.onnxruntime import open_model
        from nwmctl.validation.contract import check_graph

        _refuse_undrivable(self.name, self.contract)
        check_graph(self.weights, self.contract)
        inputs, outputs = (
            tuple(Port(spec.name, spec.dtype, spec.shape) for spec in side)
            for side in (self.contract.inputs, self.contract.outputs)
        )
        how = "as trained, through onnxruntime here"
        return Drivable(
            self.name,
            Obtained.MEASURED,
            how,
            self.contract,
            lambda: open_model(self.weights, inputs, outputs, _TIMEOUT_S, self.data),
            None,
        )


def example_model() -> Path:
    """The model package that comes along."""
    return data_folder() / "examples" / "nwm-2.5" / "model"


def find(text: str, settings: Settings, like: Path | None = None) -> Drivable:
    """The artifact that ``text`` names. A bare ONNX file must keep the contract of the package ``like``.

    Raises ArtifactUnknownError, ArtifactAmbiguousError, ArtifactUnreachableError, NotDrivableError,
    ContractBrokenError and what reading files and stores raises.
    """
    path = Path(text)
    if path.is_dir():
        if not (path / CARD_NAME).is_file():
            raise _unknown(text, f"the folder has no {CARD_NAME}")
        return package(path).drivable()
    if path.is_file():
        contract = package(like or example_model()).contract
        return Model(path.name, contract, path).drivable()
    if path.suffix == ".onnx" or not settings.workspace.is_dir():
        raise _unknown(text, f"there is no such file or folder, and no workspace '{settings.workspace}' with runs")
    return _compiled(text, Workspace.open(settings.workspace))


def package(folder: Path) -> Model:
    """A model package's model; its weights must be what the card lists. Raises InputError and VerificationError."""
    from nwmctl.sources.verify import package_files, verify_file

    card = documents.decode(ModelCard, read_file(folder / CARD_NAME, "model card"), CARD_NAME)
    package_files(card)
    entry = card.files.get("weights")
    if entry is None:
        raise CardContentError(
            "the model card lists no weights",
            why="a package has the role 'weights' among its files",
            next="have the model's publisher correct the card",
        )
    verify_file(folder / entry.path, entry)
    outside = card.files.get("weights_data")
    if outside is not None:
        verify_file(folder / outside.path, outside)
    data = None if outside is None else folder / outside.path
    return Model(f"{card.name} {card.version}", card.contract, folder / entry.path, data)


@dataclass(frozen=True, slots=True)
class _Row:
    """A build that a run compiled."""

    run: str
    place: str
    history: History
    step: PlannedStep
    compiled: dict[str, Digest]

    @property
    def digests(self) -> tuple[Digest, ...]:
        return tuple(self.compiled[name] for name in ("payload", "manifest"))


def _compiled(text: str, workspace: Workspace) -> Drivable:
    wanted = _DIGITS.match(text)
    latest: list[_Row] = []
    for run in reversed(list_runs(workspace.runs)):
        for row in _rows(workspace.runs, run):
            if wanted and any(digest.hex.startswith(wanted.group(1)) for digest in row.digests):
                return _drivable(row, workspace.store())  # the same bytes wherever they are used: the first will do
            if not wanted and _named(text, row):
                latest.append(row)
        if latest:
            break
    if not latest:
        runs = ", ".join(list_runs(workspace.runs)[-3:]) or "none"
        raise _unknown(text, f"no run of this workspace compiled and checked it (latest runs: {runs})")
    if len(latest) > 1:
        places = ", ".join(row.place for row in latest)
        raise ArtifactAmbiguousError(
            f"'{text}' names {len(latest)} artifacts", why=f"run {latest[0].run} has {places}", next="name one of them"
        )
    return _drivable(latest[0], workspace.store())


def _rows(runs: Path, run: str) -> Iterator[_Row]:
    try:
        history = fold(read_journal(runs, run))
    except VerificationError:
        return  # a damaged journal must not hide the other runs
    mark = f"{StepName.VALIDATE}/{BundleKind.RELEASE}/"
    for step in history.started.plan if history.started else ():
        source = step.inputs.get("manifest")
        if not step.id.startswith(mark) or not isinstance(source, OutputRef):
            continue
        done = history.finished.get(source.step)
        if done is not None and {"payload", "manifest"} <= done.outputs.keys():
            yield _Row(run, step.id.removeprefix(mark), history, step, done.outputs)


def _named(text: str, row: _Row) -> bool:
    name = text.removeprefix(f"{row.run}/")
    platform, variant, build = row.place.split("/")
    return name in (row.place, f"{platform}/{build}", f"{platform}/{variant}", platform)


def _drivable(row: _Row, store: ContentStore) -> Drivable:
    from nwmctl.validation.contract import check_ports

    model = _trained(row, store)
    _refuse_undrivable(model.name, model.contract)
    manifest = documents.decode(ArtifactManifest, store.read(row.compiled["manifest"]), "artifact manifest")
    check_ports(manifest, model.contract)
    found, reasons = _way(row, manifest, store)
    if found is None:
        raise ArtifactUnreachableError(
            f"the artifact {row.place} cannot execute here",
            why="; ".join(reasons) or "it has no host twin, and nothing here can emulate it",
            next="see `nwmctl doctor` for what can be installed",
        )
    obtained, label, open_ = found
    return Drivable(f"{row.place}, {manifest.found_precision}", obtained, label, model.contract, open_, model)


def _way(
    row: _Row, manifest: ArtifactManifest, store: ContentStore
) -> tuple[tuple[Obtained, str, Callable[[], Session]] | None, list[str]]:
    from nwmctl.steps.ways import Artifact, ways_of

    toolchains = toolchain_registry()

    def artifact(prefix: str, manifest: ArtifactManifest) -> Artifact:
        payload = store.path(row.compiled[f"{prefix}payload"])
        return Artifact(payload, manifest, toolchains.get(manifest.recipe.toolchain))

    twin = None
    if "twin_manifest" in row.compiled:
        said = documents.decode(ArtifactManifest, store.read(row.compiled["twin_manifest"]), "twin's manifest")
        twin = artifact("twin_", said)
    ways, unreachable = ways_of(_build(row, store), artifact("", manifest), twin)
    if not ways:
        return None, [way.reason for way in unreachable]
    return (ways[0].obtained, ways[0].label, ways[0].open), []


def _build(row: _Row, store: ContentStore) -> Build:
    from nwmctl.steps.ways import build_at

    digest = row.step.inputs["profile"]
    assert isinstance(digest, Digest)
    profile = documents.decode(PlatformProfile, store.read(digest), "profile")
    _, variant, name = row.place.split("/")
    return build_at(profile, variant, name)


def _trained(row: _Row, store: ContentStore) -> Model:
    pulled = row.history.finished.get(f"{StepName.PULL}/{BundleKind.RELEASE}")
    if pulled is None:
        raise ContentMissingError(
            f"the model of run {row.run} is not known", why="its journal does not say", next="run it again"
        )
    card = documents.decode(ModelCard, store.read(pulled.outputs["card"]), "model card")
    outside = pulled.outputs.get("weights_data")
    data = None if outside is None else store.path(outside)
    return Model(f"{card.name} {card.version}", card.contract, store.path(pulled.outputs["weights"]), data)


def _refuse_undrivable(name: str, contract: ModelContract) -> None:
    """The simulator shows three tensors of fixed shapes and takes steer and acceleration."""
    from nwmctl.driving import constants as k

    shown = {
        "ego": (k.HISTORY, k.EGO_CHANNELS),
        "agents": (k.AGENTS, k.HISTORY, k.AGENT_CHANNELS),
        "route": (k.ROUTE_POINTS, 2),
    }
    wants = {spec.name: spec.shape[1:] for spec in contract.inputs}
    says = {spec.name: spec.shape[1:] for spec in contract.outputs}
    if wants != shown:
        listed = ", ".join(f"{tensor} {list(shape)}" for tensor, shape in wants.items())
        why = f"the simulator shows {', '.join(f'{tensor} {list(shape)}' for tensor, shape in shown.items())}"
        raise NotDrivableError(
            f"'{name}' cannot be driven here: it wants {listed}", why=why, next="use a simulator that shows its inputs"
        )
    if says.get(contract.control_output) not in ((k.HORIZON, 2), (2,)):
        raise NotDrivableError(
            f"'{name}' cannot be driven here: it gives no control",
            why=f"the simulator takes '{contract.control_output}' [{k.HORIZON}, 2]: steer in rad, acceleration in m/s2",
            next="name the output of the plan as 'control_output' in the model card's contract",
        )


def _unknown(text: str, why: str) -> ArtifactUnknownError:
    return ArtifactUnknownError(
        f"'{text}' names no artifact",
        why=why,
        next="name a model package's folder, an ONNX file, PLATFORM/VARIANT/BUILD of a run, or a digest",
    )
