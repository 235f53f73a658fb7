"""Planning, writing and reading a bundle: same inputs, same bytes; holes, doubles and damage are refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwmctl.bundling.bundle import BundleInputs, plan_bundle
from nwmctl.bundling.read import VerifySignature, open_bundle, read_bundle
from nwmctl.bundling.write import write_bundle, write_parts
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.errors import (
    ArchiveError,
    BundleContentsError,
    BundleFileError,
    BundlePlanError,
    ContentSignatureError,
    NwmError,
    PayloadChangedError,
)
from nwmctl.formats.cpio import Member, pack, unpack
from nwmctl.trust.cms import sign_cms, verify_cms
from nwmctl.trust.keys import KeyRing
from tests.bundling import samples

Find = Callable[[Digest], Path]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    folder = samples.payload_folder(tmp_path / "store")
    return lambda digest: folder / digest.hex


@pytest.fixture
def verify(keyring: KeyRing) -> VerifySignature:
    return lambda text, sig: verify_cms(text, sig, keyring.ca_pem(), keyring.document.created_us)


def build(inputs: BundleInputs, keyring: KeyRing, find: Find, out: Path) -> Path:
    plan = plan_bundle(inputs)
    write_bundle(plan, sign_cms(plan.description_bytes, keyring), find, out)
    return out


def test_same_inputs_same_bytes_signature_included(keyring: KeyRing, find: Find, tmp_path: Path) -> None:
    inputs = samples.inputs()
    one = build(inputs, keyring, find, tmp_path / "one.swu")
    turned = replace(
        inputs, artifacts=inputs.artifacts[::-1], chassis=dict(sorted(inputs.chassis.items(), reverse=True))
    )
    two = build(turned, keyring, find, tmp_path / "two.swu")
    assert one.read_bytes() == two.read_bytes()
    other = build(replace(inputs, sequence=8), keyring, find, tmp_path / "three.swu")
    assert other.read_bytes() != one.read_bytes()


def test_what_was_written_is_read(keyring: KeyRing, find: Find, verify: VerifySignature, tmp_path: Path) -> None:
    plan = plan_bundle(samples.inputs())
    written = write_bundle(plan, sign_cms(plan.description_bytes, keyring), find, tmp_path / "x.swu")
    found = read_bundle(written.path, verify)
    assert (found.manifest, found.description) == (plan.manifest, plan.description)
    assert (found.digest, found.size) == (written.digest, written.size)
    assert found.size == written.path.stat().st_size
    assert found.digest == digest_bytes(written.path.read_bytes())
    assert {one.vehicle_model for one in found.chassis} == {"v1", "v2"}
    assert len(found.artifacts) == 2


def test_a_shared_payload_is_stored_once() -> None:
    plan = plan_bundle(samples.inputs())
    assert len(plan.manifest.payloads) == 3
    assert len(plan.payloads) == 2
    assert sum(name.startswith("artifact-") for name in plan.documents) == 2
    by_build = {(payload.variant, payload.build): payload for payload in plan.manifest.payloads}
    assert by_build["big", "cpu"].filename == by_build["small", "cpu"].filename
    assert plan.manifest.revisions == ("r1", "r2")


def test_a_return_bundle_is_the_old_payload_under_another_sequence(tmp_path: Path) -> None:
    release = plan_bundle(samples.inputs())
    back = plan_bundle(replace(samples.inputs(sequence=8), kind=BundleKind.RETURN))
    assert back.payloads == release.payloads
    assert back.manifest.filename != release.manifest.filename
    assert back.description_bytes != release.description_bytes


def test_the_unsigned_parts_are_what_gets_signed(tmp_path: Path) -> None:
    plan = plan_bundle(samples.inputs())
    write_parts(plan, tmp_path / "parts")
    assert (tmp_path / "parts" / "sw-description").read_bytes() == plan.description_bytes
    assert (tmp_path / "parts" / "bundle.json").read_bytes() == plan.manifest_bytes
    assert not [path for path in (tmp_path / "parts").iterdir() if path.name.startswith(".")]


def test_holes_doubles_and_strangers_are_refused() -> None:
    inputs = samples.inputs()
    stranger = replace(inputs.artifacts[0], build="npu")
    other = replace(inputs.artifacts[0].manifest, model=digest_bytes(b"other model"))
    for artifacts, said in [
        (inputs.artifacts[1:], "big/gpu is missing"),
        ((*inputs.artifacts, inputs.artifacts[0]), "two artifacts"),
        ((*inputs.artifacts, stranger), "not a build"),
        ((replace(inputs.artifacts[0], manifest=other), *inputs.artifacts[1:]), "compiled from"),
        (
            (
                replace(inputs.artifacts[0], manifest=replace(inputs.artifacts[0].manifest, format="a/b")),
                *inputs.artifacts[1:],
            ),
            "file's name",
        ),
    ]:
        with pytest.raises(BundlePlanError) as refused:
            plan_bundle(replace(inputs, artifacts=artifacts))
        assert said in refused.value.why
    with pytest.raises(BundlePlanError, match="p1"):
        plan_bundle(replace(inputs, chassis={}))
    with pytest.raises(BundlePlanError):
        plan_bundle(replace(inputs, release="two words"))


def test_a_changed_payload_leaves_no_bundle(keyring: KeyRing, find: Find, tmp_path: Path) -> None:
    out = build(samples.inputs(), keyring, find, tmp_path / "out" / "x.swu")
    before = out.read_bytes()
    victim = find(digest_bytes(samples.GPU))
    for data in (samples.GPU[:-1] + b"!", samples.GPU[:-1], b""):
        victim.write_bytes(data)
        with pytest.raises((BundleContentsError, ArchiveError)):
            build(samples.inputs(), keyring, find, out)
    victim.unlink()
    with pytest.raises(BundleFileError):
        build(samples.inputs(), keyring, find, out)
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["x.swu"]


def test_an_unwritable_place_is_a_clear_error(keyring: KeyRing, find: Find, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleFileError):
        build(samples.inputs(), keyring, find, tmp_path / "file" / "x.swu")


def rebuilt(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> bytes:
    with path.open("rb") as stream:
        files = {entry.name: b"".join(entry.chunks()) for entry in unpack(stream.read)}
    return b"".join(pack(Member(name, len(data), [data]) for name, data in change(files).items()))


DAMAGES = ["payload", "manifest", "chassis", "missing", "extra", "order", "description", "signature", "no signature"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused(keyring: KeyRing, find: Find, verify: VerifySignature, tmp_path: Path, damage: str) -> None:
    path = build(samples.inputs(), keyring, find, tmp_path / "x.swu")

    def change(files: dict[str, bytes]) -> dict[str, bytes]:
        first = {"payload": "payload-", "manifest": "bundle", "chassis": "chassis-"}
        match damage:
            case "payload" | "manifest" | "chassis":
                name = next(name for name in files if name.startswith(first[damage]))
                return {**files, name: files[name][:-1] + b" "}
            case "missing":
                return {name: data for name, data in files.items() if name != "chassis-v1.json"}
            case "extra":
                return {**files, "extra": b"x"}
            case "order":
                return dict(reversed(files.items()))
            case "description":
                return {**files, "sw-description": files["sw-description"].replace(b"nwm-2.5", b"nwm-2.6")}
            case "signature":
                return {**files, "sw-description.sig": b""}
            case _:
                return {name: data for name, data in files.items() if name != "sw-description.sig"}

    path.write_bytes(rebuilt(path, change))
    expected = ContentSignatureError if damage == "description" else NwmError
    with pytest.raises(expected):
        read_bundle(path, verify)


def test_the_stream_gives_nothing_before_the_signature(keyring: KeyRing, find: Find, tmp_path: Path) -> None:
    path = build(samples.inputs(), keyring, find, tmp_path / "x.swu")

    def never(text: bytes, signature: bytes) -> None:
        raise ContentSignatureError("no", why="no", next="no")

    with path.open("rb") as stream, pytest.raises(ContentSignatureError):
        open_bundle(stream.read, never)


def test_the_stream_notices_a_wrong_file_that_nobody_read(
    keyring: KeyRing, find: Find, verify: VerifySignature, tmp_path: Path
) -> None:
    path = build(samples.inputs(), keyring, find, tmp_path / "x.swu")
    data = path.read_bytes().replace(samples.CPU, samples.CPU[:-1] + b"!")
    opened = open_bundle(io.BytesIO(data).read, verify)
    with pytest.raises(PayloadChangedError, match="is not the file that was signed"):
        for _ in opened.files:
            pass


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    cut=st.one_of(st.none(), st.floats(0, 1, exclude_max=True)),
)
def test_mutated_bundles_raise_only_our_errors(
    keyring: KeyRing,
    find: Find,
    verify: VerifySignature,
    tmp_path: Path,
    changes: list[tuple[float, int]],
    cut: float | None,
) -> None:
    good = tmp_path / "good.swu"
    if not good.exists():
        build(samples.inputs(), keyring, find, good)
    data = bytearray(good.read_bytes())
    for position, value in changes:
        data[int(position * len(data))] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    path = tmp_path / "mutated.swu"
    path.write_bytes(bytes(data))
    try:
        found = read_bundle(path, verify)
    except NwmError:
        return
    assert found.manifest == plan_bundle(samples.inputs()).manifest
