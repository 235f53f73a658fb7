"""The real client: Debian's swupdate as a vehicle. It polls, downloads 20 MB, installs, reports, and is left alone.

Verdicts come from its log and from the facts in the database: its exit code and its memory are not to be relied on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.fleet import AssignmentState
from nwmctl.domain.release import Release
from nwmctl.fleet.campaigns import abort, create_campaign, rollback, start
from nwmctl.fleet.inventory import import_inventory
from nwmctl.fleet.releases import EnabledBundle, enable_release
from nwmctl.fleet.schema import MIGRATIONS
from nwmctl.fleet.status import StoryLine, story
from nwmctl.formats import cpio, swu
from nwmctl.storage.database import Database
from nwmctl.storage.sqlite import open_sqlite
from nwmctl.trust.cms import sign_cms
from nwmctl.trust.keys import KeyRing
from tests.fleet import house
from tests.gateway.process import Process, gateway
from tests.real import require_program
from tests.trust.conftest import keyring

__all__ = ["keyring"]

VIN = "REALCLIENT0000001"
NAME = "test-10"
SIZE = 20_000_000
Client = Callable[..., contextlib.AbstractContextManager["Stock"]]


class Stock:
    """A running swupdate in suricatta mode."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen, self._log = popen, log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")


def wait_for(what: Callable[[], bool], explain: Callable[[], str], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)


