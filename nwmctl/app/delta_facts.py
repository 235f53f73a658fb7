"""What a delta plan is made from: which vehicles have which artifacts, and which of these are at hand here.

A line of the plan is a compute variant of a platform; a version of it is the set of artifacts that its vehicles hold,
named by their digests, so that a release and the return bundle of the next one are the same version. Reads the
database, the bundles in the store, and the inventory where the fleet was never imported; changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.app.fleets import inventory_path
from nwmctl.app.project import Project
from nwmctl.bundling.delta_plan import Installed
from nwmctl.bundling.delta_roads import Goal
from nwmctl.bundling.read import BundleContents
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.traffic import LinkClass
from nwmctl.errors import ContentCorruptError, ContentMissingError, NotPublishedError
from nwmctl.fleet.inventory import read_inventory
from nwmctl.fleet.releases import EnabledBundle, enabled_bundles, known_bundles
from nwmctl.fleet.traffic import CensusRow, census
from nwmctl.formats import canonical
from nwmctl.steps.stage import open_signed
from nwmctl.storage.content import ContentStore
from nwmctl.storage.database import Database
from nwmctl.trust.keys import KeyRing

FRAME = 512
"""Bytes that a file in a bundle takes beside its own, at most (name, header, padding, its line of the description)."""


@dataclass(frozen=True, slots=True)
class Version:
    """A set of artifacts by build. ``rest``: bytes of a bundle with them beside the artifacts, ``sequences`` under
    which vehicles report it; ``whole`` is false where some of the artifacts are not in the store."""

    name: str
    payloads: Mapping[str, Digest]
    sizes: Mapping[str, int]
    rest: int
    full_bytes: int
    sequences: tuple[int, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Line -> version name -> version; the census by version; what each line's vehicles shall have. ``reported`` is
    false where the census comes from the inventory file, since no vehicle has been imported yet."""

    versions: Mapping[str, Mapping[str, Version]]
    installed: tuple[Installed, ...]
    goals: tuple[Goal, ...]
    reported: bool


def gather(project: Project, database: Database, store: ContentStore, keys: KeyRing, now_us: int) -> Facts:
    """Everything about a published release's fleet. Raises NotPublishedError, and what reading a bundle raises."""
    release = project.release
    wanted = [each for each in enabled_bundles(database.reader, release.sequence) if each.kind is BundleKind.RELEASE]
    if not wanted:
        raise NotPublishedError(
            f"release '{release.name}' has no published bundles here",
            why="deltas lead to artifacts that were proven and signed, and there are none yet",
            next="run `nwmctl publish RELEASE` first",
        )
    known = [each for each in known_bundles(database.reader) if each.platform in release.platforms]
    names: dict[tuple[str, int], str] = {}
    versions: dict[str, dict[str, Version]] = {}
    for bundle in known:
        contents = _contents(store, bundle, keys, now_us)
        if contents is None:
            continue
        sequences = [bundle.sequence]
        if release.fleet.factory_sequence and bundle.sequence == release.return_sequence:
            sequences.append(release.fleet.factory_sequence)  # what the factory installs is what a return brings back
        for line, version in _versions(store, contents, bundle, tuple(sequences)).items():
            before = versions.setdefault(line, {}).get(version.name)
            versions[line][version.name] = _joined(before, version)
            names.update({(line, sequence): version.name for sequence in sequences})
    goals = tuple(
        Goal(line, names[line, bundle.sequence], bundle.size)
        for bundle in wanted
        for line in versions
        if line.startswith(f"{bundle.platform}/") and (line, bundle.sequence) in names
    )
    rows, reported = _census(project, database)
    return Facts(versions, _installed(rows, names), goals, reported)


def _installed(rows: tuple[CensusRow, ...], names: Mapping[tuple[str, int], str]) -> tuple[Installed, ...]:
    counts: Counter[tuple[str, str, LinkClass]] = Counter()
    for row in rows:
        line = f"{row.platform}/{row.variant}"
        counts[line, names.get((line, row.sequence), f"sequence {row.sequence}"), row.link] += row.vehicles
    return tuple(sorted(Installed(*place, vehicles) for place, vehicles in counts.items()))


def _census(project: Project, database: Database) -> tuple[tuple[CensusRow, ...], bool]:
    fleet = project.release.fleet
    rows = census(database, fleet.name)
    if rows:
        return rows, True
    # Nobody has said on what it hangs: counted as cellular, as the campaign would.
    found = Counter(
        (each.platform, each.variant, each.sequence)
        for each in read_inventory(
            inventory_path(project.base, project.release),
            project.catalogue,
            (lambda vin: "not-a-token") if fleet.virtual else None,
        )
    )
    return tuple(CensusRow(*place, LinkClass.CELLULAR, n) for place, n in sorted(found.items())), False


def _contents(store: ContentStore, bundle: EnabledBundle, keys: KeyRing, now_us: int) -> BundleContents | None:
    try:
        path = store.path(Digest(bundle.sha256))
    except (ContentMissingError, ContentCorruptError):
        return None
    return open_signed(path, keys, now_us).contents


def _versions(
    store: ContentStore, contents: BundleContents, bundle: EnabledBundle, sequences: tuple[int, ...]
) -> dict[str, Version]:
    found = {}
    payloads = contents.manifest.payloads
    names = {payload.filename for payload in payloads}
    rest = sum(size + FRAME for name, size in contents.sizes.items() if name not in names)
    for variant in dict.fromkeys(payload.variant for payload in payloads):
        own = {each.build: each for each in payloads if each.variant == variant}
        digests = {build: each.digest for build, each in own.items()}
        name = digest_bytes(canonical.encode({build: str(digest) for build, digest in digests.items()})).short
        found[f"{bundle.platform}/{variant}"] = Version(
            name=name,
            payloads=digests,
            sizes={build: each.size for build, each in own.items()},
            rest=rest + FRAME * len(own),
            full_bytes=bundle.size,
            sequences=sequences,
            whole=all(store.has(digest) for digest in digests.values()),
        )
    return found


def _joined(before: Version | None, now: Version) -> Version:
    if before is None:
        return now
    sequences = tuple(sorted({*before.sequences, *now.sequences}))
    return Version(now.name, now.payloads, now.sizes, now.rest, now.full_bytes, sequences, now.whole)
