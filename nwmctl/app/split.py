"""`nwmctl split`: one model over two chips of a vehicle: read, cut, compared with the whole, compiled, written.

The result is a folder with both graphs, both artifacts with their manifests, and ``split.json``; it appears whole or
not at all. It goes into no bundle: how two chips hand a tensor over is the vehicle's software, which is not known here.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from nwmctl.app.project import load_platforms, read_file
from nwmctl.compiler.build import compile_build
from nwmctl.compiler.split import Split, SplitOrder, split_model
from nwmctl.compiler.split_check import composes
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.figure import Confidence, Figure
from nwmctl.domain.model import CARD_NAME, ModelCard
from nwmctl.domain.platform import Build, PlatformProfile, Variant
from nwmctl.domain.split import SplitPlan
from nwmctl.errors import (
    CardContentError,
    ChipsTooFewError,
    OutputUnwritableError,
    PlanError,
    SplitChangedError,
    UnsupportedRecipeError,
)
from nwmctl.formats import documents
from nwmctl.sources.verify import package_files, verify_file
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.lowering import GraphFiles
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.protocol import CompileRequest, Toolchain
from nwmctl.toolchains.registry import registry
from nwmctl.validation.inputs import read_golden

_ROWS = 2
"""Recorded cases with which the parts are compared with the whole."""
_UNSAID = Figure(None, "GB/s", "the profile says nothing about a link", Confidence.UNKNOWN)


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """What to split: a model package's folder, for a build of a platform's variant; ``out`` is a new folder.

    ``link_gb_per_s``: a bandwidth to assume where the profile knows none.
    """

    model: Path
    platform: str
    variant: str
    build: str
    out: Path
    platforms: Path
    timeout_s: float
    link_gb_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    profile: PlatformProfile
    variant: Variant
    build: Build
    link: Figure


def split_package(request: SplitRequest) -> SplitPlan:
    """Do it all. Raises InputError, VerificationError, MissingError and ToolchainError subclasses."""
    place = _place(request)
    _refuse_existing(request.out)
    recipe = place.build.recipes[0]
    if recipe.precision is Precision.INT8:
        raise UnsupportedRecipeError(
            "an int8 recipe cannot be split",
            why="the second part would need calibration data of its own, which no model package has",
            next="put a recipe of another precision first in the profile's build",
        )
    data = read_file(request.model / CARD_NAME, "model card")
    card = documents.decode(ModelCard, data, CARD_NAME)
    package_files(card)
    files = {role: request.model / entry.path for role, entry in card.files.items()}
    for role in ("weights", "golden"):
        if role not in files:
            raise CardContentError(
                f"the model card lists no file '{role}'",
                why="a package has weights, and recorded cases to compare with",
                next="have the model's publisher correct the card",
            )
    for role, path in files.items():
        verify_file(path, card.files[role])
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=request.out.parent, prefix=f".{request.out.name}-") as name:
        work, made = Path(name) / "work", Path(name) / "made"
        work.mkdir()
        made.mkdir()
        chip = place.profile.chip(place.build.chip)
        order = SplitOrder(digest_bytes(data), chip, place.build.unit, recipe, place.link, card.contract.rate_hz)
        limits = Limits(request.timeout_s)
        split = split_model(GraphFiles(files["weights"], files.get("weights_data")), order, limits, work)
        golden = read_golden(files["golden"], card.contract).head(_ROWS)
        if not composes(split.whole, split.parts, golden.inputs):
            raise SplitChangedError(
                "the two parts of the graph do not give what the whole gives",
                why="their outputs differ from the whole graph's in some bit",
                next="report this as a defect of nwmctl, with the model",
            )
        plan = _compiled(split, place, recipe, made, request.timeout_s)
        (made / "split.json").write_bytes(documents.encode(plan))
        _hand_over(made, request.out)
    return plan


def _place(request: SplitRequest) -> _Place:
    profiles = load_platforms(request.platforms).profiles
    profile = profiles.get(request.platform)
    if profile is None:
        raise _unknown("platform", request.platform, tuple(profiles))
    variant = profile.variant(request.variant)
    if variant is None:
        raise _unknown("variant", request.variant, tuple(each.name for each in profile.variants))
    build = next((each for each in variant.builds if each.name == request.build), None)
    if build is None:
        raise _unknown("build", request.build, tuple(each.name for each in variant.builds))
    chips = sum(seat.count for seat in variant.seats if seat.chip == build.chip)
    if chips < 2:
        raise ChipsTooFewError(
            f"the variant '{variant.name}' cannot run a model over two chips",
            why=f"it has {chips} of {build.chip}",
            next="choose a variant with two of them",
        )
    link = variant.link or _UNSAID
    if link.value is None and request.link_gb_per_s is not None:
        link = Figure(request.link_gb_per_s, "GB/s", "assumed on the command line", Confidence.ASSUMED)
    return _Place(profile, variant, build, link)


def _unknown(what: str, name: str, known: tuple[str, ...]) -> PlanError:
    return PlanError(
        f"there is no {what} '{name}'", why=f"known are {', '.join(known)}", next="see `nwmctl platforms show`"
    )


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise OutputUnwritableError(
            f"'{out}' is there already", why="a split is written into a folder of its own", next="name a new folder"
        )


def _compiled(split: Split, place: _Place, recipe: Recipe, made: Path, timeout_s: float) -> SplitPlan:
    """Both parts compiled by the build's first recipe; graphs, payloads and manifests left in ``made``."""
    toolchain = registry().get(recipe.toolchain)
    stages = []
    for number, (part, stage) in enumerate(zip(split.parts, split.plan.stages, strict=True), start=1):
        shutil.copyfile(part, made / part.name)
        payload, manifest = _compile(toolchain, part, split, place, recipe, made / f"stage-{number}", timeout_s)
        stages.append(replace(stage, payload=payload, manifest=manifest))
    return replace(split.plan, stages=tuple(stages), identical=True)


def _compile(
    toolchain: Toolchain, part: Path, split: Split, place: _Place, recipe: Recipe, stem: Path, timeout_s: float
) -> tuple[Digest, Digest]:
    driver = place.profile.runtime_driver
    with tempfile.TemporaryDirectory(prefix="nwmctl-split-") as scratch:
        request = CompileRequest(
            part, split.plan.model, recipe, place.build.unit, driver, Path(scratch), timeout_s=timeout_s
        )
        compiled = compile_build(toolchain, request)
        payload = stem.with_suffix(f".{compiled.manifest.format}")
        shutil.copyfile(compiled.payload, payload)
        manifest = documents.encode(compiled.manifest)
        stem.with_suffix(".manifest.json").write_bytes(manifest)
        return file_digest(payload), digest_bytes(manifest)


def _hand_over(made: Path, out: Path) -> None:
    try:
        made.rename(out)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{out}' cannot be written", why=problem.strerror or str(problem), next="name a folder that can be made"
        ) from problem
