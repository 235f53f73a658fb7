"""rollout: published release x fleet -> a running campaign. Who advances it is the controller, not this step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.campaign import CampaignState
from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.platform import Catalogue
from nwmctl.domain.release import Release
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import RolloutWork, StepName
from nwmctl.errors import CampaignOverError
from nwmctl.fleet.campaigns import create_campaign, start
from nwmctl.fleet.inventory import TokenFor, import_inventory
from nwmctl.fleet.records import campaign_of_release
from nwmctl.formats import canonical
from nwmctl.steps.base import Progress, Step
from nwmctl.storage.content import ContentStore
from nwmctl.storage.database import Database

_OVER = frozenset({CampaignState.ABORTED, CampaignState.ROLLING_BACK, CampaignState.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class _Rollout:
    store: ContentStore
    database: Database
    release: Release
    inventory: Path
    catalogue: Catalogue
    token_for: TokenFor | None
    clock: Clock

    def __call__(self, work: RolloutWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        fleet = self.release.fleet
        known = campaign_of_release(self.database.reader, fleet.name, self.release.sequence)
        if known is not None and known.state in _OVER:
            raise CampaignOverError(
                f"campaign '{known.name}' is {known.state}",
                why="a release sequence has one campaign per fleet, and this one has ended",
                next="give the release a higher sequence to bring it to the vehicles again",
            )
        progress("importing the inventory", -1.0)
        import_inventory(
            self.database,
            self.inventory,
            self.catalogue,
            fleet=fleet.name,
            virtual=fleet.virtual,
            now_us=self.clock.now_us(),
            token_for=self.token_for,
        )
        created = create_campaign(self.database, self.release, self.clock.now_us())
        if created.state is CampaignState.READY:
            start(self.database, created.name, self.clock.now_us())
        receipt = canonical.encode({"campaign": created.name, "vehicles": created.vehicles})
        return Outcome(
            {"campaign": self.store.put_bytes(receipt), **_factory(inputs)},
            {
                "_campaign": created.name,
                "campaign": created.name if created.new else f"{created.name} (there already, {created.state})",
                "vehicles": created.vehicles,
                "waves": len(self.release.waves),
            },
        )


def _factory(inputs: Mapping[str, Digest]) -> dict[str, Digest]:
    """Handed on for whoever drives the virtual vehicles."""
    return {name: digest for name, digest in inputs.items() if name.startswith("factory:")}


def rollout_step(
    store: ContentStore,
    database: Database,
    release: Release,
    inventory: Path,
    catalogue: Catalogue,
    token_for: TokenFor | None,
    clock: Clock,
) -> Step[RolloutWork]:
    """The step. ``token_for`` gives the token of a vehicle whose inventory line has none."""
    work = _Rollout(store, database, release, inventory, catalogue, token_for, clock)
    return Step(StepName.ROLLOUT, 1, False, RolloutWork, work)
