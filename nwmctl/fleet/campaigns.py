"""Campaigns: making, starting, pausing, resuming, aborting them, and bringing vehicles back.

Each function is one transaction; it reads, decides, and changes state by compare-and-set, or raises and changes
nothing. Time is an argument. A campaign goes on by itself only through ``controller``.
"""

from __future__ import annotations

from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.campaign import CampaignState, WaveState
from nwmctl.domain.homologation import unapproved
from nwmctl.domain.release import Release
from nwmctl.errors import (
    BundleSetIncompleteError,
    CampaignChangedError,
    IllegalTransitionError,
    MarketNotApprovedError,
    NewerCampaignError,
    NoVehicleError,
    VirtualOnlyError,
)
from nwmctl.fleet import planning
from nwmctl.fleet.consequences import InstallMode
from nwmctl.fleet.delivery import open_ways
from nwmctl.fleet.events import EventKind, record
from nwmctl.fleet.records import (
    CampaignRecord,
    WaveRecord,
    campaign_by_name,
    campaign_of_release,
    set_campaign,
    set_wave,
    waves_of,
)
from nwmctl.fleet.releases import enabled_bundles
from nwmctl.fleet.reports import FAILURES
from nwmctl.fleet.tally import counted
from nwmctl.fleet.traffic import open_account
from nwmctl.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Created:
    """A campaign. ``new`` is false if it existed; ``vehicles`` it assigns, ``left`` need the release but no wave
    takes them."""

    name: str
    state: CampaignState
    vehicles: int
    left: int
    new: bool


@dataclass(frozen=True, slots=True)
class Return:
    """A rollback that has begun: how many vehicles come back, and how."""

    name: str
    generation: int
    by_slot: int
    by_bundle: int


def create_campaign(database: Database, release: Release, now_us: int) -> Created:
    """Plan the waves of an enabled release for its fleet: draft, then ready. Gives the existing one if there is.

    Raises BundleSetIncompleteError, VirtualOnlyError, MarketNotApprovedError, NoVehicleError.
    """
    fleet = release.fleet.name
    with database.transaction() as tx:
        known = campaign_of_release(tx, fleet, release.sequence)
        if known is not None:
            vehicles = sum(counted(tx, known.id, known.generation).values())
            return Created(known.name, known.state, vehicles, 0, new=False)
        _refuse_unfit(tx, release)
        eligible = sum(planning.eligible_counts(tx, fleet, release.sequence).values())
        if not eligible:
            raise NoVehicleError(
                f"no vehicle of the fleet '{fleet}' needs release '{release.name}'",
                why=f"all have sequence {release.sequence} or higher, or are on other platforms",
                next="import the fleet's inventory, or give the release a higher sequence",
            )
        campaign = _insert(tx, release, now_us)
        vehicles = planning.plan_release(tx, campaign.id, release, release.waves, now_us)
        record(
            tx,
            EventKind.CAMPAIGN_CREATED,
            now_us,
            {"name": campaign.name, "release": release.name, "sequence": release.sequence, "vehicles": vehicles},
            campaign=campaign.id,
        )
        set_campaign(tx, campaign, CampaignState.READY, f"{vehicles} vehicles planned", now_us)
        return Created(campaign.name, CampaignState.READY, vehicles, eligible - vehicles, new=True)


def start(database: Database, name: str, now_us: int) -> None:
    """Let the campaign run: what its vehicles owe to others is superseded, and the first wave opens.

    A campaign that runs already is left as it is. Raises UnknownCampaignError, IllegalTransitionError.
    """
    with database.transaction() as tx:
        campaign = campaign_by_name(tx, name)
        if campaign.state is CampaignState.RUNNING:
            return
        _only_from(campaign, CampaignState.READY, "started")
        replaced = planning.supersede_others(tx, campaign, now_us)
        if replaced:
            record(tx, EventKind.SUPERSEDED, now_us, {"assignments": replaced}, campaign=campaign.id)
        set_campaign(tx, campaign, CampaignState.RUNNING, "started", now_us)
        set_wave(tx, campaign, waves_of(tx, campaign)[0], WaveState.OPEN, "the first wave", now_us)


def pause(database: Database, name: str, reason: str, now_us: int) -> None:
    """Offer nothing new; vehicles that have begun may finish. Raises UnknownCampaignError, IllegalTransitionError."""
    with database.transaction() as tx:
        set_campaign(tx, campaign_by_name(tx, name), CampaignState.PAUSED, reason, now_us)


