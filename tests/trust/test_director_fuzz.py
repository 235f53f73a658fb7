"""Mutants of director metadata and of vehicle reports: none is believed, none crashes."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Iterator

import pytest

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import DdiFormatError, NwmError, VerificationError
from nwmctl.formats.uptane import Dialect, ecu_identifiers, expiry_text
from nwmctl.formats.uptane_reports import VehicleReport, decode_report
from nwmctl.trust.director import DirectorKeys, Order
from nwmctl.trust.director_root import next_root
from nwmctl.trust.keys import init_keys
from nwmctl.trust.uptane_client import DirectorState, refresh_director
from nwmctl.trust.vehicle_report import verify_report
from tests.fakes import FakeClock
from tests.formats import uptane_samples as samples
from tests.formats.test_uptane import GOLDEN

NOW = FakeClock().now_us()
ECUS = {ecu.serial: ecu for ecu in samples.ECUS}


def mutants(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Bits turned, pieces cut, doubled, exchanged; never ``data`` itself."""
    chance = random.Random(seed)
    for _ in range(count):
        made = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            start = chance.randrange(len(made))
            end = min(len(made), start + chance.randint(1, 40))
            match chance.randrange(5):
                case 0:
                    made[start] ^= 1 << chance.randrange(8)
                case 1:
                    del made[start:end]
                case 2:
                    made[start:start] = made[start:end]
                case 3:
                    other = chance.randrange(len(made))
                    made[start], made[other] = made[other], made[start]
                case _:
                    made = made[: max(1, start)]
        if bytes(made) != data:
            yield bytes(made)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[DirectorState, bytes]:
    folder = tmp_path_factory.mktemp("keys") / "ring"
    ring = init_keys(folder, FakeClock(), [KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR], development=True)
    order = Order(Dialect.TUF, ecu_identifiers(samples.ECUS), samples.BUNDLE, 7)
    expires = expiry_text(NOW + 86_400_000_000)
    body = DirectorKeys(ring.folder).open().sign(order, expires).encode()
    return DirectorState(next_root(ring, None, NOW).tuf), body


@pytest.fixture
def fresh_seed() -> int:
    """Another one each time; pytest prints it where a test fails."""
    seed = int(os.environ.get("NWMCTL_FUZZ_SEED") or secrets.randbelow(1_000_000))
    print(f"seed {seed} (set NWMCTL_FUZZ_SEED to repeat)")  # noqa: T201
    return seed


def believe(state: DirectorState, body: bytes) -> object:
    files = refresh_director(state, lambda path: body if path == "targets.json" else None, NOW)
    return files.version, files.use_slot, dict(files.files)


def fuzz_metadata(served: tuple[DirectorState, bytes], count: int, seed: int) -> None:
    state, body = served
    meant = believe(state, body)
    for mutant in mutants(body, count, seed):
        try:
            found = believe(state, mutant)
        except VerificationError:
            continue
        # What is not signed may change (white space, the order of keys): then it says the same.
        assert found == meant, mutant


def fuzz_reports(count: int, seed: int) -> None:
    for dialect in Dialect:
        body = (GOLDEN / f"{dialect}-report.json").read_bytes()
        meant = decode_report(body)
        for mutant in mutants(body, count, seed):
            try:
                found = decode_report(mutant)
                verify_report(found, ECUS, samples.ECUS[0].serial, {})
            except (DdiFormatError, VerificationError):
                continue
            assert _content(found) == _content(meant), mutant


def _content(report: VehicleReport) -> object:
    said = [(one.serial, one.counter, one.installed, one.attacks) for one in report.ecus]
    return report.primary, said, dict(report.director), dict(report.image)


def test_a_sample_of_mutants(served: tuple[DirectorState, bytes], fresh_seed: int) -> None:
    fuzz_metadata(served, 400, fresh_seed)
    fuzz_reports(400, fresh_seed)


@pytest.mark.long
def test_many_mutants(served: tuple[DirectorState, bytes]) -> None:
    fuzz_metadata(served, 5_000, 1)
    fuzz_reports(5_000, 2)


def test_a_mutated_root_is_no_root(served: tuple[DirectorState, bytes], fresh_seed: int) -> None:
    state, body = served
    meant = believe(state, body)
    for mutant in mutants(state.root, 200, fresh_seed):
        try:
            found = believe(DirectorState(mutant), body)
        except NwmError:
            continue
        assert found == meant
