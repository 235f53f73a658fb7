"""Packed payloads: what comes out is what went in, the same inputs give the same bytes, and each byte is read once."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.bundling import outlet as outlet_module
from nwmctl.bundling import pack as pack_module
from nwmctl.bundling.bundle import plan_bundle
from nwmctl.bundling.flow import CHUNK, flow, hashers, write_all
from nwmctl.bundling.pack import PayloadFile, pack_payload
from nwmctl.bundling.read import read_bundle
from nwmctl.bundling.settle import settle
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.packing import PART_BYTES, Compression
from nwmctl.errors import (
    BundleContentsError,
    BundleFileError,
    PackedDataError,
    PackedSizeError,
    PayloadKeyError,
    ScriptTemplateError,
)
from nwmctl.formats.cpio import MAX_FILE
from nwmctl.formats.packing import Cipher, packer, unpacked
from nwmctl.trust.payload_key import PayloadKey, create_payload_key, load_payload_key
from tests.bundling import samples
from tests.bundling.packing import JOIN, KEY, ORDERS, make, sign

_data = st.one_of(
    st.binary(max_size=3000),
    st.builds(lambda size, byte: bytes([byte]) * size, st.integers(0, 400_000), st.integers(0, 255)),
)
_ciphers = st.one_of(
    st.none(), st.builds(Cipher, st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
)


def never(description: bytes, signature: bytes) -> None:
    assert signature == sign(description)


def packed(data: bytes, compression: Compression, cipher: Cipher | None, step: int = 1000) -> bytes:
    codec = packer(compression, len(data), cipher)
    return b"".join(bytes(codec.update(data[at : at + step])) for at in range(0, len(data), step)) + codec.finish()


@settings(deadline=None, max_examples=60)
@given(
    data=_data,
    compression=st.sampled_from(Compression),
    cipher=_ciphers,
    steps=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_unpacking_gives_back_what_was_packed(
    data: bytes, compression: Compression, cipher: Cipher | None, steps: tuple[int, int]
) -> None:
    step = max(steps[0], len(data) // 50)
    body = packed(data, compression, cipher, step)
    assert body == packed(data, compression, cipher, max(steps[1], len(data) // 50)), "pieces decide nothing"
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    assert b"".join(unpacked(pieces, compression, len(data), cipher)) == data


@settings(deadline=None, max_examples=60)
@given(
    data=_data, compression=st.sampled_from(Compression), cipher=_ciphers, off=st.sampled_from([-1, 1, -100, 10_000])
)
def test_another_size_than_promised_is_refused(
    data: bytes, compression: Compression, cipher: Cipher | None, off: int
) -> None:
    promised = max(len(data) + off, 0)
    if promised == len(data):
        return
    taken: list[int] = []
    pieces = unpacked([packed(data, compression, cipher)], compression, promised, cipher)
    with pytest.raises(PackedSizeError):
        taken.extend(map(len, pieces))
    assert sum(taken) <= promised


def test_swupdates_own_tools_read_what_we_pack(tmp_path: Path) -> None:
    """The zstd and openssl programs stand for any other reader of the two formats."""
    cipher = Cipher(bytes(range(32)), bytes(range(16)))
    (tmp_path / "x").write_bytes(packed(samples.GPU, Compression.ZSTD, cipher))
    order = ["openssl", "enc", "-d", "-aes-256-cbc", "-K", cipher.key.hex(), "-iv", cipher.iv.hex(), "-in", "x"]
    opened = subprocess.run(order, cwd=tmp_path, check=True, capture_output=True).stdout
    assert subprocess.run(["zstd", "-d", "-c"], input=opened, check=True, capture_output=True).stdout == samples.GPU


@pytest.mark.parametrize("name", ORDERS)
def test_a_bundle_gives_back_its_payloads_and_is_the_same_again(tmp_path: Path, name: str) -> None:
    order = ORDERS[name]
    (tmp_path / "again").mkdir()
    one = make(tmp_path, order)
    two = make(tmp_path / "again", order)
    written = one.write(sign, tmp_path / "one.swu")
    assert written.digest == two.write(sign, tmp_path / "two.swu").digest
    assert written.digest == digest_bytes((tmp_path / "one.swu").read_bytes())
    key = order.key.secret if order.key else None
    found = read_bundle(tmp_path / "one.swu", never, key)
    assert (found.digest, found.size) == (written.digest, written.size)
    assert found.manifest == one.plan.manifest
    assert found.sealed == ()
    assert {name: found.sizes[name] for name in one.plan.payloads} == {
        name: len(samples.PAYLOADS[digest]) for name, digest in one.plan.payloads.items()
    }
    sealed = read_bundle(tmp_path / "one.swu", never).sealed
    assert set(sealed) == (set(one.plan.payloads) if key else set())
    if key:
        with pytest.raises((PackedDataError, PackedSizeError, BundleContentsError)):
            read_bundle(tmp_path / "one.swu", never, bytes(32))


def test_vectors_never_repeat_for_different_contents(tmp_path: Path) -> None:
    """Each of the four things that decide a part's bytes changes the vector, and so does the key."""
    digests = [digest_bytes(bytes([n])) for n in range(20)]
    asked = [
        (d, codec, n, size) for d in digests for codec in ("none", "zstd-1 1.5.7") for n in range(5) for size in (9, 90)
    ]
    vectors = [key.vector(*one) for key in (KEY, PayloadKey(bytes(32))) for one in asked]
    assert len(set(vectors)) == len(vectors)
    assert KEY.vector(*asked[3]) == PayloadKey(KEY.secret).vector(*asked[3])
    parts = [
        part.iv
        for name, order in ORDERS.items()
        if order.key
        for file in make(tmp_path, order).plan.description.files
        if file.packing
        for part in file.packing.parts
    ]
    assert len(set(parts)) == len(parts) > 10


