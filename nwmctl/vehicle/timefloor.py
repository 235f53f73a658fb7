"""The time below which a vehicle's clock is not believed: what expires must not come back to life with a slow clock.

The floor is the latest time at which this vehicle found signed metadata to hold, all of them, or the time of its
delivery. It is on disk, so a clock that starts at zero after every power loss, or that somebody sets back, does not
make expired metadata or certificates good again; while the vehicle runs, the floor goes on with the clock that never
goes back. Nothing that a server says about the time is used.

A clock that runs ahead is believed only as far as metadata hold at its time, so it raises the floor by less than their
lifetime; when it is put right, metadata are refused until newer ones reach beyond the floor, which is at most half a
lifetime later, since they are renewed by then. Sets no clock.
"""

from __future__ import annotations

from pathlib import Path

from nwmctl.domain.clock import Clock
from nwmctl.errors import NotCanonicalError, VehicleStateError
from nwmctl.formats import canonical
from nwmctl.vehicle import disk

TIME_NAME = "time.json"
_SCHEMA = "nwmctl.vehicle-time/1"
_GRAIN_US = 60_000_000
"""A floor is written when it has risen by as much: the disk is spared, and a minute makes nothing hold."""


class TimeFloor:
    """The floor of the vehicle in ``folder``; a vehicle of an older nwmctl has none yet.

    Raises VehicleStateError for a damaged file, VehicleDiskError.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TIME_NAME
        self._kept_us = self._load()
        self._floor_us = self._kept_us
        self._since: float | None = None

    def now_us(self, clock: Clock) -> int:
        """The time by which this vehicle judges: the clock's, or the floor's where that is later."""
        if self._since is None:
            self._since = clock.monotonic()
        gone_us = int(max(clock.monotonic() - self._since, 0.0) * 1e6)
        return max(clock.now_us(), self._floor_us + gone_us if self._floor_us else 0)

    def held_at(self, clock: Clock, at_us: int) -> None:
        """Remember that everything that was looked at held at ``at_us``, which ``now_us`` gave. Raises
        VehicleDiskError; then the old floor counts."""
        if at_us - self._kept_us >= _GRAIN_US:
            disk.replace_file(self._path, canonical.encode({"floor_us": at_us, "schema": _SCHEMA}))
            self._kept_us = at_us
        self._floor_us, self._since = max(at_us, self._floor_us), clock.monotonic()

    def _load(self) -> int:
        if not self._path.exists():
            return 0
        try:
            plain = canonical.decode(disk.read_file(self._path), TIME_NAME)
            if not isinstance(plain, dict) or plain.get("schema") != _SCHEMA:
                raise ValueError("it has another schema")
            floor = plain.get("floor_us")
            if type(floor) is not int or floor < 0:
                raise ValueError("it holds no time")
            return floor
        except (NotCanonicalError, ValueError) as problem:
            raise VehicleStateError(
                f"'{TIME_NAME}' is damaged",
                why=getattr(problem, "why", str(problem)),
                next="restore it, or remove it where the vehicle's clock is known to be right",
            ) from problem
