"""Mutants of director metadata and of vehicle reports: none is believed, none crashes."""

from __future__ import annotations

import itertools

import pytest

from nwmctl.domain.keys import KeyRole
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
from tests.mutants import Hunting, json_mutants, mutants

NOW = FakeClock().now_us()
ECUS = {ecu.serial: ecu for ecu in samples.ECUS}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[DirectorState, bytes]:
    folder = tmp_path_factory.mktemp("keys") / "ring"
    ring = init_keys(folder, FakeClock(), [KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR], development=True)
    order = Order(Dialect.TUF, ecu_identifiers(samples.ECUS), samples.BUNDLE, 7)
    expires = expiry_text(NOW + 86_400_000_000)
    body = DirectorKeys(ring.folder).open().sign(order, expires).encode()
    return DirectorState(next_root(ring, None, NOW).tuf), body


def believe(state: DirectorState, body: bytes) -> object:
    files = refresh_director(state, lambda path: body if path == "targets.json" else None, NOW)
    return files.version, files.use_slot, dict(files.files)


def fuzz_metadata(served: tuple[DirectorState, bytes], hunting: Hunting, count: int) -> None:
    """What is not signed may change (white space, the order of keys): then it says the same."""
    state, body = served
    meant = believe(state, body)
    with hunting("director's metadata") as hunt:
        made = itertools.chain(mutants(body, hunt.seed, count // 2), json_mutants(body, hunt.seed, count // 2))
        for way, bad in made:
            hunt.show(way, lambda bad=bad: believe(state, bad), meant)


def fuzz_reports(hunting: Hunting, count: int) -> None:
    for dialect in Dialect:
        body = (GOLDEN / f"{dialect}-report.json").read_bytes()
        meant = _content(decode_report(body))
        with hunting(f"reports in the dialect '{dialect}'") as hunt:
            made = itertools.chain(mutants(body, hunt.seed, count // 2), json_mutants(body, hunt.seed, count // 2))
            for way, bad in made:
                hunt.show(way, lambda bad=bad: told(bad), meant)


def told(body: bytes) -> object:
    """What a verified report says."""
    report = decode_report(body)
    verify_report(report, ECUS, samples.ECUS[0].serial, {})
    return _content(report)


def _content(report: VehicleReport) -> object:
    said = [(one.serial, one.counter, one.installed, one.attacks) for one in report.ecus]
    return report.primary, said, dict(report.director), dict(report.image)


def fuzz_root(served: tuple[DirectorState, bytes], hunting: Hunting, count: int) -> None:
    """A pinned root that was damaged on the vehicle's disk: the vehicle believes nothing else for it."""
    state, body = served
    meant = believe(state, body)
    with hunting("director's root") as hunt:
        for way, bad in mutants(state.root, hunt.seed, count):
            hunt.show(way, lambda bad=bad: believe(DirectorState(bad), body), meant)


def test_a_sample_of_mutants(served: tuple[DirectorState, bytes], hunting: Hunting) -> None:
    fuzz_metadata(served, hunting, 400)
    fuzz_reports(hunting, 400)
    fuzz_root(served, hunting, 200)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_thirty_thousand_mutants(served: tuple[DirectorState, bytes], hunting: Hunting) -> None:
    fuzz_metadata(served, hunting, 12_000)
    fuzz_reports(hunting, 7_000)
    fuzz_root(served, hunting, 4_000)
