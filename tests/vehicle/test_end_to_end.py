"""Vehicles in their own process against the real gateway: a signed and published release, out and back."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from nwmctl.domain.campaign import CampaignState
from nwmctl.domain.fleet import AssignmentState
from nwmctl.fleet import campaigns
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import TIMESTAMP_PATH
from tests.vehicle.town import LENIENT, Town, wait_for

S = AssignmentState


@pytest.fixture
def town(tmp_path: Path, keyring: KeyRing) -> Town:
    return Town(tmp_path, keyring)


def test_out_in_waves_and_back_by_slot_and_by_return_bundle(town: Town) -> None:
    with town.gateway(), town.driving():
        town.settled(CampaignState.COMPLETED)
        assert town.states() == {S.COMMITTED: 4}
        for number in range(4):
            state = town.slots(number).state()
            assert (state.record(state.active).sequence, state.highest) == (4, 4)
        # One way back is damaged after the vehicle reported it intact: the gateway has to learn it from the refusal.
        (town.slots(1).folder_of(town.slots(1).state().inactive) / "solo.vmfb").write_bytes(b"rotten")
        with town.database() as database:
            back = campaigns.rollback(database, "town-4", "test", town.clock.now_us())
        assert (back.by_slot, back.by_bundle) == (4, 0)
        town.settled(CampaignState.ROLLED_BACK)
    running = [town.slots(number).state() for number in range(4)]
    assert [state.record(state.active).sequence for state in running] == [3, 5, 3, 3]
    assert "NoSlotToReturnToError" in town.told(town.records[1].vin)


@pytest.fixture
def open_town(tmp_path: Path, keyring: KeyRing) -> Town:
    return Town(tmp_path, keyring, gate=LENIENT)


def test_faults_are_told_and_do_not_spread(open_town: Town) -> None:
    town = open_town
    faults = "health:VINet5000,corrupt:VINes8000,drop=60000:VINet5001,power=trial:VINes8001,garbage:VINet5001::3"
    with town.gateway(), town.driving(faults):
        town.answered()
    assert town.states() == {S.ROLLED_BACK: 1, S.COMMITTED: 3}
    assert "HealthCheckFailedError" in town.told("VINet5000")
    assert "DownloadDigestError" in town.told("VINes8000")
    sick = town.slots(0).state()
    assert (sick.record(sick.active).sequence, sick.highest) == (3, 3)
    town.slots(0).prove(sick.active)


def test_a_tampered_timestamp_is_refused_by_every_vehicle(open_town: Town) -> None:
    town = open_town
    path = town.root / "mirror" / TIMESTAMP_PATH
    table = json.loads(path.read_bytes())
    table["signed"]["version"] += 1
    path.write_bytes(json.dumps(table).encode())
    with town.gateway(), town.driving():
        town.answered()
    assert town.states() == {S.REFUSED: 4}
    assert "MetadataSignatureError" in town.told(town.records[0].vin)
    assert town.slots(0).state().highest == 3


def test_a_bundle_of_another_authority_is_refused(open_town: Town, stranger: KeyRing) -> None:
    town = open_town
    with town.gateway(), town.driving(ca_pem=stranger.ca_pem()):
        town.answered()
    assert town.states() == {S.REFUSED: 4}
    assert "CertificateUntrustedError" in town.told(town.records[0].vin)


def test_bytes_that_stay_wrong_use_the_attempts_up(open_town: Town) -> None:
    town = open_town
    (bundle,) = [path for path in (town.root / "mirror" / "targets").iterdir() if "-4.swu" in path.name]
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(bytes(data))
    with town.gateway(), town.driving():
        town.answered()
    assert town.states() == {S.FAILED: 4}
    assert town.told(town.records[0].vin).count("DownloadDigestError") >= 3
    assert town.slots(0).state().b.sequence == 0


def test_an_abort_stops_downloads(town: Town) -> None:
    with town.gateway(), town.driving("drop=60000:*::4"):
        wait_for(lambda: town.states().get(S.DOWNLOADING) == 2, 20)
        with town.database() as database:
            campaigns.abort(database, "town-4", "test", town.clock.now_us())
        town.answered()
    assert town.states() == {S.CANCELLED: 4}
    for number in range(4):
        assert town.slots(number).state().highest == 3


@pytest.mark.long
def test_sigkill_of_all_vehicles_and_of_the_gateway(town: Town) -> None:
    seed = random.randrange(1 << 32)
    source = random.Random(seed)
    for _ in range(4):
        with town.gateway():
            vehicles = town.start_vehicles()
            time.sleep(source.uniform(0.6, 1.6))
            vehicles.kill()
            vehicles.wait()
    with town.gateway(), town.driving():
        town.settled(CampaignState.COMPLETED)
    assert town.states() == {S.COMMITTED: 4}, f"seed {seed}"
    for number in range(4):
        state = town.slots(number).state()
        assert state.highest == 4
        town.slots(number).prove(state.active)


@pytest.mark.long
def test_sixty_vehicles_in_one_process(tmp_path: Path, keyring: KeyRing) -> None:
    town = Town(tmp_path, keyring, vehicles=30, size=150_000)
    with town.gateway(), town.driving():
        town.settled(CampaignState.COMPLETED, 120)
    assert town.states() == {S.COMMITTED: 60}
