"""A small fleet for tests: catalogue, inventory, release, bundles, and a database with all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.chassis import Chassis
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.figure import Confidence, Figure
from nwmctl.domain.fleet import AssignmentState, SlotFact, SlotFacts, SlotName
from nwmctl.domain.model import ModelReference
from nwmctl.domain.platform import Catalogue, VehicleModel
from nwmctl.domain.release import FleetReference, Gate, Mirror, Release, Trust, WaveSpec
from nwmctl.fleet.consequences import Consequence, Heard, Report
from nwmctl.fleet.inventory import import_inventory
from nwmctl.fleet.offers import Act, open_action
from nwmctl.fleet.releases import EnabledBundle, enable_release
from nwmctl.fleet.reports import record_attributes, record_report
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.formats.ddi import slot_attributes
from nwmctl.storage.database import Database
from nwmctl.storage.sqlite import open_sqlite

CONTENT = digest_bytes(b"content")
PLATFORMS = ("nt2.0", "nt3.0")
MODELS = (("et7", "nt2.0", "Banyan"), ("es6", "nt2.0", "Banyan"), ("et9", "nt3.0", "Cedar"))
OPEN_GATE = Gate(min_committed=0.5, max_failed=0.34, abort_failed=0.9)
WAVES = (
    WaveSpec("canary", Gate(min_committed=1.0, max_failed=0.0), per_model=1),
    WaveSpec("rest", OPEN_GATE, share=1.0),
)
T0 = 1_700_000_000_000_000
SECOND = 1_000_000


def token(vin: str) -> str:
    return f"token-of-{vin}"


def catalogue() -> Catalogue:
    one = Figure(1.0, "m", "test", Confidence.ASSUMED)
    chassis = Chassis(one, one, one, one, one, one)
    return Catalogue(
        tuple(
            VehicleModel(code, code, "test", platform, "base", baseline, chassis, "test", Confidence.ASSUMED)
            for code, platform, baseline in MODELS
        )
    )


def release(sequence: int = 10, **changes: object) -> Release:
    reference = ModelReference("model", CONTENT)
    made = Release(
        name=f"nwm-{sequence}",
        sequence=sequence,
        model=reference,
        previous=reference,
        platforms=PLATFORMS,
        policy="policy.yaml",
        trust=Trust((), ()),
        fleet=FleetReference("test", "fleet.csv", virtual=True),
        waves=WAVES,
        mirrors=(Mirror("local", "file:mirror"),),
        max_attempts=2,
        poll_s=0.05,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def bundles(made: Release, data: bytes = b"bundle", virtual_only: bool = True) -> tuple[EnabledBundle, ...]:
    digest = digest_bytes(data).hex
    sequences = {BundleKind.RELEASE: made.sequence, BundleKind.RETURN: made.return_sequence}
    return tuple(
        EnabledBundle(
            kind=kind,
            platform=platform,
            sequence=sequence,
            model_version="1",
            filename=f"{made.name}-{platform}-{sequence}.swu",
            path=f"targets/{digest}.{made.name}-{platform}-{sequence}.swu",
            tuf_name=f"{made.name}-{platform}-{sequence}.swu",
            sha1="0" * 40,
            sha256=digest,
            size=len(data),
            virtual_only=virtual_only,
        )
        for kind, sequence in sequences.items()
        for platform in made.platforms
    )


def vins(per_model: int) -> list[tuple[str, str, str]]:
    return [(f"VIN{code}{number:05}", code, baseline) for code, _, baseline in MODELS for number in range(per_model)]


def write_inventory(path: Path, vehicles: Iterable[tuple[str, str, str]], sequence: int = 1) -> Path:
    lines = [f"{vin},{code},{baseline},{sequence}" for vin, code, baseline in vehicles]
    path.write_text("\n".join(["vin,vehicle_model,baseline,sequence", *lines]) + "\n")
    return path


def fleet_database(
    folder: Path, per_model: int = 3, made: Release | None = None, database: Database | None = None
) -> Database:
    """A database (a file in ``folder``, or the empty one given) with a fleet, and with a release enabled."""
    made = made or release()
    database = database or open_sqlite(folder / "fleet.db")
    database.migrate(MIGRATIONS)
    inventory = write_inventory(folder / "fleet.csv", vins(per_model))
    import_inventory(database, inventory, catalogue(), fleet=made.fleet.name, virtual=True, now_us=T0, token_for=token)
    enable_release(database, made, CONTENT, bundles(made), T0)
    return database


def wave_vins(database: Database, wave: int, generation: int = 1) -> list[str]:
    rows = database.reader.all(
        "SELECT vin FROM assignment WHERE wave = :wave AND generation = :generation ORDER BY id",
        wave=wave,
        generation=generation,
    )
    return [row[0] for row in rows]


def act(database: Database, vin: str, now_us: int = T0) -> int:
    """Poll, and give the action to work on."""
    with database.transaction() as tx:
        found = open_action(tx, vin, now_us)
    assert isinstance(found, Act), found
    return found.action


def say(
    database: Database,
    vin: str,
    action: int,
    heard: Heard,
    stage: AssignmentState | None = None,
    details: tuple[str, ...] = (),
    now_us: int = T0,
) -> Consequence:
    with database.transaction() as tx:
        return record_report(tx, vin, action, Report(heard, stage, details), now_us)


def finish(database: Database, vin: str, heard: Heard = Heard.SUCCESS, now_us: int = T0) -> Consequence:
    return say(database, vin, act(database, vin, now_us), heard, now_us=now_us)


def slots(database: Database, vin: str, active: int, inactive: int, intact: bool = True, now_us: int = T0) -> None:
    facts = SlotFacts(SlotName.B, SlotFact(inactive, intact), SlotFact(active, True))
    with database.transaction() as tx:
        record_attributes(tx, vin, slot_attributes(facts), facts, now_us)


def state_of(database: Database, vin: str, generation: int = 1) -> AssignmentState:
    row = database.reader.one(
        "SELECT state FROM assignment WHERE vin = :vin AND generation = :generation", vin=vin, generation=generation
    )
    assert row is not None
    return AssignmentState(row[0])


def digest(text: str) -> Digest:
    return digest_bytes(text.encode())
