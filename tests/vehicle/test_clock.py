"""A vehicle's clock that stands, starts at zero or jumps: what has expired stays expired, and a wrong clock heals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    CertificateExpiredError,
    MetadataExpiredError,
    MetadataFrozenError,
    NoSpaceError,
    VehicleStateError,
)
from nwmctl.trust.cms import sign_cms
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.repository import MetadataSet, add_targets, create_repository
from nwmctl.vehicle import disk
from nwmctl.vehicle.delivery import deliver
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.metadata import Repository
from nwmctl.vehicle.record import PinnedTrust
from nwmctl.vehicle.timefloor import TIME_NAME, TimeFloor
from tests.trust.conftest import FixedClock
from tests.vehicle.bundles import RECORD
from tests.vehicle.test_metadata import LISTED, ORDER, served, write

__all__ = ["served"]
DAY = 86_400_000_000
START = 1_800_000_000_000_000


@dataclass
class Watch:
    """A clock whose two hands are set apart. Nothing waits in these tests, so the steady hand moves by order only."""

    us: int
    steady: float = 100.0

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.steady


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    roles = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP, KeyRole.RELEASE]
    return init_keys(tmp_path_factory.mktemp("clock") / "ring", FixedClock(START), roles, development=True)


@dataclass
class Case:
    """A vehicle, and a repository that publishes when it is told to."""

    ring: KeyRing
    folder: Path
    root: Path
    url: str
    state: MetadataSet

    def publish(self, at_us: int) -> None:
        made = add_targets(self.state, [LISTED], self.ring, FixedClock(at_us))
        self.state = made.state
        write(self.root, made)

    def machine(self, clock: Watch) -> Machine:
        """The vehicle after a start."""
        return Machine(self.folder, Senses(clock), Trouble())

    def find(self, at_us: int) -> None:
        """One order, after a start, with a clock that shows ``at_us``."""
        clock = Watch(at_us)
        assert Repository(self.url, self.url, clock).find(self.machine(clock), ORDER).digest == LISTED.digest

    def floor(self) -> int:
        return TimeFloor(self.folder).now_us(Watch(0))


@pytest.fixture
def case(ring: KeyRing, served: tuple[Path, str], tmp_path: Path) -> Case:
    first = create_repository(ring, FixedClock(START))
    trust = PinnedTrust(first.state.roots[0], ring.ca_pem())
    deliver(tmp_path / RECORD.vin, RECORD, trust, None, FixedClock(START))
    return Case(ring, tmp_path / RECORD.vin, *served, first.state)


def test_a_clock_that_starts_at_zero_shows_at_least_the_delivery(case: Case) -> None:
    case.publish(START)
    assert case.floor() == START
    case.find(0)
    case.find(START + 5 * DAY)
    assert case.floor() == START + 5 * DAY
    case.find(0)
    assert case.floor() == START + 5 * DAY


@pytest.mark.parametrize("back", [0, START, START + 20 * DAY])
def test_what_has_expired_stays_expired(case: Case, back: int) -> None:
    """Somebody replays what held last month, and sets the clock back to then."""
    case.publish(START)
    old = {path: path.read_bytes() for path in case.root.rglob("*.json")}
    case.publish(START + 25 * DAY)
    case.find(START + 40 * DAY)
    for path, data in old.items():
        path.write_bytes(data)
    (case.folder / "metadata.json").unlink()
    with pytest.raises(MetadataFrozenError):
        case.find(back)
    assert case.floor() == START + 40 * DAY


def test_a_clock_that_jumps_ahead_and_is_put_right(case: Case) -> None:
    case.publish(START)
    case.find(START + DAY)
    kept = {name: (case.folder / name).read_bytes() for name in (TIME_NAME, "metadata.json")}
    for ahead in (31 * DAY, 400 * DAY, 100_000 * DAY):
        with pytest.raises(MetadataExpiredError):
            case.find(START + ahead)
        assert {name: (case.folder / name).read_bytes() for name in kept} == kept, "a wrong time leaves nothing behind"
    case.find(START + DAY)
    # Within the lifetime nobody can tell that it is wrong: it counts, and a renewal soon goes beyond it.
    case.find(START + 29 * DAY)
    case.publish(START - 2 * DAY)
    with pytest.raises(MetadataFrozenError):
        case.find(START + 2 * DAY)
    case.publish(START + 15 * DAY)
    case.find(START + 15 * DAY)
    assert case.floor() == START + 29 * DAY


def test_a_clock_that_is_set_back_while_the_vehicle_runs(case: Case) -> None:
    case.publish(START)
    clock = Watch(START + DAY)
    machine, repository = case.machine(clock), Repository(case.url, case.url, clock)
    repository.find(machine, ORDER)
    clock.us, clock.steady = 0, clock.steady + 3600
    assert machine.time.now_us(clock) == START + DAY + 3_600_000_000
    clock.steady += 40 * 86_400
    with pytest.raises(MetadataFrozenError):
        repository.find(machine, ORDER)


def test_the_release_certificate_is_judged_by_the_floor(case: Case) -> None:
    case.publish(START)
    signature = sign_cms(b"text", case.ring)
    case.machine(Watch(START + DAY))._verify(b"text", signature)
    # A clock at zero lies before every certificate; the delivery does not.
    case.machine(Watch(0))._verify(b"text", signature)
    TimeFloor(case.folder).held_at(Watch(0), START + 2000 * DAY)
    for at in (0, START + DAY):
        with pytest.raises(CertificateExpiredError):
            case.machine(Watch(at))._verify(b"text", signature)


def test_a_vehicle_of_an_older_nwmctl_has_no_floor_until_it_looks(case: Case) -> None:
    case.publish(START)
    (case.folder / TIME_NAME).unlink()
    assert case.floor() == 0
    case.find(START + DAY)
    assert case.floor() == START + DAY


@pytest.mark.parametrize("floor", ["", "{}", "-1", "true", "1.5"])
def test_a_damaged_floor_is_not_taken_for_none(case: Case, floor: str) -> None:
    text = f'{{"floor_us":{floor},"schema":"nwmctl.vehicle-time/1"}}' if len(floor) > 2 or floor == "-1" else floor
    (case.folder / TIME_NAME).write_text(text)
    with pytest.raises(VehicleStateError, match="damaged"):
        case.machine(Watch(START))


def test_a_full_disk_keeps_the_old_floor(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.publish(START)
    case.find(START)

    def full(path: Path, data: bytes) -> None:
        raise NoSpaceError("no space", why="full", next="free some")

    floor, clock = TimeFloor(case.folder), Watch(START)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "replace_file", full)
        with pytest.raises(NoSpaceError):
            floor.held_at(clock, START + DAY)
    assert floor.now_us(clock) == case.floor() == START


Step = tuple[str, int]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["set", "run", "start", "held"]), st.integers(0, 60)), max_size=20))
def test_time_never_runs_backwards(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    """However the clock is set, and however often the vehicle starts: what held once was never later than now."""
    folder = tmp_path_factory.mktemp("floor")
    clock, floor = Watch(START), TimeFloor(folder)
    seen = 0
    actions: dict[str, Callable[[int], None]] = {
        "set": lambda days: setattr(clock, "us", START - 30 * DAY + days * DAY),
        "run": lambda hours: setattr(clock, "steady", clock.steady + hours * 3600),
        "start": lambda _: None,
        "held": lambda _: None,
    }
    for what, number in steps:
        actions[what](number)
        if what == "start":
            floor = TimeFloor(folder)
        now = floor.now_us(clock)
        assert now >= clock.now_us()
        assert now >= seen - 60_000_000, "but for the minute that is not worth a write"
        if what == "held":
            floor.held_at(clock, now)
            seen = max(seen, now)
