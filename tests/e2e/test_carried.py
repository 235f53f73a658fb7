"""A release that brings its runtime, from its file to a vehicle that has none; and one that asks for too much."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nwmctl.app.clock import SystemClock
from nwmctl.trust.ring import load_keyring
from nwmctl.vehicle import record
from nwmctl.vehicle.car import Car
from nwmctl.vehicle.delivery import deliver
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.inference import inference, lacking
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.pending import Ending, Way
from nwmctl.vehicle.record import PinnedTrust
from tests.e2e.command import Place
from tests.project import SEQUENCE, VINS
from tests.vehicle import wheels
from tests.vehicle.test_carried import nothing

SAID = f"by the carried onnxruntime {wheels.version()}"


@pytest.mark.long
def test_a_release_that_carries_its_runtime(place: Place, tmp_path: Path) -> None:
    digest = wheels.write_wheel(place.project.folder / "runtime.whl")
    runtime = {"name": "onnxruntime", "version": wheels.version(), "file": "runtime.whl", "digest": str(digest)}
    place.project.edit_release(
        lambda release: release.update(runtime="carry", runtimes=[{**runtime, "licence": "MIT"}])
    )
    assert place.deploy("--json").ok().json["campaign"]["state"] == "completed"
    for vin in VINS:
        told = json.dumps(place.run("fleet", "status", vin, "--json").ok().json)
        assert SAID in told
        assert f"runtime onnxruntime {wheels.version()}: carried" in told
    with closing(sqlite3.connect(place.workspace / "fleet.db")) as database:
        for (attributes,) in database.execute("SELECT attributes FROM vehicle"):
            assert json.loads(attributes)["nwm.carried.onnxruntime"] == wheels.version()
    on_a_vehicle_without(place, tmp_path / "bare")
    asks_for_too_much(place)


def on_a_vehicle_without(place: Place, folder: Path) -> None:
    """The same bundle, on a vehicle on whose machine no runtime is installed."""
    (bundle,) = (place.workspace / "mirrors" / "local" / "targets").glob(f"*-{SEQUENCE}.swu")
    known = next(path.parent for path in place.workspace.rglob(record.RECORD_NAME))
    who, trust = record.load_record(known), record.load_trust(known)
    clock = SystemClock()
    deliver(folder, who, PinnedTrust(trust.root_metadata, load_keyring(place.keys).ca_pem()), None, clock)
    machine = Machine(folder, Senses(clock, inference(nothing), lacking(nothing), dict), Trouble())
    machine.power_on()
    assert (machine.reported().runtimes, machine.carried()) == ({}, {})
    shutil.copy(bundle, folder / "b.swu")
    action = machine.install(folder / "b.swu", machine.begin(1, Way.BUNDLE, SEQUENCE))
    machine.activate(action)
    ended = Machine(folder, Senses(clock, inference(nothing), lacking(nothing), dict), Trouble()).power_on()
    assert ended is not None
    assert ended.outcome is not None
    assert (ended.outcome.ending, SAID in ended.outcome.text) == (Ending.COMMITTED, True)
    assert machine.carried() == {"onnxruntime": wheels.version()}
    assert machine.reported().runtimes == {}, "it is good for this slot alone"
    slots = Car(folder, who.computers).slots(who.computers[0].name)
    assert "runtime.whl" in {entry.name for entry in slots.prove(slots.state().active)}


def asks_for_too_much(place: Place) -> None:
    """The next release asks for a driver that no vehicle has reported."""

    def change(release: dict[str, object]) -> None:
        release.update(name="tiny-3", sequence=SEQUENCE + 10)
        release["waves"] = [{"name": "all", "share": 1.0, "gate": {"min_committed": 1.0, "max_failed": 0.0}}]
        release["requires"] = {"components": {"gpu-driver": {"least": "535", "most": "550"}}}

    place.project.edit_release(change)
    place.run("publish", place.project.release).ok()
    place.run("rollout", "start", place.project.release, "--no-follow", "--json").ok()
    for vin in VINS:
        told = place.run("fleet", "why", vin, "--json").ok().json
        assert not told["offered"]
        assert "needs gpu-driver 535 to 550, has reported none" in str(told["reasons"])
        assert "needs gpu-driver 535 to 550" in place.run("fleet", "why", vin).ok().out
