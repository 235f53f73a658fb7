"""The director: files signed by workers, read by python-tuf and by the vehicle; roots, versions, agreement."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.bundle import BundleKind, BundleTarget
from nwmctl.domain.digest import Digest
from nwmctl.domain.keys import KeyRole
from nwmctl.errors import (
    ForeignEcuError,
    HardwareDisagreesError,
    HashDisagreesError,
    KeyPassphraseError,
    LengthDisagreesError,
    MetadataExpiredError,
    MetadataFormatError,
    MetadataRollbackError,
    MetadataSignatureError,
    NotDirectedError,
    NwmError,
    SequenceDisagreesError,
)
from nwmctl.formats.uptane import Dialect, Directed, Direction, DirectorRoot, UseSlot, ecu_identifiers, expiry_text
from nwmctl.trust.director import DirectorKeys, DirectorPool, DirectorSigner, Order
from nwmctl.trust.director_root import is_current, next_root
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.metadata import ListedBundle, next_version
from nwmctl.trust.uptane_client import DirectorState, VerifiedDirector, agree, refresh_director
from tests.fakes import FakeClock
from tests.formats import uptane_samples as samples

CLOCK = FakeClock()
NOW = CLOCK.now_us()
DAY = 86_400_000_000
ECUS = ecu_identifiers(samples.ECUS)
HARDWARE = {ecu.serial: ecu.hardware for ecu in samples.ECUS}
ROLES = [KeyRole.DIRECTOR_ROOT, KeyRole.DIRECTOR]


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return init_keys(tmp_path_factory.mktemp("keys") / "ring", CLOCK, ROLES, development=True)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return init_keys(tmp_path_factory.mktemp("keys") / "ring", CLOCK, ROLES, development=True)


@pytest.fixture(scope="module")
def root(ring: KeyRing) -> DirectorRoot:
    return next_root(ring, None, NOW)


@pytest.fixture(scope="module")
def signer(ring: KeyRing) -> DirectorSigner:
    return DirectorKeys(ring.folder).open()


def signed(
    signer: DirectorSigner, version: int, direction: Direction = samples.BUNDLE, at_us: int = NOW + DAY
) -> bytes:
    return signer.sign(Order(Dialect.TUF, ECUS, direction, version), expiry_text(at_us)).encode()


def ask(state: DirectorState, targets: bytes | None, *roots: DirectorRoot, now_us: int = NOW) -> VerifiedDirector:
    files = {f"{one.version}.root.json": one.tuf for one in roots} | ({"targets.json": targets} if targets else {})
    return refresh_director(state, files.get, now_us)


def listed(**changes: object) -> ListedBundle:
    about = BundleTarget("nwm-2.5", BundleKind.RELEASE, 12, "nt2.0", "orin-x4", ("B1", "C0"), True)
    bundle = samples.BUNDLE
    made = ListedBundle(bundle.name, bundle.length, Digest(bundle.sha256), about)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_vehicle_verifies_what_the_director_signed(root: DirectorRoot, signer: DirectorSigner) -> None:
    found = ask(DirectorState(root.tuf), signed(signer, 7))
    directed = found.resolve(samples.BUNDLE.name)
    assert (directed.length, directed.sequence, directed.hardware) == (samples.BUNDLE.length, 12, HARDWARE)
    assert (found.version, found.root_version, found.use_slot) == (7, 1, None)
    assert agree(directed, listed(), HARDWARE) == listed()
    assert DirectorState.from_bytes(found.state.to_bytes()) == found.state
    assert ask(found.state, signed(signer, 8, UseSlot(11))).use_slot == 11
    with pytest.raises(NotDirectedError):
        ask(found.state, signed(signer, 8, None)).resolve(samples.BUNDLE.name)


def test_a_directors_file_is_about_a_kilobyte(signer: DirectorSigner) -> None:
    assert 500 < len(signed(signer, 29_000_000)) < 1200


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda data: data.replace(b'"length":123456789', b'"length":123456788'), MetadataSignatureError),
        (lambda data: data.replace(b'"version":7', b'"version":9'), MetadataSignatureError),
        (lambda data: data[:-5], MetadataFormatError),
        (lambda data: data + b" " * 70_000, MetadataFormatError),
        (lambda data: None, MetadataFormatError),
    ],
)
def test_damaged_director_files_are_refused(
    root: DirectorRoot, signer: DirectorSigner, change: Callable[[bytes], bytes | None], refusal: type[NwmError]
) -> None:
    with pytest.raises(refusal):
        ask(DirectorState(root.tuf), change(signed(signer, 7)))


def test_old_expired_and_foreign_files_are_refused(root: DirectorRoot, signer: DirectorSigner, other: KeyRing) -> None:
    state = ask(DirectorState(root.tuf), signed(signer, 7)).state
    with pytest.raises(MetadataRollbackError):
        ask(state, signed(signer, 6))
    with pytest.raises(MetadataExpiredError):
        ask(state, signed(signer, 8), now_us=NOW + 2 * DAY)
    with pytest.raises(MetadataSignatureError):
        ask(state, signed(DirectorKeys(other.folder).open(), 8))
    with pytest.raises(MetadataFormatError):
        ask(state, root.tuf)


def test_a_stolen_director_key_ends_at_the_image_repository() -> None:
    directed = samples.BUNDLE
    file = ask_directed(directed)
    cases: list[tuple[object, ListedBundle, dict[str, str], type[NwmError]]] = [
        (file, listed(length=1), HARDWARE, LengthDisagreesError),
        (file, listed(digest=Digest("ef" * 32)), HARDWARE, HashDisagreesError),
        (file, listed(), {}, ForeignEcuError),
        (file, listed(), dict.fromkeys(HARDWARE, "orin-x4:A0"), HardwareDisagreesError),
        (dataclasses.replace(file, hardware={}), listed(), HARDWARE, ForeignEcuError),
        (dataclasses.replace(file, sequence=13), listed(), HARDWARE, SequenceDisagreesError),
        (file, listed(about=dataclasses.replace(listed().about, revisions=("C0",))), HARDWARE, HardwareDisagreesError),
    ]
    for one, image, own, refusal in cases:
        with pytest.raises(refusal):
            agree(one, image, own)  # type: ignore[arg-type]


def ask_directed(bundle: Directed):  # type: ignore[no-untyped-def]
    from nwmctl.trust.uptane_client import DirectedFile

    return DirectedFile(bundle.name, bundle.length, Digest(bundle.sha256), HARDWARE, bundle.sequence)


def test_a_next_root_is_followed_and_needs_the_old_keys(
    ring: KeyRing, other: KeyRing, root: DirectorRoot, signer: DirectorSigner
) -> None:
    second = next_root(ring, root, NOW)
    assert second.version == 2
    assert ask(DirectorState(root.tuf), signed(signer, 7), second).root_version == 2
    with pytest.raises(NwmError):
        next_root(other, root, NOW)
    assert is_current(root, ring)
    assert not is_current(root, other)


def test_the_reference_root_says_the_same(root: DirectorRoot) -> None:
    old, new = json.loads(root.reference), json.loads(root.tuf)
    assert old["signed"]["_type"] == "Root"
    assert set(old["signed"]["roles"]) == {"root", "targets"}
    assert old["signed"]["expires"] == new["signed"]["expires"]
    publics = {key["keyval"]["public"] for key in old["signed"]["keys"].values()}
    assert publics == {key["keyval"]["public"] for key in new["signed"]["keys"].values()}


def test_workers_sign_in_order_what_one_signer_signs(ring: KeyRing, signer: DirectorSigner) -> None:
    orders = [Order(dialect, ECUS, samples.BUNDLE, number) for number in range(1, 40) for dialect in Dialect]
    chunks = [(start, orders[start : start + 7]) for start in range(0, len(orders), 7)]
    with DirectorPool(DirectorKeys(ring.folder), 2) as pool:
        found = list(pool.sign(iter(chunks), NOW + DAY))
    assert [start for start, _ in found] == [start for start, _ in chunks]
    assert [file for _, files in found for file in files] == [
        signer.sign(one, expiry_text(NOW + DAY)) for one in orders
    ]


def test_a_wrong_passphrase_is_refused_before_any_worker_starts(tmp_path: Path) -> None:
    made = init_keys(tmp_path / "ring", CLOCK, ROLES, development=False, passphrase=b"right")
    with pytest.raises(KeyPassphraseError):
        DirectorPool(DirectorKeys(made.folder, b"wrong"), 1)
    assert "right" not in repr(DirectorKeys(made.folder, b"right"))


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_the_next_version_exceeds_everything_that_was_seen(own: int, reported: int) -> None:
    assert next_version(own, reported) > max(own, reported)
