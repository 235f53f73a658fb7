"""What deltas are planned by: the census of a fleet, and the bundles that brought the versions it has.

Reads the database, and the inventory where the fleet was never imported; changes nothing. A release that was staged has
its census for good (the database names it), so that building it again gives the same deltas, certificate and files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nwmctl.app.fleets import inventory_path
from nwmctl.app.project import Project
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.delta import BundleAtHand, Counted, FleetCensus
from nwmctl.domain.digest import Digest
from nwmctl.domain.release import RETURN_OFFSET, Release
from nwmctl.domain.traffic import LinkClass
from nwmctl.errors import ContentCorruptError, ContentMissingError
from nwmctl.fleet.inventory import read_inventory
from nwmctl.fleet.records import campaign_of_release
from nwmctl.fleet.releases import EnabledBundle, census_of, known_bundles
from nwmctl.fleet.traffic import census
from nwmctl.formats import documents
from nwmctl.storage.content import ContentStore
from nwmctl.storage.database import Reader


def release_census(project: Project, reader: Reader, store: ContentStore) -> FleetCensus:
    """The census that a release's deltas are planned by: the one it was staged with, or else a new one."""
    kept = census_of(reader, project.release.sequence)
    if kept:
        try:
            return documents.decode(FleetCensus, store.read(Digest.parse(kept)), "census")
        except (ContentMissingError, ContentCorruptError):
            pass  # the store lost it; counted anew, which may give other deltas
    return take_census(project, reader, store)


def take_census(project: Project, reader: Reader, store: ContentStore) -> FleetCensus:
    """Which versions the release's fleet has now, and the earlier bundles that are at hand."""
    release = project.release
    rows, reported = _counted(project, reader)
    known = [
        one
        for one in known_bundles(reader)
        if one.platform in release.platforms and one.sequence < release.sequence and store.has(Digest(one.sha256))
    ]
    bundles = [BundleAtHand(one.platform, one.sequence, Digest(one.sha256)) for one in known]
    return FleetCensus(release.fleet.name, reported, rows, (*bundles, *_factory(release, reader, known)))


def _factory(release: Release, reader: Reader, known: Sequence[EnabledBundle]) -> Iterator[BundleAtHand]:
    """What a virtual fleet's vehicles left their factory with: what the return of its first release brings back."""
    first: dict[str, EnabledBundle] = {}
    for one in known:
        ours = one.kind is BundleKind.RETURN and campaign_of_release(
            reader, release.fleet.name, one.sequence - RETURN_OFFSET
        )
        if ours:
            first.setdefault(one.platform, one)
    if release.fleet.factory_sequence:
        for platform, one in sorted(first.items()):
            yield BundleAtHand(platform, release.fleet.factory_sequence, Digest(one.sha256))


def _counted(project: Project, reader: Reader) -> tuple[tuple[Counted, ...], bool]:
    fleet = project.release.fleet
    counts: Counter[tuple[str, int, LinkClass]] = Counter()
    for row in census(reader, fleet.name):
        counts[row.platform, row.sequence, row.link] += row.vehicles
    reported = bool(counts)
    if not reported:
        token_for = (lambda vin: "not-a-token") if fleet.virtual else None
        for each in read_inventory(inventory_path(project.base, project.release), project.catalogue, token_for):
            counts[each.platform, each.sequence, LinkClass.of(each.link)] += 1
    own = project.release.platforms
    return tuple(Counted(*place, number) for place, number in sorted(counts.items()) if place[0] in own), reported