def test_a_key_file_is_private_outside_the_workspace_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "car.key"
    key = create_payload_key(path)
    assert load_payload_key(f"file:{path}") == key
    assert key.name not in path.read_text()
    assert key.secret.hex() not in repr(key)
    with pytest.raises(PayloadKeyError, match="cannot be made"):
        create_payload_key(path)
    with pytest.raises(PayloadKeyError, match="lies in the workspace"):
        load_payload_key(f"file:{path}", tmp_path)
    path.chmod(0o640)
    with pytest.raises(PayloadKeyError, match="open to others"):
        load_payload_key(f"file:{path}")
    path.chmod(0o600)
    for text in ("", "00" * 32, "0" * 63 + "g " + "0" * 32, "00" * 32 + " " + "00" * 16 + "\nmore"):
        path.write_text(text)
        with pytest.raises(PayloadKeyError, match="is not a key file"):
            load_payload_key(f"file:{path}")
    for uri in ("car.key", "pkcs11:object=x", "file:", f"file:{tmp_path}/none", f"file:{tmp_path}"):
        with pytest.raises(PayloadKeyError):
            load_payload_key(uri)


def test_every_payload_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes read while packing: those of the payloads; while writing: those that the archive takes."""
    read: list[int] = []

    def counting(file: object, most: int, states: object) -> object:
        for piece in flow(file, most, states):  # type: ignore[arg-type]
            read.append(len(piece))
            yield piece

    monkeypatch.setattr(pack_module, "flow", counting)
    make(tmp_path, ORDERS["zstd in parts"])
    assert sum(read) == len(samples.GPU) + len(samples.CPU)


def test_a_changed_payload_leaves_nothing(tmp_path: Path) -> None:
    path, spool = tmp_path / "x", tmp_path / "spool"
    spool.mkdir()
    payload = PayloadFile("x", digest_bytes(samples.GPU), len(samples.GPU), path)
    for data in (samples.GPU[:-1] + b"!", samples.GPU[:-1], samples.GPU + b"!", b""):
        for order in ORDERS.values():
            if order.leaves(len(samples.GPU)):
                continue
            path.write_bytes(data)
            with pytest.raises(BundleContentsError, match="not the one that was planned"):
                pack_payload(payload, order, spool)
            assert not list(spool.iterdir())


def test_a_proven_payload_packs_to_the_same_and_another_size_is_noticed(tmp_path: Path) -> None:
    path, spool = tmp_path / "x", tmp_path / "spool"
    spool.mkdir()
    payload = PayloadFile("x", digest_bytes(samples.GPU), len(samples.GPU), path)
    for order in ORDERS.values():
        path.write_bytes(samples.GPU)
        assert pack_payload(payload, order, spool, proven=True) == pack_payload(payload, order, spool)
        if order.leaves(len(samples.GPU)):
            continue
        for left in spool.iterdir():
            left.unlink()
        for data in (samples.GPU[:-1], samples.GPU + b"!", b""):
            path.write_bytes(data)
            with pytest.raises(BundleContentsError, match="it has another size"):
                pack_payload(payload, order, spool, proven=True)
            assert not list(spool.iterdir())


@pytest.mark.parametrize("name", ["zstd", "in parts", "zstd in parts"])
def test_a_payload_that_was_wrongly_called_proven_is_noticed_by_whoever_reads(tmp_path: Path, name: str) -> None:
    """What packing leaves to the store and to staging: the description names the bytes that should have been there."""
    made = make(tmp_path, ORDERS[name])
    spoilt = samples.GPU[:-1] + bytes([samples.GPU[-1] ^ 1])
    (made.store / digest_bytes(samples.GPU).hex).write_bytes(spoilt)
    payloads = {
        file: PayloadFile(file, digest, len(samples.PAYLOADS[digest]), made.store / digest.hex)
        for file, digest in made.plan.payloads.items()
    }
    packings = {
        file: packing
        for file, payload in payloads.items()
        if (packing := pack_payload(payload, ORDERS[name], made.spool, proven=True))
    }
    inputs = samples.inputs()
    plan = settle(plan_bundle(inputs), inputs.profile, packings, JOIN)
    replace(made, plan=plan).write(sign, tmp_path / "x.swu")
    with pytest.raises(BundleContentsError, match="unpacks to"):
        read_bundle(tmp_path / "x.swu", never)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    written = 0

    def full(file: object, data: bytes) -> None:
        nonlocal written
        written += 1
        if written > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(file, data)  # type: ignore[arg-type]

    monkeypatch.setattr(outlet_module, "write_all", full)
    path, spool = tmp_path / "x", tmp_path / "spool"
    spool.mkdir()
    path.write_bytes(samples.GPU)
    payload = PayloadFile("x", digest_bytes(samples.GPU), len(samples.GPU), path)
    with pytest.raises(BundleFileError, match="cannot be packed") as caught:
        pack_payload(payload, ORDERS["zstd in parts"], spool)
    assert caught.value.why == os.strerror(errno.ENOSPC)
    assert not list(spool.iterdir())


_LITTLE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from nwmctl.bundling.pack import PackingOrder, PayloadFile, pack_payload
from nwmctl.domain.digest import Digest
from nwmctl.formats.packing import unpacked
path, spool = Path(sys.argv[1]), Path(sys.argv[2])
warm = spool.parent / "warm"
warm.write_bytes(b"0" * 3_000_000)
import hashlib
def one(path):
    with path.open("rb") as file:
        digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
    packing = pack_payload(PayloadFile("x", digest, path.stat().st_size, path), PackingOrder(), spool)
    def chunks():
        with (spool / packing.parts[0].digest.hex).open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    part = packing.parts[0]
    pieces = unpacked(chunks(), packing.compression, part.plain_size, None)
    assert sum(len(piece) for piece in pieces) == part.plain_size
one(warm)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
one(path)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_by_the_buffers(tmp_path: Path) -> None:
    """200 MB that pack to almost nothing, so that a reader which unpacks too much at once would be seen as well."""
    path, spool = tmp_path / "big", tmp_path / "spool"
    spool.mkdir()
    with path.open("wb") as file:
        file.truncate(200_000_000)
    order = [sys.executable, "-c", _LITTLE, str(path), str(spool), str(samples.ROOT)]
    done = subprocess.run(order, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 12 << 10, "KiB more than for a small file"


def test_parts_fit_into_an_archive_whatever_they_hold() -> None:
    """A frame of incompressible bytes is larger by 3 bytes per 128 KiB and its head; a cipher adds a block."""
    worst = PART_BYTES + (PART_BYTES >> 17) * 3 + 64 + 16
    assert worst <= MAX_FILE
    data = os.urandom(1 << 20)
    assert len(packed(data, Compression.ZSTD, Cipher(bytes(32), bytes(16)))) <= len(data) + (len(data) >> 17) * 3 + 80


@pytest.mark.parametrize("template", ["", "{{ nothing }}", "{{", "#!/bin/sh\ntrue\n", "#!/bin/sh\n{{ others[900] }}"])
def test_a_template_that_joins_nothing_is_refused(tmp_path: Path, template: str) -> None:
    made = make(tmp_path, ORDERS["in parts"])
    packings = {file.filename: file.packing for file in made.plan.description.files if file.packing}
    inputs = samples.inputs()
    with pytest.raises(ScriptTemplateError):
        settle(replace(made.plan, documents=made.plan.documents), inputs.profile, packings, template)


def test_the_script_joins_and_refuses_wrong_parts(tmp_path: Path) -> None:
    made = make(tmp_path, ORDERS["in parts"])
    file = next(file for file in made.plan.description.files if file.join and file.digest == digest_bytes(samples.GPU))
    assert file.packing
    assert file.join
    script = tmp_path / file.join.filename
    script.write_bytes(made.plan.documents[file.join.filename])
    assert digest_bytes(script.read_bytes()) == file.join.digest
    assert file.join.template == digest_bytes(JOIN.encode())

    def run(change: Callable[[str, bytes], bytes]) -> tuple[int, dict[str, bytes]]:
        slot = tmp_path / "slot a"
        slot.mkdir(exist_ok=True)
        for number, part in enumerate(file.packing.parts):  # type: ignore[union-attr]
            (slot / part.name).write_bytes(change(part.name, samples.GPU[number * 300 : number * 300 + 300]))
        done = subprocess.run(["sh", str(script), "postinst", str(slot)], capture_output=True, timeout=30)
        found = {path.name: path.read_bytes() for path in slot.iterdir()}
        for path in slot.iterdir():
            path.unlink()
        return done.returncode, found

    assert run(lambda name, data: data) == (0, {file.filename: samples.GPU})
    code, left = run(lambda name, data: data[::-1] if name.endswith(".001") else data)
    assert code
    assert file.filename not in left


@settings(deadline=None, max_examples=20)
@given(size=st.integers(0, 3 * CHUNK), most=st.integers(0, 3 * CHUNK))
def test_a_flow_gives_and_hashes_what_there_is(tmp_path_factory: pytest.TempPathFactory, size: int, most: int) -> None:
    data = hashlib.shake_128(str(size).encode()).digest(size)
    path = tmp_path_factory.mktemp("flow") / "x"
    path.write_bytes(data)
    with path.open("rb", buffering=0) as file, hashers(2) as new:
        states = [new(0), new(1)]
        assert b"".join(bytes(piece) for piece in flow(file, most, states)) == data[:most]
        assert {state.digest for state in states} == {digest_bytes(data[:most])}
