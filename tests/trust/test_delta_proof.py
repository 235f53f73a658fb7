"""No signature over a delta that was not shown to make the file that was checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nwmctl.bundling.delta_encode import encode_delta
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.packing import Base, Compression, Packing, Part
from nwmctl.domain.signing import DeltaToProve
from nwmctl.errors import DeltaUnprovenError
from nwmctl.formats.bundle_names import change_of
from nwmctl.formats.swu import InstalledFile, Script, SwDescription
from nwmctl.trust.delta_proof import prove_deltas

OLD, NEW = b"an artifact, " * 400, b"an artifact, " * 399 + b"another end"
NAME = "payload.vmfb"


@dataclass
class Case:
    """A description with one delta, and the files that prove it."""

    description: SwDescription
    given: tuple[DeltaToProve, ...]

    def prove(self) -> int:
        return prove_deltas(self.description, self.given)

    def brought(self, **changes: object) -> Case:
        """With another delta in the description."""
        (file,) = self.description.files
        assert file.packing is not None
        part = replace(file.packing.parts[0], **changes)  # type: ignore[arg-type]
        changed = replace(file, packing=replace(file.packing, parts=(part,)))
        return Case(replace(self.description, files=(changed,)), self.given)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    for name, data in (("old", OLD), ("new", NEW)):
        (tmp_path / name).write_bytes(data)
    encode_delta(tmp_path / "old", tmp_path / "new", tmp_path / "delta")
    data = (tmp_path / "delta").read_bytes()
    part = Part(f"{NAME}.delta", digest_bytes(data), len(data), len(NEW))
    packing = Packing(Compression.NONE, (part,), Base("old.vmfb", digest_bytes(OLD)))
    script = Script("apply.sh", digest_bytes(b"script"), digest_bytes(b"template"))
    file = InstalledFile(NAME, digest_bytes(NEW), packing, (), script)
    description = SwDescription("nwm-9", 20, "b9", ("r1",), "/slots/a", "/slots/b", (file,))
    return Case(description, (DeltaToProve(NAME, str(tmp_path / "old"), str(tmp_path / "delta")),))


def test_a_delta_that_makes_its_file_is_proven(case: Case) -> None:
    assert case.prove() == 1


def test_a_full_bundle_needs_no_proof(case: Case) -> None:
    (file,) = case.description.files
    full = replace(case.description, files=(replace(file, packing=None, join=None),))
    assert prove_deltas(full, ()) == 0
    assert change_of(full) == ""
    with pytest.raises(DeltaUnprovenError, match="deltas of a bundle"):
        prove_deltas(full, case.given)


def another_base(case: Case, folder: Path) -> Case:
    (folder / "old").write_bytes(OLD[:-1] + b"!")
    return case


def another_delta(case: Case, folder: Path) -> Case:
    (folder / "delta").write_bytes((folder / "delta").read_bytes() + b"!")
    return case


def other_contents(case: Case, folder: Path) -> Case:
    """The delta makes a file that nobody checked; the description is about the checked one."""
    (folder / "evil").write_bytes(NEW.replace(b"another", b"malware"))
    encode_delta(folder / "old", folder / "evil", folder / "delta")
    data = (folder / "delta").read_bytes()
    return case.brought(digest=digest_bytes(data), size=len(data))


def no_delta(case: Case, folder: Path) -> Case:
    (folder / "delta").write_bytes(b"no delta at all")
    return case.brought(digest=digest_bytes(b"no delta at all"), size=15)


def another_size(case: Case, folder: Path) -> Case:
    return case.brought(plain_size=len(NEW) + 1)


def nothing_given(case: Case, folder: Path) -> Case:
    return Case(case.description, ())


def given_twice(case: Case, folder: Path) -> Case:
    return Case(case.description, case.given * 2)


def gone(case: Case, folder: Path) -> Case:
    (folder / "old").unlink()
    return case


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (another_base, "starts from has sha256"),
        (another_delta, "it has sha256"),
        (other_contents, "it makes sha256"),
        (no_delta, "the applier refuses it"),
        (another_size, "it makes sha256"),
        (nothing_given, "nothing to prove them with"),
        (given_twice, "nothing to prove them with"),
        (gone, "cannot be read"),
    ],
)
def test_nothing_else_is(case: Case, tmp_path: Path, change: Callable[[Case, Path], Case], why: str) -> None:
    with pytest.raises(DeltaUnprovenError) as refused:
        change(case, tmp_path).prove()
    assert why in refused.value.why
    assert "nothing was signed" in refused.value.next


def test_the_name_of_a_change_tells_bases_and_deltas_apart(case: Case) -> None:
    (file,) = case.description.files
    assert file.packing is not None
    other = replace(file.packing, base=Base("old.vmfb", digest_bytes(b"x")))
    names = {
        change_of(case.description),
        change_of(case.brought(digest=digest_bytes(b"x")).description),
        change_of(replace(case.description, files=(replace(file, packing=other),))),
    }
    assert len(names) == 3
    assert all(len(name) == 16 for name in names)
