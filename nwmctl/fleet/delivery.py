"""Which of a release's bundles brings a vehicle what it is owed: the full one, or one with deltas.

A vehicle that runs a sequence from which the release has deltas gets that delta bundle, unless it has failed to
install one in this assignment; everybody else gets the full bundle. A return is always a full bundle: nothing about
the way back depends on what a vehicle still has. What was chosen is kept with the action, so that the answer to an
action never changes while the vehicle works on it. Reads, and counts what is offered; whether bytes allow it is asked
in ``traffic``.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.fleet.consequences import InstallMode
from nwmctl.fleet.releases import EnabledBundle, delta_bundle, delta_bundles, enabled_bundle
from nwmctl.storage.database import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Ways:
    """How a campaign's bundles were offered so far, every attempt counted; bytes are those of the bundles."""

    delta_offers: int
    delta_bytes: int
    full_offers: int
    full_bytes: int


def chosen_bundle(
    reader: Reader, release_sequence: int, kind: BundleKind, platform: str, installed: int, *, delta_failed: bool
) -> EnabledBundle | None:
    """The bundle for a vehicle that runs the sequence ``installed``; None where the release has none."""
    if kind is BundleKind.RELEASE and not delta_failed:
        found = delta_bundle(reader, release_sequence, platform, installed)
        if found is not None:
            return found
    return enabled_bundle(reader, release_sequence, kind, platform)


def owed_bundle(reader: Reader, assignment: int) -> EnabledBundle | None:
    """The bundle that an assignment's vehicle would be offered now; None where it shall use a slot."""
    row = reader.one(
        "SELECT a.mode, c.kind, c.release_sequence, a.platform, v.sequence, a.delta_failed FROM assignment a "
        "JOIN campaign c ON c.id = a.campaign_id JOIN vehicle v ON v.vin = a.vin WHERE a.id = :assignment",
        assignment=assignment,
    )
    if row is None or InstallMode(row[0]) is not InstallMode.BUNDLE:
        return None
    return chosen_bundle(reader, row[2], BundleKind(row[1]), row[3], row[4], delta_failed=bool(row[5]))


def offered_bundle(
    reader: Reader, release_sequence: int, kind: BundleKind, platform: str, base: int | None
) -> EnabledBundle | None:
    """The bundle of an action; ``base`` is the sequence that its delta starts from, as the action keeps it."""
    found = None if base is None else delta_bundle(reader, release_sequence, platform, base)
    return found or enabled_bundle(reader, release_sequence, kind, platform)


def open_ways(tx: Transaction, campaign: int, release_sequence: int) -> None:
    """Let a new campaign count its offers, if its release has deltas."""
    if delta_bundles(tx, release_sequence):
        tx.execute("INSERT INTO campaign_ways (campaign_id) VALUES (:campaign)", campaign=campaign)


def count_offer(tx: Transaction, campaign: int, bundle: EnabledBundle) -> None:
    """Count a bundle that is offered in this transaction; nothing where the campaign counts none."""
    way = "full" if bundle.base_sequence is None else "delta"
    tx.execute(
        f"UPDATE campaign_ways SET {way}_offers = {way}_offers + 1, {way}_bytes = {way}_bytes + :size "
        "WHERE campaign_id = :campaign",
        size=bundle.size,
        campaign=campaign,
    )


def ways(reader: Reader, campaign: int) -> Ways | None:
    """What a campaign has offered; None where its release has no deltas."""
    row = reader.one(
        "SELECT delta_offers, delta_bytes, full_offers, full_bytes FROM campaign_ways WHERE campaign_id = :campaign",
        campaign=campaign,
    )
    return Ways(*row) if row else None
