"""Deltas for the commands: make one, apply one, and plan which a release needs.

A plan is made from a census (``delta_facts``) as the step ``deltas`` makes it: each delta is predicted from a sample of
its chunks, or counts with its exact size where it is in the store already, and ``bundling.delta_plan`` decides. Census
and plan are put into the store, so that what was decided, and on what, can be looked up by digest. Building encodes
what the plan chose, and plans again with the exact sizes. Signs and publishes nothing: that is for the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.delta_facts import take_census
from nwmctl.app.fleets import fleet_database
from nwmctl.app.project import Project, load_project
from nwmctl.app.settings import Settings
from nwmctl.bundling.delta_encode import DeltaReport, encode_delta
from nwmctl.bundling.delta_plan import DeltaPlan, plan_deltas
from nwmctl.bundling.delta_roads import Delta, Rules
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.delta import FleetCensus
from nwmctl.domain.digest import Digest
from nwmctl.domain.traffic import ByteBudget, DeltaOrder
from nwmctl.errors import NotPublishedError, OutputUnwritableError
from nwmctl.fleet.releases import enabled_bundles
from nwmctl.formats import canonical, documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.delta_plan import Versions, gather_versions, rules_of
from nwmctl.steps.delta_versions import bring_out, exact_delta, predicted_delta
from nwmctl.steps.deltas import made_delta
from nwmctl.storage.content import ContentStore
from nwmctl.storage.database import Reader

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """A release's delta plan. ``census`` and ``digest`` name both documents in the store; ``budget`` is the release's;
    ``reported`` says whether vehicles were counted by what they report; ``sequences`` of each version, by platform."""

    release: str
    plan: DeltaPlan
    budget: ByteBudget | None
    census: Digest
    digest: Digest
    reported: bool
    sequences: dict[str, dict[str, tuple[int, ...]]]
    built: int


def encode(old: Path, new: Path, out: Path) -> DeltaReport:
    """Make a delta. Raises OutputUnwritableError before anything is read, and what ``encode_delta`` raises."""
    _writable(out)
    return encode_delta(old, new, out)


def apply(old: Path, delta: Path, out: Path) -> Digest:
    """Apply a delta as a vehicle does. Raises OutputUnwritableError and what ``apply_delta`` raises."""
    from nwmctl.vehicle.delta import apply_delta

    _writable(out)
    return apply_delta(old, delta, out)


def plan(
    settings: Settings, release: Path, rules: Rules | None, *, build: bool = False, say: Say = lambda _: None
) -> Planned:
    """Plan the deltas of a published release for what its fleet has now; ``rules`` None takes the release's own. With
    ``build``, encode the chosen ones too. ``say`` hears what is done.

    Raises NotPublishedError and what reading the release raises.
    """
    project = load_project(release, settings.platforms)
    workspace = settings.open()
    with workspace.locked(f"nwmctl delta plan {release.name}"), fleet_database(workspace) as database:
        store = workspace.store()
        census = take_census(project, database.reader, store)
        versions = _versions(project, census, database.reader, store)
        wanted = project.release
        rules = rules or rules_of(wanted.deltas or DeltaOrder())
        found = plan_deltas(versions.counted, versions.aims, _deltas(store, versions, say), rules, wanted.bytes)
        built = 0
        if build:
            built = _build(store, versions, found, say)
            found = plan_deltas(versions.counted, versions.aims, _deltas(store, versions, say), rules, wanted.bytes)
        sequences = {platform: {one.name: one.sequences for one in known} for platform, known in versions.known.items()}
        return Planned(
            release=wanted.name,
            plan=found,
            budget=wanted.bytes,
            census=store.put_bytes(documents.encode(census)),
            digest=store.put_bytes(canonical.encode(to_plain(found))),
            reported=census.reported,
            sequences=sequences,
            built=built,
        )


def _versions(project: Project, census: FleetCensus, reader: Reader, store: ContentStore) -> Versions:
    release = project.release
    bundles = {
        (one.kind, one.platform): Digest(one.sha256)
        for one in enabled_bundles(reader, release.sequence)
        if one.platform in release.platforms
    }
    if not bundles:
        raise NotPublishedError(
            f"release '{release.name}' has no published bundles here",
            why="deltas lead to artifacts that were proven and signed, and there are none yet",
            next="run `nwmctl publish RELEASE` first",
        )
    parts = {
        kind: {platform: digest for (of, platform), digest in bundles.items() if of is kind} for kind in BundleKind
    }
    return gather_versions(
        store, census, parts[BundleKind.RELEASE], parts[BundleKind.RETURN], release.sequence,
        release.fleet.factory_sequence,
    )  # fmt: skip


def _deltas(store: ContentStore, versions: Versions, say: Say) -> list[Delta]:
    """The deltas to the goals: those that are in the store with their exact sizes, the others predicted."""
    found = []
    for old, new in versions.candidates():
        if not (bring_out(store, old) and bring_out(store, new)):
            continue
        known = exact_delta(store, old, new)
        if known is None:
            told = "/".join(str(sequence) for sequence in old.sequences)
            say(f"{new.platform}: predicting the delta from {told} to the release")
            known = predicted_delta(store, old, new)
        found.append(known)
    return found


def _build(store: ContentStore, versions: Versions, found: DeltaPlan, say: Say) -> int:
    """Encode what was chosen; gives how many deltas between artifacts there are now for it."""
    pairs = {}
    for chosen in found.build:
        new = versions.goals[chosen.line]
        for pair in new.pairs(versions.find(chosen.line, chosen.old)):
            pairs[pair.base.digest, pair.new] = chosen.line
    for (before, after), line in pairs.items():
        say(f"{line}: encoding {before.short} to {after.short}")
        made_delta(store, before, after)
    return len(pairs)


def _writable(out: Path) -> None:
    if not out.parent.is_dir():
        raise OutputUnwritableError(
            f"'{out}' cannot be written", why=f"there is no folder '{out.parent}'", next="make the folder first"
        )
