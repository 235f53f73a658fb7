"""The gateway's own rhythm: store who was seen, and advance campaigns while holding the lease.

Runs beside the requests and writes through the same writer. A tick that fails is told and tried again: campaigns
depend on facts in the database, so nothing is lost by it.
"""

from __future__ import annotations

import asyncio
import logging

from nwmctl.errors import NwmError
from nwmctl.fleet.controller import CONTROLLER, leased_tick
from nwmctl.fleet.leases import give_lease_back
from nwmctl.fleet.offers import note_seen
from nwmctl.gateway.edge import Edge

_LOG = logging.getLogger("nwmctl.gateway")
_SEEN_EVERY_S = 2.0


class Ticker:
    """``run`` until cancelled, then ``finish``. Without ``advance`` it only stores who was seen."""

    def __init__(self, edge: Edge, holder: str, period_s: float, *, advance: bool) -> None:
        self._edge = edge
        self._holder = holder
        self._period_s = period_s
        self._lease_us = int(max(5.0, 5 * period_s) * 1_000_000)
        self._advance = advance
        self._seen_at = float("-inf")

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            try:
                await self._once()
            except NwmError as problem:
                _LOG.warning("the controller will try again: %s", problem)
            await asyncio.sleep(self._period_s)

    async def finish(self) -> None:
        """Store what is left, and let another controller begin at once."""
        try:
            await self._store_seen()
            await self._edge.write(lambda tx: give_lease_back(tx, CONTROLLER, self._holder))
        except NwmError as problem:
            _LOG.warning("the controller could not tidy up: %s", problem)

    async def _once(self) -> None:
        now_us = self._edge.clock.now_us()
        # By the clock that nobody sets: after a jump back, the other one would say "not yet" for as long.
        at = self._edge.clock.monotonic()
        if at - self._seen_at >= _SEEN_EVERY_S:
            self._seen_at = at
            await self._store_seen()
        if self._advance:
            await self._edge.write(lambda tx: leased_tick(tx, self._holder, now_us, self._lease_us))

    async def _store_seen(self) -> None:
        seen, self._edge.seen = self._edge.seen, {}
        if seen:
            await self._edge.write(lambda tx: note_seen(tx, seen))
