"""Fleets and campaigns for the commands: the database, tokens of virtual vehicles, and what people may do."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nwmctl.app.project import Project
from nwmctl.domain.campaign import CampaignState
from nwmctl.domain.clock import Clock, Sleep
from nwmctl.domain.platform import Catalogue
from nwmctl.domain.release import Release
from nwmctl.errors import NoCampaignError
from nwmctl.fleet import campaigns
from nwmctl.fleet.inventory import Imported, TokenFor, import_inventory
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.fleet.status import CampaignStatus, all_status, status
from nwmctl.storage.content import write_atomically
from nwmctl.storage.database import Database
from nwmctl.storage.sqlite import open_sqlite
from nwmctl.storage.workspace import Workspace

FINAL = frozenset({CampaignState.COMPLETED, CampaignState.ABORTED, CampaignState.PAUSED, CampaignState.ROLLED_BACK})
"""States in which following ends: nothing more happens without a person."""


@contextmanager
def fleet_database(workspace: Workspace) -> Iterator[Database]:
    """The workspace's database, migrated."""
    database = open_sqlite(workspace.database)
    try:
        database.migrate(MIGRATIONS)
        yield database
    finally:
        database.close()


def virtual_tokens(workspace: Workspace) -> TokenFor:
    """Tokens of virtual vehicles, derived from a secret of this workspace (made at the first call)."""
    path = workspace.state / "fleet-secret"
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32), 0o600)
    secret = path.read_bytes()
    return lambda vin: hmac.new(secret, vin.encode(), hashlib.sha256).hexdigest()


def import_fleet(
    workspace: Workspace, inventory: Path, catalogue: Catalogue, fleet: str, *, virtual: bool, clock: Clock
) -> Imported:
    """Bring an inventory file into the database."""
    with fleet_database(workspace) as database:
        return import_inventory(
            database,
            inventory,
            catalogue,
            fleet=fleet,
            virtual=virtual,
            now_us=clock.now_us(),
            token_for=virtual_tokens(workspace) if virtual else None,
        )


def open_campaign(project: Project, workspace: Workspace, clock: Clock) -> CampaignStatus:
    """Import the fleet, create the campaign of a published release if need be, and start it."""
    release = project.release
    import_fleet(
        workspace,
        inventory_path(project.base, release),
        project.catalogue,
        release.fleet.name,
        virtual=release.fleet.virtual,
        clock=clock,
    )
    with fleet_database(workspace) as database:
        created = campaigns.create_campaign(database, release, clock.now_us())
        campaigns.start(database, created.name, clock.now_us())
        return status(database, created.name, clock.now_us())


def inventory_path(base: Path, release: Release) -> Path:
    """Where the release's inventory file lies."""
    return base / release.fleet.inventory


def campaign_named(database: Database, name: str | None, now_us: int) -> CampaignStatus:
    """A campaign; without a name the latest. Raises NoCampaignError, UnknownCampaignError."""
    if name is not None:
        return status(database, name, now_us)
    known = all_status(database, now_us)
    if not known:
        raise NoCampaignError(
            "there is no campaign in this workspace",
            why="no release has been rolled out from here",
            next="run `nwmctl deploy RELEASE`, or name the right --workspace",
        )
    return known[-1]


def follow(
    database: Database, name: str, clock: Clock, sleep: Sleep, alive: Callable[[], None], period_s: float = 0.25
) -> Iterator[CampaignStatus]:
    """A campaign's status again and again, until nothing more happens without a person.

    ``alive`` is called in between and raises if a process that must run has died.
    """
    while True:
        now = status(database, name, clock.now_us())
        yield now
        if now.state in FINAL:
            return
        alive()
        sleep(period_s)