def resume(database: Database, name: str, reason: str, now_us: int) -> None:
    """Go on after a pause. Failures so far are forgiven: the gate judges the vehicles that are left.

    Raises UnknownCampaignError, IllegalTransitionError.
    """
    with database.transaction() as tx:
        campaign = campaign_by_name(tx, name)
        _only_from(campaign, CampaignState.PAUSED, "resumed")
        back = campaign.kind is BundleKind.RETURN
        set_campaign(tx, campaign, CampaignState.ROLLING_BACK if back else CampaignState.RUNNING, reason, now_us)
        counts = counted(tx, campaign.id, campaign.generation)
        for wave in waves_of(tx, campaign):
            if wave.state in (WaveState.OPEN, WaveState.SOAKING):
                failed = sum(
                    n for (number, _, state), n in counts.items() if number == wave.number and state in FAILURES
                )
                _forgive(tx, campaign, wave, failed)


def abort(database: Database, name: str, reason: str, now_us: int) -> None:
    """End the campaign: cancel what no vehicle has seen, ask the others to stop. Raises as ``pause``."""
    with database.transaction() as tx:
        abort_in(tx, campaign_by_name(tx, name), reason, now_us)


def abort_in(tx: Transaction, campaign: CampaignRecord, reason: str, now_us: int) -> None:
    """``abort`` in a running transaction."""
    set_campaign(tx, campaign, CampaignState.ABORTED, reason, now_us)
    planning.cancel_generation(tx, campaign, now_us)


def rollback(database: Database, name: str, reason: str, now_us: int) -> Return:
    """Bring back every vehicle that has the release or may have: a new generation, open at once.

    A vehicle whose slot holds what it came from, intact, returns by that slot; all others get the return bundle.
    Raises UnknownCampaignError, IllegalTransitionError, BundleSetIncompleteError.
    """
    with database.transaction() as tx:
        campaign = campaign_by_name(tx, name)
        if campaign.kind is BundleKind.RETURN:
            raise IllegalTransitionError(
                f"campaign '{name}' is being rolled back or has been",
                why=f"its generation {campaign.generation} brings vehicles back already",
                next="see `nwmctl rollout status` for where it stands",
            )
        _refuse_overtaken(tx, campaign)
        back = planning.return_sequence(tx, campaign)
        if back is None:
            raise BundleSetIncompleteError(
                f"campaign '{name}' cannot be rolled back",
                why="a platform has no return bundle",
                next="build and publish the return bundles of the release",
            )
        set_campaign(tx, campaign, CampaignState.ROLLING_BACK, reason, now_us)
        planned = planning.plan_return(tx, campaign, back, now_us)
        replaced = planning.supersede_generation(tx, campaign, now_us)
        tx.execute(
            "UPDATE campaign SET generation = generation + 1, kind = :kind WHERE id = :id",
            kind=BundleKind.RETURN.value,
            id=campaign.id,
        )
        record(tx, EventKind.SUPERSEDED, now_us, {"assignments": replaced, "returning": planned}, campaign=campaign.id)
        returning = campaign_by_name(tx, name)
        set_wave(tx, returning, waves_of(tx, returning)[0], WaveState.OPEN, reason, now_us)
        ways = planning.modes(tx, campaign.id, returning.generation)
        return Return(name, returning.generation, ways.get(InstallMode.SLOT, 0), ways.get(InstallMode.BUNDLE, 0))


def _insert(tx: Transaction, release: Release, now_us: int) -> CampaignRecord:
    # Unique without a counter: a fleet has one campaign per release sequence.
    name = f"{release.fleet.name}-{release.sequence}"
    tx.execute(
        "INSERT INTO campaign (name, fleet, release_sequence, kind, state, generation, max_attempts, poll_s, reason, "
        "created_us, updated_us) VALUES (:name, :fleet, :sequence, :kind, :state, 1, :max_attempts, :poll_s, '', "
        ":now_us, :now_us)",
        name=name,
        fleet=release.fleet.name,
        sequence=release.sequence,
        kind=BundleKind.RELEASE.value,
        state=CampaignState.DRAFT.value,
        max_attempts=release.max_attempts,
        poll_s=release.poll_s,
        now_us=now_us,
    )
    tx.execute("UPDATE fleet SET poll_s = :poll_s WHERE name = :fleet", poll_s=release.poll_s, fleet=release.fleet.name)
    made = campaign_by_name(tx, name)
    if release.bytes is not None:
        open_account(tx, made.id, release.bytes)
    open_ways(tx, made.id, release.sequence)
    return made


