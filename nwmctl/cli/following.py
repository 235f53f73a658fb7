"""Following a campaign: one line per change, bars while it goes on. A virtual fleet runs here meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nwmctl.cli.common import talk
from nwmctl.domain.campaign import CampaignState, WaveState

if TYPE_CHECKING:
    from rich.console import Console

    from nwmctl.fleet.status import CampaignStatus, WaveStatus
    from nwmctl.storage.workspace import Workspace


def follow_campaign(workspace: Workspace, name: str, *, follow: bool = True, faults: str = "") -> CampaignStatus:
    """Follow a campaign until nothing more happens without a person; gives where it stands then.

    A virtual fleet's gateway and vehicles are started for as long as that takes; ``faults`` (see
    docs/virtual-vehicle.md) lets things go wrong for its vehicles.
    """
    from nwmctl.app.clock import SystemClock, system_sleep
    from nwmctl.app.fleets import FINAL, fleet_database
    from nwmctl.app.fleets import follow as watch
    from nwmctl.app.local import local_fleet
    from nwmctl.fleet.status import status
    from nwmctl.vehicle.faults import plan_from_text

    clock, console = SystemClock(), talk()
    plan = plan_from_text(faults)
    with fleet_database(workspace) as database:
        now = status(database, name, clock.now_us())
        if not follow or now.state in FINAL:
            return now
        with local_fleet(workspace, database, now.fleet, clock, system_sleep, plan) as services:
            for text in services.talk:
                console.print(f"[dim]{text}[/]", soft_wrap=True)
            view = _View(console)
            try:
                for now in watch(database, name, clock, system_sleep, services.check):
                    view.show(now)
            except KeyboardInterrupt:
                if services.virtual:
                    raise
                console.print("no longer following; the campaign goes on (`nwmctl rollout status`)")
            finally:
                view.close()
        return now


def raise_if_stopped(campaign: CampaignStatus) -> None:
    """Raise CampaignStoppedError if the campaign was paused or aborted."""
    from nwmctl.errors import CampaignStoppedError

    if campaign.state in (CampaignState.PAUSED, CampaignState.ABORTED):
        raise CampaignStoppedError(
            f"campaign '{campaign.name}' is {campaign.state}",
            why=campaign.reason,
            next=f"see `nwmctl fleet status`; then `nwmctl rollout resume {campaign.name}` or "
            f"`nwmctl rollback {campaign.name}`",
        )


class _View:
    """Bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

        self._console = console
        self._states: dict[str, WaveState] = {}
        self._campaign: CampaignState | None = None
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("wave {task.description:10}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[talk]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            # Drawn by ``show`` alone: a thread of its own that redraws while this one prints can lock up.
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._bars.start()

    def show(self, now: CampaignStatus) -> None:
        """Draw a status; say what changed since the last one."""
        for wave in now.waves:
            self._wave(wave)
        if now.state is not self._campaign:
            self._campaign = now.state
            reason = f": {now.reason}" if now.reason else ""
            self._console.print(f"campaign {now.name} {now.state}{reason}", soft_wrap=True)
        self._bars.refresh()

    def _wave(self, wave: WaveStatus) -> None:
        if wave.state is not self._states.get(wave.name, WaveState.PLANNED):
            self._console.print(
                f"  wave {wave.name:10} {wave.state:8} {wave.counts.committed}/{wave.counts.total} committed"
                f"{f', {wave.counts.failed} failed' if wave.counts.failed else ''}  [dim]{wave.gate}[/]",
                soft_wrap=True,
            )
        self._states[wave.name] = wave.state
        if wave.name not in self._tasks:
            self._tasks[wave.name] = self._bars.add_task(wave.name, total=wave.counts.total, talk="")
        talk = ", ".join(f"{count} {state}" for state, count in wave.states.items()) if wave.counts.open else ""
        self._bars.update(self._tasks[wave.name], completed=wave.counts.committed, talk=talk)

    def close(self) -> None:
        """Stop drawing."""
        self._bars.stop()