@pytest.fixture
def client(keyring: KeyRing, tmp_path: Path) -> Client:
    program = require_program("swupdate", "swupdate")
    runs = iter(range(100))

    @contextlib.contextmanager
    def run(url: str, *more: str) -> Iterator[Stock]:
        number = next(runs)
        scratch, log = tmp_path / f"tmp{number}", tmp_path / f"swupdate{number}.log"
        scratch.mkdir()
        keys = ["-k", str(keyring.folder / "release-ca.crt"), "--cert-purpose", "codeSigning"]
        ask = " ".join(["-t default", f"-u {url}", f"-i {VIN}", f"-k {house.token(VIN)}", "-p 1", *more])
        with log.open("wb") as file:
            popen = subprocess.Popen(
                [program, "-l", "5", *keys, "-e", "r1,copy2", "-H", "p1:r1", "-u", ask],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(scratch)},
                cwd=tmp_path,
                start_new_session=True,
            )
        try:
            yield Stock(popen, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()

    return run


def build(folder: Path, mirror: Path, ring: KeyRing, made: Release, kind: BundleKind, size: int) -> EnabledBundle:
    """A signed bundle with one file of ``size`` bytes that do not compress, on the mirror."""
    sequence = made.sequence if kind is BundleKind.RELEASE else made.return_sequence
    payload = random.Random(sequence).randbytes(size)
    description = swu.render_description(
        swu.SwDescription(
            release=made.name,
            sequence=sequence,
            board="p1",
            revisions=("r1",),
            slot_a=str(folder / "car" / "a"),
            slot_b=str(folder / "car" / "b"),
            files=(swu.InstalledFile("weights.bin", digest_bytes(payload)),),
        )
    )
    parts = {
        swu.DESCRIPTION_NAME: description,
        swu.SIGNATURE_NAME: sign_cms(description, ring),
        "weights.bin": payload,
    }
    data = b"".join(cpio.pack(cpio.Member(name, len(part), [part]) for name, part in parts.items()))
    digest = hashlib.sha256(data).hexdigest()
    filename = f"{made.name}-{sequence}.swu"
    path = f"targets/{digest}.{filename}"
    (mirror / "targets").mkdir(parents=True, exist_ok=True)
    (mirror / path).write_bytes(data)
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return EnabledBundle(kind, "nt2.0", sequence, "1", filename, path, filename, sha1, digest, len(data), True)


@pytest.fixture
def campaign(tmp_path: Path, keyring: KeyRing) -> Iterator[Database]:
    """One vehicle, one release with its way back, a campaign that runs."""
    made = dataclasses.replace(house.release(), platforms=("nt2.0",), waves=(house.WAVES[1],), max_attempts=2, poll_s=1)
    with open_sqlite(tmp_path / "fleet.db") as database:
        database.migrate(MIGRATIONS)
        inventory = house.write_inventory(tmp_path / "fleet.csv", [(VIN, "et7", "Banyan")])
        import_inventory(
            database, inventory, house.catalogue(), fleet="test", virtual=True, now_us=house.T0, token_for=house.token
        )
        bundles = [
            build(tmp_path, tmp_path / "mirror", keyring, made, BundleKind.RELEASE, SIZE),
            build(tmp_path, tmp_path / "mirror", keyring, made, BundleKind.RETURN, 100_000),
        ]
        enable_release(database, made, house.CONTENT, bundles, house.T0)
        create_campaign(database, made, house.T0)
        start(database, NAME, house.T0)
        yield database


def reports(database: Database) -> list[StoryLine]:
    return [line for line in story(database, VIN) if line.what == "report"]


def install_and_restart(process: Process, client: Client, database: Database, generation: int = 1) -> str:
    """Let it install, then start it again as after a reboot; gives the second log once the action is closed."""
    with client(process.url) as stock:
        wait_for(lambda: "SWUPDATE successful" in stock.log, lambda: stock.log)
        wait_for(lambda: len(reports(database)) > 0, lambda: stock.log)
    with client(process.url, "-c 2") as stock:
        wait_for(
            lambda: house.state_of(database, VIN, generation) is AssignmentState.COMMITTED,
            lambda: stock.log + repr(reports(database)),
        )
        time.sleep(3.5)  # several polls: it must be left alone now
        return stock.log


def test_it_installs_reports_and_is_left_alone_then_comes_back_by_bundle(
    client: Client, campaign: Database, tmp_path: Path
) -> None:
    with gateway(tmp_path, tmp_path / "fleet.db") as process:
        log = install_and_restart(process, client, campaign)
        assert "SWUPDATE successful" not in log, log
        assert (
            hashlib.sha256((tmp_path / "car" / "b" / "weights.bin").read_bytes()).hexdigest()
            == hashlib.sha256(random.Random(10).randbytes(SIZE)).hexdigest()
        )
        assert campaign.reader.all("SELECT state, attempt FROM action") == [("closed", 1)]
        last = reports(campaign)[-1]
        assert (last.data["heard"], last.data["late"]) == ("success", False)
        assert any("Update Installed." in detail for detail in last.details), last
        wait_for(
            lambda: campaign.reader.one("SELECT state FROM campaign") == ("completed",), lambda: "not completed", 5
        )
        # A stock client says nothing about slots, so its way back is the return bundle.
        back = rollback(campaign, NAME, "a person asked", house.T0)
        assert (back.by_slot, back.by_bundle) == (0, 1)
        log = install_and_restart(process, client, campaign, generation=2)
        assert "SWUPDATE successful" not in log, log
        assert campaign.reader.one("SELECT sequence FROM vehicle") == (11,)


@pytest.mark.long
def test_a_tampered_bundle_is_reported_with_its_cause_and_not_for_ever(
    client: Client, campaign: Database, tmp_path: Path
) -> None:
    bundle = next((tmp_path / "mirror" / "targets").glob("*-10.swu"))
    data = bytearray(bundle.read_bytes())
    data[SIZE // 2] ^= 1
    bundle.write_bytes(data)
    with gateway(tmp_path, tmp_path / "fleet.db") as process, client(process.url) as stock:
        wait_for(
            lambda: house.state_of(campaign, VIN) is AssignmentState.FAILED,
            lambda: stock.log + repr(reports(campaign)),
        )
        attempts = campaign.reader.all("SELECT attempt, state FROM action ORDER BY id")
        assert attempts == [(1, "closed"), (2, "closed")]
        details = [detail for line in reports(campaign) for detail in line.details]
        assert any("HASH mismatch" in detail or "hash" in detail.lower() for detail in details), details
        seen = len(reports(campaign))
        time.sleep(3)
        assert len(reports(campaign)) == seen
        assert not (tmp_path / "car" / "b" / "weights.bin").exists()


@pytest.mark.long
def test_it_stops_when_the_campaign_is_aborted(client: Client, campaign: Database, tmp_path: Path) -> None:
    with gateway(tmp_path, tmp_path / "fleet.db") as process:
        with client(process.url, "-n 300k") as stock:
            wait_for(lambda: campaign.reader.one("SELECT count(*) FROM action") == (1,), lambda: stock.log)
            time.sleep(1)
            abort(campaign, NAME, "a person asked", house.T0)
            wait_for(
                lambda: house.state_of(campaign, VIN) is AssignmentState.CANCELLED,
                lambda: stock.log + repr(reports(campaign)),
            )
            assert "SWUPDATE successful" not in stock.log


@pytest.mark.long
def test_a_slow_download_is_one_run_however_often_it_asks(client: Client, campaign: Database, tmp_path: Path) -> None:
    with gateway(tmp_path, tmp_path / "fleet.db") as process, client(process.url, "-n 1M") as stock:
        wait_for(lambda: "SWUPDATE successful" in stock.log, lambda: stock.log, 90)
        asked = stock.log.count("Update action available at")
        assert asked >= 8, "it asks for the action at every poll while it downloads"
        assert len(reports(campaign)) >= 3
        assert campaign.reader.one("SELECT restarts, state FROM action") == (0, "open")
        assert house.state_of(campaign, VIN) is AssignmentState.DOWNLOADING


@pytest.mark.long
def test_a_client_that_loses_power_in_every_run_is_stopped(client: Client, campaign: Database, tmp_path: Path) -> None:
    def begun() -> int:
        return sum(detail.startswith("Installing Update") for line in reports(campaign) for detail in line.details)

    with gateway(tmp_path, tmp_path / "fleet.db") as process:
        for run in range(1, 4):
            with client(process.url, "-n 1M") as stock:
                wait_for(lambda run=run: begun() == run, lambda stock=stock: stock.log)  # type: ignore[misc]
                time.sleep(3)  # several polls, several log lines
            assert campaign.reader.one("SELECT restarts FROM action") == (run - 1,)
            assert house.state_of(campaign, VIN) is AssignmentState.DOWNLOADING
        with client(process.url, "-n 1M") as stock:
            wait_for(lambda: house.state_of(campaign, VIN) is AssignmentState.FAILED, lambda: stock.log)
            wait_for(lambda: campaign.reader.one("SELECT state FROM action") == ("closed",), lambda: stock.log)
            time.sleep(3)
            assert "SWUPDATE successful" not in stock.log
        assert not (tmp_path / "car" / "b" / "weights.bin").exists()
