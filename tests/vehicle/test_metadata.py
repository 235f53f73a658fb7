"""Looking an order up in the repository's metadata, over HTTP, with real keys and every way to be lied to."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.bundle import BundleKind, BundleTarget
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.requires import Requires, RuntimeRequirement, VersionRange
from nwmctl.errors import (
    BundleContentsError,
    BundleNotListedError,
    GatewayUnreachableError,
    MetadataExpiredError,
    MetadataFormatError,
    MetadataRollbackError,
    MetadataSignatureError,
    MetadataTooLongError,
    NwmError,
    RequirementLackingError,
    SequenceTooLowError,
    WrongHardwareError,
    WrongPlatformError,
)
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import TIMESTAMP_PATH, ListedBundle
from nwmctl.trust.repository import Publication, add_targets, create_repository
from nwmctl.vehicle.client import SignedFile
from nwmctl.vehicle.delivery import deliver
from nwmctl.vehicle.faults import Trouble
from nwmctl.vehicle.machine import Machine, Senses
from nwmctl.vehicle.metadata import Repository
from nwmctl.vehicle.order import BundleOrder
from nwmctl.vehicle.record import PinnedTrust
from tests.vehicle.bundles import RECORD
from tests.vehicle.conftest import TestClock

BYTES = b"the bundle"
ABOUT = BundleTarget("nwm-2.5", BundleKind.RELEASE, 4, "nt2.0", "nt2-board", ("r1", "r2"), True)
LISTED = ListedBundle("b.swu", len(BYTES), digest_bytes(BYTES), ABOUT)
ORDER = BundleOrder(7, 4, "b.swu", "http://unused/", LISTED.digest.hex, LISTED.length)
DAY_US = 86_400_000_000


class LaterClock(TestClock):
    """The same clock, ``ahead_us`` later."""

    def __init__(self, ahead_us: int) -> None:
        self.ahead_us = ahead_us

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    root = tmp_path / "repository"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write(root: Path, publication: Publication) -> None:
    for name, data in {**publication.files, publication.timestamp_path: publication.timestamp}.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(data)


@pytest.fixture(scope="session")
def publications(keyring: KeyRing, clock: TestClock) -> tuple[Publication, Publication]:
    first = create_repository(keyring, clock)
    return first, add_targets(first.state, [LISTED], keyring, clock)


Find = Callable[..., SignedFile]


@pytest.fixture
def find(
    tmp_path: Path,
    served: tuple[Path, str],
    keyring: KeyRing,
    clock: TestClock,
    publications: tuple[Publication, Publication],
) -> Find:
    root, url = served
    write(root, publications[1])
    trust = PinnedTrust(publications[0].state.roots[0], keyring.ca_pem())
    deliver(tmp_path / RECORD.vin, RECORD, trust, None, clock)

    def call(order: BundleOrder = ORDER, ahead_us: int = 0, **changes: object) -> SignedFile:
        machine = Machine(tmp_path / RECORD.vin, Senses(clock), Trouble())
        machine.record = replace(machine.record, **changes)  # type: ignore[arg-type]
        return Repository(url, url, LaterClock(ahead_us)).find(machine, order)

    return call


def test_found_and_kept(find: Find, tmp_path: Path) -> None:
    assert find() == SignedFile(LISTED.digest, LISTED.length)
    kept = (tmp_path / RECORD.vin / "metadata.json").read_bytes()
    assert find() == SignedFile(LISTED.digest, LISTED.length)
    assert (tmp_path / RECORD.vin / "metadata.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"platform": "nt3.0"}, WrongPlatformError),
        ({"board": "nt3-board"}, WrongHardwareError),
        ({"revision": "r9"}, WrongHardwareError),
    ],
)
def test_a_bundle_that_is_not_for_this_vehicle(find: Find, changes: dict[str, str], kind: type[NwmError]) -> None:
    with pytest.raises(kind):
        find(**changes)


def test_a_bundle_whose_requirements_the_vehicle_does_not_meet_is_refused_before_a_byte_of_it_is_fetched(
    find: Find, served: tuple[Path, str], publications: tuple[Publication, Publication], keyring: KeyRing,
    clock: TestClock, tmp_path: Path,
) -> None:  # fmt: skip
    wanted = Requires((RuntimeRequirement("iree", VersionRange("3.12", "3.13"), ("quad",)),), {}, 1)
    asking = replace(LISTED, about=replace(ABOUT, requires=wanted))
    write(served[0], add_targets(publications[0].state, [asking], keyring, clock))
    with pytest.raises(RequirementLackingError) as refused:
        find()
    assert refused.value.why == "needs runtime iree 3.12 to 3.13, has reported none"
    # The bundle itself does not even exist on this mirror.
    assert not list(served[0].glob("targets/*"))
    assert not (tmp_path / RECORD.vin / "download").exists()
    with pytest.raises(RequirementLackingError):
        find(runtimes={"iree": "3.11"})
    with pytest.raises(RequirementLackingError, match="lacks"):
        find(runtimes={"iree": "3.12"}, chassis_interfaces=(2,))
    assert find(runtimes={"iree": "3.12.4"}) == SignedFile(LISTED.digest, LISTED.length)


def test_a_sequence_below_the_highest(find: Find, tmp_path: Path) -> None:
    boot = tmp_path / RECORD.vin / "boot.json"
    boot.write_bytes(boot.read_bytes().replace(b'"highest":3', b'"highest":5'))
    with pytest.raises(SequenceTooLowError):
        find()


def test_a_name_that_is_not_listed(find: Find) -> None:
    with pytest.raises(BundleNotListedError):
        find(replace(ORDER, tuf_name="other.swu"))


@pytest.mark.parametrize("lie", [{"sha256": "0" * 64}, {"size": 11}])
def test_a_gateway_that_offers_another_file(find: Find, lie: dict[str, str]) -> None:
    with pytest.raises(BundleContentsError, match="offers another file"):
        find(replace(ORDER, **lie))  # type: ignore[arg-type]


def test_a_tampered_timestamp(find: Find, served: tuple[Path, str], tmp_path: Path) -> None:
    path = served[0] / TIMESTAMP_PATH
    table = json.loads(path.read_bytes())
    table["signed"]["version"] += 1
    path.write_bytes(json.dumps(table).encode())
    with pytest.raises(MetadataSignatureError):
        find()
    assert not (tmp_path / RECORD.vin / "metadata.json").exists()


def test_an_older_timestamp(
    find: Find, served: tuple[Path, str], publications: tuple[Publication, Publication]
) -> None:
    find()
    (served[0] / TIMESTAMP_PATH).write_bytes(publications[0].timestamp)
    with pytest.raises(MetadataRollbackError):
        find()


def test_metadata_that_nobody_renewed(find: Find) -> None:
    with pytest.raises(MetadataExpiredError):
        find(ahead_us=40 * DAY_US)


def test_keys_of_a_stranger(
    find: Find, served: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, clock: TestClock
) -> None:
    from nwmctl.trust.keys import KeyRole, init_keys

    other = init_keys(
        tmp_path_factory.mktemp("k") / "r",
        clock,
        [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP],
        development=True,
    )
    write(served[0], add_targets(create_repository(other, clock).state, [LISTED], other, clock))
    with pytest.raises(MetadataSignatureError):
        find()


def test_a_file_without_end(find: Find, served: tuple[Path, str]) -> None:
    (served[0] / TIMESTAMP_PATH).write_bytes(b" " * 20_000)
    with pytest.raises(MetadataTooLongError):
        find()


def test_no_repository(find: Find, served: tuple[Path, str]) -> None:
    (served[0] / TIMESTAMP_PATH).unlink()
    with pytest.raises(MetadataFormatError):
        find()


def test_no_server(tmp_path: Path, keyring: KeyRing, clock: TestClock) -> None:
    deliver(tmp_path / "v", RECORD, PinnedTrust(b"{}", keyring.ca_pem()), None, clock)
    machine = Machine(tmp_path / "v", Senses(clock), Trouble())
    (tmp_path / "v" / "metadata.json").unlink(missing_ok=True)
    with pytest.raises(NwmError) as caught:
        Repository("http://127.0.0.1:9", "http://127.0.0.1:9", clock).find(machine, ORDER)
    assert isinstance(caught.value, GatewayUnreachableError | MetadataFormatError)
