"""A bundle that brings a payload as a delta: what it says, and that the real swupdate installs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nwmctl.bundling.bundle import plan_bundle
from nwmctl.bundling.delta_bundle import DeltaFile, with_deltas
from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.bundling.read import read_bundle
from nwmctl.bundling.write import write_bundle
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.packing import Base, Compression, Packing, Part
from nwmctl.errors import BundlePlanError, ScriptTemplateError
from nwmctl.formats.scripts import APPLY_TEMPLATE_NAME
from nwmctl.formats.swu import parse_description, render_description
from nwmctl.trust.cms import sign_cms
from nwmctl.trust.keys import KeyRing
from tests.bundling import samples
from tests.bundling.test_swupdate import Run, swupdate

__all__ = ["swupdate"]

TEMPLATE = (samples.ROOT / "templates" / APPLY_TEMPLATE_NAME).read_text()
OLD = samples.GPU.replace(b"payload 7", b"payload 8") + b"what the old one had at its end"
OLD_NAME = "payload-0123456789abcdef.vmfb"


class Made:
    """The sample bundle, whose first payload comes as a delta from ``OLD``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.car = folder, folder / "car"
        self.store = samples.payload_folder(folder / "store")
        (self.store / "old").write_bytes(OLD)
        full = plan_bundle(samples.inputs(str(self.car)))
        self.file = next(name for name, digest in full.payloads.items() if samples.PAYLOADS[digest] == samples.GPU)
        report = encode_delta(self.store / "old", self.store / full.payloads[self.file].hex, self.store / "delta")
        data = (self.store / "delta").read_bytes()
        (self.store / digest_bytes(data).hex).write_bytes(data)
        self.delta = DeltaFile(Base(OLD_NAME, report.old_digest), digest_bytes(data), len(data), report.new_size)
        self.full = full
        self.plan = with_deltas(full, {self.file: self.delta}, TEMPLATE)

    def write(self, sign: Callable[[bytes], bytes]) -> Path:
        out = self.folder / "delta.swu"
        return write_bundle(self.plan, sign(self.plan.description_bytes), self.find, out).path

    def find(self, digest: Digest) -> Path:
        return self.store / digest.hex


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    # What a vehicle has in its path; here it is this very interpreter's.
    program = tmp_path / "bin" / "nwmctl-apply-delta"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nwmctl.vehicle.delta "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(samples.ROOT))
    return Made(tmp_path)


def put_old(made: Made, slot: str, data: bytes = OLD) -> None:
    folder = made.car / slot
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OLD_NAME).write_bytes(data)


COPIES = [pytest.param("copy1", "a", "b", marks=pytest.mark.long), ("copy2", "b", "a")]


@pytest.mark.parametrize(("copy", "slot", "other"), COPIES)
def test_the_real_swupdate_installs_a_delta(
    swupdate: Run, made: Made, keyring: KeyRing, copy: str, slot: str, other: str
) -> None:
    put_old(made, other)
    said = swupdate(made.write(lambda data: sign_cms(data, keyring)), copy=copy, check=False)
    assert said.succeeded(), said.log
    installed = {path.name: digest_bytes(path.read_bytes()) for path in (made.car / slot).iterdir()}
    assert installed == {file.filename: file.digest for file in made.full.description.files}
    assert (made.car / other / OLD_NAME).read_bytes() == OLD


@pytest.mark.parametrize("there", [b"another file", pytest.param(None, marks=pytest.mark.long)])
def test_the_real_swupdate_refuses_a_delta_without_its_base(
    swupdate: Run, made: Made, keyring: KeyRing, there: bytes | None
) -> None:
    if there is not None:
        put_old(made, "b", there)
    said = swupdate(made.write(lambda data: sign_cms(data, keyring)), check=False)
    assert not said.succeeded(), said.log
    left = {path.name for path in (made.car / "a").iterdir()}
    assert made.file not in left
    assert not [name for name in left if "delta" in name or "made" in name]


def test_a_description_with_a_delta_reads_as_it_was_written(made: Made) -> None:
    description = made.plan.description
    assert parse_description(render_description(description)) == description
    file = next(file for file in description.files if file.filename == made.file)
    assert file.digest == digest_bytes(samples.GPU)
    assert [name for name, _ in file.members] == [f"{made.file}.delta", f"apply-{file.digest.hex[:16]}.sh"]


def test_the_bundle_is_the_same_but_for_the_way_it_comes(made: Made) -> None:
    found = read_bundle(made.write(lambda data: b"signed"), lambda data, signature: None)
    assert found.manifest == made.full.manifest
    assert found.sealed == (made.file,)


@pytest.mark.parametrize(
    "packing",
    [
        lambda part, base: Packing(Compression.ZSTD, (part,), base),
        lambda part, base: Packing(Compression.NONE, (part, Part("other", part.digest, 1, 1)), base),
        lambda part, base: Packing(Compression.NONE, (Part("x", part.digest, 1, 1, "0" * 32),), base),
    ],
)
def test_a_delta_is_one_plain_part(packing: Callable[[Part, Base], Packing]) -> None:
    with pytest.raises(ValueError, match="one part"):
        packing(Part("x.delta", Digest("0" * 64), 1, 1), Base("y", Digest("1" * 64)))


def test_what_makes_no_sense_is_refused(made: Made) -> None:
    with pytest.raises(BundlePlanError, match="holds no file 'nothing'"):
        with_deltas(made.full, {"nothing": made.delta}, TEMPLATE)
    outside = DeltaFile(Base("../x", made.delta.base.digest), made.delta.digest, made.delta.size, 1)
    with pytest.raises(BundlePlanError, match="cannot be put together"):
        with_deltas(made.full, {made.file: outside}, TEMPLATE)
    for template in ("#!/bin/sh\n", "#!/bin/sh\n{{ nothing }}", TEMPLATE.replace("{{ sha256 }}", "")):
        with pytest.raises(ScriptTemplateError):
            with_deltas(made.full, {made.file: made.delta}, template)
