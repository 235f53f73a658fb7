"""Bytes of a campaign: what its budget allows, what its offers have reserved, and who has which version.

A campaign with a budget reserves a download's bytes in the transaction that offers it; where the budget does not reach
or the link forbids it, the vehicle is deferred with the reason, and asked again at its next poll. Invariants: what is
reserved never exceeds the budget; a campaign without a budget costs one look-up and defers nobody; a return is never
held back, since it is the way out of trouble. Counted is what is offered: what a vehicle loads twice after a broken
connection is not seen here.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.traffic import ByteBudget, LinkClass, Spent, refusal
from nwmctl.fleet.consequences import InstallMode
from nwmctl.fleet.delivery import owed_bundle
from nwmctl.fleet.releases import EnabledBundle
from nwmctl.storage.database import Reader, Transaction


@dataclass(frozen=True, slots=True)
class CensusRow:
    """So many vehicles of a variant are at a sequence and were last heard on this kind of link."""

    platform: str
    variant: str
    sequence: int
    link: LinkClass
    vehicles: int


@dataclass(frozen=True, slots=True)
class Account:
    """A campaign's budget, and what has been reserved of it."""

    budget: ByteBudget
    spent: Spent


@dataclass(frozen=True, slots=True)
class Download:
    """What a vehicle would be sent now. ``refused`` says why not; '' if it may."""

    bundle: EnabledBundle
    link: LinkClass
    refused: str


def census(reader: Reader, fleet: str) -> tuple[CensusRow, ...]:
    """Which versions a fleet's vehicles have, as last reported or, before that, as delivered."""
    rows = reader.all(
        "SELECT platform, variant, sequence, link, count(*) FROM vehicle WHERE fleet = :fleet "
        "GROUP BY platform, variant, sequence, link ORDER BY platform, variant, sequence, link",
        fleet=fleet,
    )
    counts: dict[tuple[str, str, int, LinkClass], int] = {}
    for platform, variant, sequence, said, vehicles in rows:
        place = (platform, variant, sequence, LinkClass.of(said))
        counts[place] = counts.get(place, 0) + vehicles
    return tuple(CensusRow(*place, vehicles) for place, vehicles in counts.items())


def open_account(tx: Transaction, campaign: int, budget: ByteBudget) -> None:
    """Give a new campaign its budget."""
    tx.execute(
        "INSERT INTO campaign_bytes (campaign_id, cellular_budget, total_budget, full_on_cellular) "
        "VALUES (:campaign, :cellular, :total, :full)",
        campaign=campaign,
        cellular=budget.cellular_budget,
        total=budget.total_budget,
        full=int(budget.full_on_cellular),
    )


def account(reader: Reader, campaign: int) -> Account | None:
    """A campaign's account; None if it has no budget."""
    row = reader.one(
        "SELECT cellular_budget, total_budget, full_on_cellular, cellular_spent, total_spent FROM campaign_bytes "
        "WHERE campaign_id = :campaign",
        campaign=campaign,
    )
    return Account(ByteBudget(row[0], row[1], bool(row[2])), Spent(row[3], row[4])) if row else None


def next_download(reader: Reader, assignment: int) -> Download | None:
    """What an assignment's vehicle would be sent now; None where no budget says anything about it."""
    row = reader.one(
        "SELECT b.campaign_id, a.mode, c.kind, v.link, a.delta_failed FROM assignment a "
        "JOIN campaign_bytes b ON b.campaign_id = a.campaign_id JOIN campaign c ON c.id = a.campaign_id "
        "JOIN vehicle v ON v.vin = a.vin WHERE a.id = :assignment",
        assignment=assignment,
    )
    if row is None or row[1] != InstallMode.BUNDLE.value or row[2] != BundleKind.RELEASE.value:
        return None
    held, bundle = account(reader, row[0]), owed_bundle(reader, assignment)
    if held is None or bundle is None:
        return None
    link = LinkClass.of(row[3])
    refused = refusal(held.budget, held.spent, link, bundle.size, full=bundle.base_sequence is None)
    told = "; a delta was offered before and could not be installed" if refused and row[4] else ""
    return Download(bundle, link, refused + told)


def reserve(tx: Transaction, campaign: int, download: Download) -> None:
    """Count a download that is offered in this transaction."""
    size = download.bundle.size
    tx.execute(
        "UPDATE campaign_bytes SET total_spent = total_spent + :size, cellular_spent = cellular_spent + :cellular "
        "WHERE campaign_id = :campaign",
        size=size,
        cellular=size if download.link is LinkClass.CELLULAR else 0,
        campaign=campaign,
    )
