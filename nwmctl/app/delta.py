"""Deltas for the commands: make one, apply one, and plan which a release needs.

A plan is made from facts (``delta_facts``): it predicts each delta from a sample of its chunks, or takes the exact size
of one that is in the store already, and lets ``bundling.delta_plan`` decide. Census and plan are put into the store, so
that what was decided, and on what, can be looked up by digest. Building encodes what the plan chose, and plans again
with the exact sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.clock import SystemClock
from nwmctl.app.delta_facts import Facts, Version, gather
from nwmctl.app.fleets import fleet_database
from nwmctl.app.keys import deployment_keys
from nwmctl.app.project import load_project
from nwmctl.app.settings import Settings
from nwmctl.bundling.delta_encode import DeltaReport, encode_delta
from nwmctl.bundling.delta_estimate import estimate_delta
from nwmctl.bundling.delta_plan import DeltaPlan, plan_deltas
from nwmctl.bundling.delta_roads import Delta, Rules
from nwmctl.domain.digest import Digest
from nwmctl.domain.figure import Obtained
from nwmctl.domain.traffic import ByteBudget
from nwmctl.errors import OutputUnwritableError
from nwmctl.formats import canonical
from nwmctl.formats.codec import to_plain
from nwmctl.steps.deltas import kept_delta, made_delta
from nwmctl.storage.content import ContentStore
from nwmctl.storage.workspace import Workspace

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """A release's delta plan. ``census`` and ``digest`` name both documents in the store; ``budget`` is the release's;
    ``reported`` says whether vehicles were counted by what they report; ``sequences`` of each version, by line."""

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


def plan(settings: Settings, release: Path, rules: Rules, *, build: bool = False, say: Say = lambda _: None) -> Planned:
    """Plan the deltas of a published release; with ``build``, encode the chosen ones too. ``say`` hears what is done.

    Raises NotPublishedError and what reading the release raises.
    """
    project = load_project(release, settings.platforms)
    workspace = settings.open()
    with workspace.locked(f"nwmctl delta plan {release.name}"), fleet_database(workspace) as database:
        keys = deployment_keys(settings, virtual=project.release.fleet.virtual)
        store = workspace.store()
        facts = gather(project, database, store, keys, SystemClock().now_us())
        deltas = list(_deltas(store, facts, say))
        budget = project.release.bytes
        found = plan_deltas(facts.installed, facts.goals, deltas, rules, budget)
        built = 0
        if build:
            built = _build(store, facts, found, say)
            found = plan_deltas(facts.installed, facts.goals, list(_deltas(store, facts, say)), rules, budget)
        return _planned(project.release.name, workspace, facts, found, budget, built)


def _planned(
    name: str, workspace: Workspace, facts: Facts, found: DeltaPlan, budget: ByteBudget | None, built: int
) -> Planned:
    store = workspace.store()
    census = store.put_bytes(canonical.encode([to_plain(row) for row in facts.installed]))
    digest = store.put_bytes(canonical.encode(to_plain(found)))
    sequences = {
        line: {version.name: version.sequences for version in known.values()} for line, known in facts.versions.items()
    }
    return Planned(name, found, budget, census, digest, facts.reported, sequences, built)


def _deltas(store: ContentStore, facts: Facts, say: Say) -> Iterable[Delta]:
    """Every delta that exists between versions of a line, and those to the goal that could be made."""
    aims = {goal.line: goal.version for goal in facts.goals}
    held = {(row.line, row.version) for row in facts.installed}
    for line, versions in facts.versions.items():
        for old in versions.values():
            for new in versions.values():
                if old.name == new.name or not (old.whole and new.whole):
                    continue
                known = _kept(store, line, old, new)
                if known is not None:
                    yield known
                elif new.name == aims.get(line) and (line, old.name) in held:
                    say(f"{line}: predicting the delta from {_told(old)} to {_told(new)}")
                    yield _predicted(store, line, old, new)


def _told(version: Version) -> str:
    return "/".join(str(sequence) for sequence in version.sequences)


def _kept(store: ContentStore, line: str, old: Version, new: Version) -> Delta | None:
    total = new.rest
    for build, digest in new.payloads.items():
        if build not in old.payloads:
            total += new.sizes[build]
            continue
        found = kept_delta(store, old.payloads[build], digest)
        if found is None:
            return None
        total += found.size
    return Delta(line, old.name, new.name, total, obtained=Obtained.MEASURED, built=True)


def _predicted(store: ContentStore, line: str, old: Version, new: Version) -> Delta:
    total, cpu_s = new.rest, 0.0
    for build, digest in new.payloads.items():
        if build not in old.payloads:
            total += new.sizes[build]
            continue
        begun = time.process_time()
        found = estimate_delta(store.path(old.payloads[build]), store.path(digest))
        cpu_s += (time.process_time() - begun) * found.chunks / max(1, found.sampled)
        total += found.bytes
    return Delta(line, old.name, new.name, total, cpu_s)


def _build(store: ContentStore, facts: Facts, found: DeltaPlan, say: Say) -> int:
    """Encode what was chosen; gives how many deltas between artifacts there are now for it."""
    pairs = {}
    for chosen in found.build:
        versions = facts.versions[chosen.line]
        old, new = versions[chosen.old], versions[chosen.new]
        pairs.update({(old.payloads[b], d): chosen.line for b, d in new.payloads.items() if b in old.payloads})
    for (before, after), line in pairs.items():
        say(f"{line}: encoding {before.short} to {after.short}")
        made_delta(store, before, after)
    return len(pairs)


def _writable(out: Path) -> None:
    if not out.parent.is_dir():
        raise OutputUnwritableError(
            f"'{out}' cannot be written", why=f"there is no folder '{out.parent}'", next="make the folder first"
        )
