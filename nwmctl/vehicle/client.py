"""The vehicle's side of an update: ask, verify, download, install, try, commit or fall back, report.

The vehicle decides by itself: the gateway's words select what it looks at, the signed metadata and the signed bundle
decide what it installs. Whatever must survive a power loss is written by ``machine`` before the step that needs it. An
action's end is reported until the gateway has acknowledged it; reports on the way there may be lost. An action that
is offered again after its end is answered, not done again. Sleeps and time come in from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from nwmctl.domain.digest import Digest
from nwmctl.domain.fleet import AssignmentState, SlotFacts
from nwmctl.errors import GatewayAnswerError, NwmError
from nwmctl.formats import ddi
from nwmctl.vehicle import reporting
from nwmctl.vehicle.backoff import Backoff
from nwmctl.vehicle.download import AsyncSleep, Wanted, download
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.link import Link
from nwmctl.vehicle.machine import Machine
from nwmctl.vehicle.order import BundleOrder, Order, SlotOrder, read_order
from nwmctl.vehicle.pace import BUNDLE_PACE, Pace
from nwmctl.vehicle.pending import Ending, Outcome, Pending, Stage

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SignedFile:
    """What signed metadata say about a file: ``size`` in bytes."""

    digest: Digest
    size: int


FindFile = Callable[[Machine, BundleOrder], SignedFile]
"""Verifies the repository's metadata and gives what it says about the ordered file; raises NwmError."""
AllowSlot = Callable[[Machine, SlotOrder], None]
"""Returns if signed metadata, where the vehicle demands them, allow a way back to its own slot; raises NwmError."""


Speak = Callable[[Machine], None]
"""Lets the vehicle's computers say, under their own keys, who they are and what they run; raises NwmError."""


def _say_nothing(machine: Machine) -> None:
    """A vehicle without a director has nobody to tell."""


def _no_director(machine: Machine, order: SlotOrder) -> None:
    assert machine.trust.director_root is None, "a vehicle with a director needs Services.allow"


@dataclass(frozen=True, slots=True)
class Services:
    """What the vehicles of one process are given: threads for heavy work, how many may be busy, waiting, metadata.

    ``poll_s`` replaces the gateway's polling time if it is given; ``pace`` is the least that a mirror must keep."""

    pool: Executor
    busy: asyncio.Semaphore
    sleep: AsyncSleep
    find: FindFile
    poll_s: float | None = None
    allow: AllowSlot = _no_director
    pace: Pace = BUNDLE_PACE
    speak: Speak = _say_nothing


class _Cancelled(Exception):
    """The gateway asked to stop the action at hand."""