def _refuse_unfit(tx: Transaction, release: Release) -> None:
    bundles = enabled_bundles(tx, release.sequence)
    if {bundle.platform for bundle in bundles} != set(release.platforms):
        raise BundleSetIncompleteError(
            f"release '{release.name}' is not enabled",
            why="no campaign is opened before all of its platforms have been published",
            next="publish the release first: `nwmctl publish`",
        )
    row = tx.one("SELECT is_virtual FROM fleet WHERE name = :name", name=release.fleet.name)
    if row is None:
        raise NoVehicleError(
            f"the fleet '{release.fleet.name}' is empty",
            why="no inventory was imported for it",
            next="import the fleet's inventory: `nwmctl fleet import`",
        )
    weak = [bundle.filename for bundle in bundles if bundle.virtual_only]
    if weak and not row[0]:
        raise VirtualOnlyError(
            f"release '{release.name}' must not go to the real fleet '{release.fleet.name}'",
            why=f"the evidence of {', '.join(weak)} is enough for a virtual fleet only",
            next="settle the open checks on a bench and build the bundles again",
        )
    _refuse_markets(tx, release, virtual=bool(row[0]))


def _refuse_markets(tx: Transaction, release: Release, *, virtual: bool) -> None:
    """A vehicle of a market without an approval stops the whole campaign. Virtual vehicles may be of no market."""
    eligible = planning.eligible_markets(tx, release.fleet.name, release.sequence)
    missing = unapproved(release.markets, frozenset(eligible) - {""})
    if missing:
        found = ", ".join(f"{market} ({eligible[market]} vehicles)" for market in missing)
        approved = ", ".join(dict.fromkeys(each.market for each in release.markets)) or "none"
        raise MarketNotApprovedError(
            f"release '{release.name}' has no approval for {', '.join(missing)}",
            why=f"the fleet '{release.fleet.name}' has vehicles in {found}; the release names {approved}",
            next="add the market's software identification number and approval under 'markets:', or take these "
            "vehicles out of the fleet",
        )
    if "" in eligible and not virtual:
        raise MarketNotApprovedError(
            f"release '{release.name}' must not go to vehicles of an unknown market",
            why=f"{eligible['']} vehicles of the real fleet '{release.fleet.name}' have no market in the inventory",
            next="import the inventory with a column 'market'",
        )


def _refuse_overtaken(tx: Transaction, campaign: CampaignRecord) -> None:
    row = tx.one(
        "SELECT name, state FROM campaign WHERE fleet = :fleet AND release_sequence > :sequence "
        "AND state NOT IN ('draft', 'ready') ORDER BY release_sequence DESC LIMIT 1",
        fleet=campaign.fleet,
        sequence=campaign.release_sequence,
    )
    if row is not None:
        raise NewerCampaignError(
            f"campaign '{campaign.name}' can no longer be rolled back",
            why=f"'{row[0]}' came after it ({row[1]}), so vehicles would have to go below a sequence they accept",
            next=f"roll back '{row[0]}', or release the earlier model under a higher sequence",
        )


def _only_from(campaign: CampaignRecord, state: CampaignState, verb: str) -> None:
    if campaign.state is not state:
        raise IllegalTransitionError(
            f"campaign '{campaign.name}' is {campaign.state}; it cannot be {verb}",
            why=f"only a campaign that is {state} can be {verb}",
            next="see `nwmctl rollout status` for where it stands",
        )


def _forgive(tx: Transaction, campaign: CampaignRecord, wave: WaveRecord, failed: int) -> None:
    changed = tx.execute(
        "UPDATE wave SET forgiven = :failed WHERE campaign_id = :campaign AND generation = :generation "
        "AND number = :number",
        failed=failed,
        campaign=campaign.id,
        generation=campaign.generation,
        number=wave.number,
    )
    if changed != 1:
        raise CampaignChangedError(
            f"wave '{wave.name}' of '{campaign.name}' is gone", why="the campaign was changed", next="try again"
        )