class VehicleClient:
    """One vehicle's client. ``power_on`` once, then ``cycle`` again and again."""

    def __init__(self, machine: Machine, link: Link, services: Services, trouble: Trouble) -> None:
        self._machine = machine
        self._link = link
        self._services = services
        self._trouble = trouble
        self._backoff = Backoff(machine.record.vin)
        self._pending: Pending | None = None
        self._facts: SlotFacts | None = None
        self._told: SlotFacts | None = None
        self._spoken: SlotFacts | None = None
        self._poll_s = services.poll_s or 1.0

    async def power_on(self) -> None:
        """Start the vehicle from what is on its disk, and decide a trial. Raises VehicleStateError."""
        self._pending = await self._work(self._machine.power_on)
        self._facts = await self._work(self._machine.facts)

    @property
    def poll_s(self) -> float:
        """Seconds between polls, as last heard."""
        return self._poll_s

    async def cycle(self) -> float:
        """One poll and what follows from it. Returns the seconds until the next one.

        Raises GatewayUnreachableError, GatewayAnswerError, DdiFormatError: wait and call again.
        """
        await self._settle()
        polling = await self._link.poll()
        self._poll_s = self._services.poll_s or polling.poll_s
        if polling.cancel:
            await self._answer_cancel(await self._link.cancel(polling.cancel))
        elif polling.deployment:
            await self._take_on(await self._link.deployment(polling.deployment))
        return self._poll_s

    async def _settle(self) -> None:
        """Tell what the gateway does not know yet: first the slots, then how the action ended."""
        if self._facts is not None and self._facts != self._told:
            await self._link.tell(self._attributes(self._facts))
            self._told = self._facts
        if self._facts != self._spoken:
            # A director that does not listen must not keep a vehicle from an update that is on its way.
            with contextlib.suppress(NwmError):
                await self._work(self._services.speak, self._machine)
                self._spoken = self._facts
        action = self._pending
        if action is not None and action.outcome is not None and not action.told:
            # An action that the gateway no longer knows counts as told: there is nobody left to tell.
            await self._link.report(reporting.closing(action.action, action.outcome))
            self._pending = await self._work(self._machine.told, action, True)
            self._trouble.reach(Stage.CLOSED)

    async def _take_on(self, deployment: ddi.Deployment) -> None:
        known = self._pending
        if known is not None and known.action == deployment.action and known.outcome is not None:
            self._pending = await self._work(self._machine.told, known, False)
            await self._settle()
            return
        async with self._services.busy:
            try:
                order = read_order(deployment)
            except GatewayAnswerError as problem:
                outcome = reporting.outcome_of(problem)
                self._pending = await self._work(self._machine.refuse, deployment.action, outcome)
            else:
                await self._carry_out(order)
        await self._settle()

    async def _carry_out(self, order: Order) -> None:
        action = self._pending = self._machine.begin(order.action, order.way, order.sequence)
        self._trouble.reach(Stage.ACCEPTED)
        try:
            match order:
                case SlotOrder() if await self._work(self._machine.runs, order.sequence):
                    text = f"sequence {order.sequence} runs already"
                    self._pending = await self._close(action, Outcome(Ending.COMMITTED, "", text))
                    return
                case SlotOrder():
                    await self._work(self._services.allow, self._machine, order)
                    await self._work(self._machine.check_way_back, order.sequence)
                case BundleOrder():
                    action = await self._bring_in(order, action)
            await self._refuse_if_cancelled(order.action)
        except _Cancelled:
            self._pending = await self._close(action, Outcome(Ending.CANCELLED), told=True)
            await self._link.report(reporting.cancelled(order.action), cancel=True)
            return
        except NwmError as problem:
            self._pending = await self._close(action, reporting.outcome_of(problem, self._machine.at_hand))
            await self._look()
            return
        await self._on_the_way(order.action, AssignmentState.TRIAL)
        self._pending = await self._work(self._machine.activate, action)
        self._trouble.reach(Stage.TRIAL)
        await self.power_on()

    async def _bring_in(self, order: BundleOrder, action: Pending) -> Pending:
        """The ordered bundle into the inactive slot, from wherever an earlier try stopped."""
        if action.stage is Stage.INSTALLED and await self._work(self._machine.is_installed, order.sequence):
            return action
        await self._on_the_way(order.action, AssignmentState.DOWNLOADING)
        signed = await self._work(self._services.find, self._machine, order)
        part = self._machine.download_path(signed.digest)
        await self._unless_cancelled(order, Wanted(order.href, signed.digest, signed.size), part)
        self._trouble.reach(Stage.DOWNLOADED)
        action = self._pending = await self._work(self._machine.install, part, action)
        self._trouble.reach(Stage.INSTALLED)
        await self._on_the_way(order.action, AssignmentState.INSTALLED)
        return action

    async def _unless_cancelled(self, order: BundleOrder, wanted: Wanted, part: Path) -> None:
        """Download, and look meanwhile whether the gateway still wants it. Raises _Cancelled."""
        work = asyncio.create_task(
            download(
                self._link.http, wanted, part, self._backoff, self._services.sleep, self._trouble,
                self._link.credentials(wanted.url), self._services.pace,
            )
        )  # fmt: skip
        watch = asyncio.create_task(self._watch(order.action))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await watch
            await work
        finally:
            for task in (work, watch):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, NwmError, _Cancelled):
                    await task

    async def _watch(self, action: int) -> None:
        while True:
            await self._services.sleep(self._poll_s)
            await self._refuse_if_cancelled(action)

    async def _refuse_if_cancelled(self, action: int) -> None:
        """Raises _Cancelled if the gateway wants the action to stop; no answer is no wish."""
        with contextlib.suppress(NwmError):
            polling = await self._link.poll()
            if polling.cancel and (await self._link.cancel(polling.cancel)).action == action:
                raise _Cancelled

    async def _answer_cancel(self, cancel: ddi.Cancel) -> None:
        """The gateway wants an action stopped that this vehicle is not working on now."""
        known = self._pending
        done = known is not None and known.action == cancel.action and known.outcome is not None
        if done and known is not None and known.outcome is not None and known.outcome.ending is Ending.COMMITTED:
            await self._link.report(reporting.not_cancelled(cancel.action, "it is committed"), cancel=True)
            return
        if known is not None and known.action == cancel.action and not done:
            self._pending = await self._close(known, Outcome(Ending.CANCELLED), told=True)
        await self._link.report(reporting.cancelled(cancel.action), cancel=True)

    async def _on_the_way(self, action: int, stage: AssignmentState) -> None:
        """Report a stage; a report that does not get through changes nothing."""
        with contextlib.suppress(NwmError):
            await self._link.report(reporting.proceeding(action, stage))

    async def _close(self, action: Pending, outcome: Outcome, *, told: bool = False) -> Pending:
        return await self._work(self._machine.close, action, outcome, told=told)

    async def _look(self) -> None:
        self._facts = await self._work(self._machine.facts)

    def _attributes(self, facts: SlotFacts) -> dict[str, str]:
        record = self._machine.record
        return {
            "vin": record.vin,
            "vehicle_model": record.vehicle_model,
            "platform": record.platform,
            "variant": record.variant,
            "board": f"{record.board}:{record.revision}",
            "link": record.link,
            ddi.COMPUTERS: " ".join(each.name for each in record.computers),
            **ddi.reported_attributes(self._machine.reported()),
            **{f"{ddi.CARRIED}{name}": version for name, version in self._machine.carried().items()},
            **ddi.slot_attributes(facts),
        }

    async def _work(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Run something heavy beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._services.pool, lambda: function(*arguments, **named))
