"""A release exists for all platforms or for none."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.train import BUNDLE_RESULT_NAME, BundleFile, BundleResult, TrainSpec, check_train, papers_name
from nwmctl.errors import (
    MirrorWriteError,
    NwmError,
    PublishInterruptedError,
    SchemaError,
    SourceUnavailableError,
    TimestampOlderError,
    TrainIncompleteError,
    TrainMismatchError,
)
from nwmctl.formats import documents
from nwmctl.publishing.local import LocalFiles
from nwmctl.publishing.mirrors import FilesMirror
from nwmctl.publishing.stage import stage
from nwmctl.publishing.train import collect_train, publish, write_bundle_folder
from tests.publishing.conftest import Open

PLATFORMS = ("nt2.0", "nt2.5", "nt3.0")


def d(text: str) -> Digest:
    return digest_bytes(text.encode())


SPEC = TrainSpec("nwm-2.5", 25, PLATFORMS, d("model"), d("previous"), d("policy"))


def part(platform: str) -> tuple[BundleResult, dict[str, bytes]]:
    contents = {f"nwm-2.5-{platform}-25.swu": b"new " + platform.encode(), f"nwm-2.5-{platform}-26-return.swu": b"old"}
    bundles = tuple(
        BundleFile(kind, name, digest_bytes(data), len(data), sequence, d(name), model, d(f"papers of {name}"))
        for (name, data), kind, sequence, model in zip(
            contents.items(), BundleKind, (25, 26), (SPEC.model, SPEC.previous), strict=True
        )
    )
    result = BundleResult("nwm-2.5", 25, platform, SPEC.model, SPEC.previous, SPEC.policy, (d("evidence"),), bundles)
    return result, {**contents, **{papers_name(name): f"papers of {name}".encode() for name in contents}}


def leave(folder: Path, platform: str, change: Callable[[BundleResult], BundleResult] = lambda r: r) -> Path:
    result, contents = part(platform)
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (sources / name).write_bytes(data)
    out = folder / platform
    write_bundle_folder(out, change(result), {name: sources / name for name in contents})
    return out


def test_parts_from_separate_workspaces_make_a_train(tmp_path: Path, open_local: Open) -> None:
    folders = [leave(tmp_path, platform) for platform in PLATFORMS]
    train = collect_train(SPEC, reversed(folders))
    assert tuple(train.parts) == PLATFORMS, "the release's order, whatever order they were collected in"
    assert len(train.bundles) == 6
    mirror = open_local("m", tmp_path / "m")
    stage(train.staged("targets"), [mirror])
    assert mirror.read("targets/nwm-2.5-nt2.0-25.swu", 100) == b"new nt2.0"
    assert mirror.read("targets/nwm-2.5-nt2.0-26-return.swu", 100) == b"old"


def test_a_folder_of_parts_is_fine_too(tmp_path: Path) -> None:
    for platform in PLATFORMS:
        leave(tmp_path, platform)
    assert tuple(collect_train(SPEC, [tmp_path]).parts) == PLATFORMS


def test_the_result_is_canonical_and_reads_back(tmp_path: Path) -> None:
    out = leave(tmp_path, "nt2.0")
    data = (out / BUNDLE_RESULT_NAME).read_bytes()
    assert documents.decode(BundleResult, data, "x") == part("nt2.0")[0]
    assert json.loads(data)["schema"] == "nwmctl.bundle-result/1"
    assert sorted(p.name for p in out.iterdir()) == [
        BUNDLE_RESULT_NAME, "nwm-2.5-nt2.0-25.swu", "nwm-2.5-nt2.0-25.swu.papers.json",
        "nwm-2.5-nt2.0-26-return.swu", "nwm-2.5-nt2.0-26-return.swu.papers.json",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["missing", "changed", "never made"])
def test_bundles_travel_with_the_papers_that_they_were_judged_by(tmp_path: Path, damage: str) -> None:
    folders = [leave(tmp_path, platform) for platform in PLATFORMS[1:]]
    name = "nwm-2.5-nt2.0-25.swu"
    if damage == "never made":

        def forget(result: BundleResult) -> BundleResult:
            return dataclasses.replace(
                result, bundles=tuple(dataclasses.replace(one, papers=None) for one in result.bundles)
            )

        folders.append(leave(tmp_path, "nt2.0", forget))
    else:
        folders.append(leave(tmp_path, "nt2.0"))
        assert collect_train(SPEC, folders).paths[papers_name(name)].read_text() == f"papers of {name}"
        papers = folders[-1] / papers_name(name)
        papers.unlink() if damage == "missing" else papers.write_text("others")
    with pytest.raises(TrainMismatchError) as caught:
        collect_train(SPEC, folders)
    assert "papers" in caught.value.why


@pytest.mark.parametrize("hole", PLATFORMS)
def test_a_hole_is_refused(tmp_path: Path, hole: str) -> None:
    folders = [leave(tmp_path, platform) for platform in PLATFORMS if platform != hole]
    with pytest.raises(TrainIncompleteError, match=f"lacks {hole}") as caught:
        collect_train(SPEC, folders)
    assert f"--platform {hole}" in caught.value.next


def test_an_interrupted_job_is_a_hole(tmp_path: Path) -> None:
    folders = [leave(tmp_path, platform) for platform in PLATFORMS]
    (folders[1] / BUNDLE_RESULT_NAME).unlink()
    with pytest.raises(TrainIncompleteError, match=r"lacks nt2\.5"):
        collect_train(SPEC, folders)


def test_nothing_collected(tmp_path: Path) -> None:
    with pytest.raises(TrainIncompleteError, match=r"lacks nt2\.0, nt2\.5, nt3\.0"):
        collect_train(SPEC, [])
    with pytest.raises(SourceUnavailableError):
        collect_train(SPEC, [tmp_path / "none"])


Change = Callable[[BundleResult], BundleResult]
MISMATCHES: dict[str, Change] = {
    "release": lambda r: dataclasses.replace(r, release="nwm-2.4"),
    "sequence": lambda r: dataclasses.replace(r, sequence=24),
    "model": lambda r: dataclasses.replace(r, model=d("other")),
    "previous model": lambda r: dataclasses.replace(r, previous=d("other")),
    "policy": lambda r: dataclasses.replace(r, policy=d("other")),
    "evidence": lambda r: dataclasses.replace(r, evidence=()),
    "nt9.9": lambda r: dataclasses.replace(r, platform="nt9.9"),
    "release bundle": lambda r: dataclasses.replace(
        r, bundles=(dataclasses.replace(r.bundles[0], model=d("other")), r.bundles[1])
    ),
    "return bundle": lambda r: dataclasses.replace(
        r, bundles=(r.bundles[0], dataclasses.replace(r.bundles[1], sequence=25))
    ),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_a_mismatch_is_refused(tmp_path: Path, what: str) -> None:
    folders = [leave(tmp_path, p, MISMATCHES[what] if p == "nt2.5" else lambda r: r) for p in PLATFORMS]
    with pytest.raises(TrainMismatchError, match="does not belong to this train") as caught:
        collect_train(SPEC, folders)
    assert what in str(caught.value)


def test_a_missing_return_bundle_is_a_hole(tmp_path: Path) -> None:
    def without(result: BundleResult) -> BundleResult:
        return dataclasses.replace(result, bundles=result.bundles[:1])

    folders = [leave(tmp_path, p, without if p == "nt3.0" else lambda r: r) for p in PLATFORMS]
    with pytest.raises(TrainIncompleteError, match=r"return bundle of nt3\.0"):
        collect_train(SPEC, folders)


def test_the_same_part_twice_is_fine_and_two_different_ones_are_not(tmp_path: Path) -> None:
    folders = [leave(tmp_path / "a", platform) for platform in PLATFORMS]
    collect_train(SPEC, [*folders, leave(tmp_path / "b", "nt2.0")])
    other = leave(tmp_path / "c", "nt2.0", lambda r: dataclasses.replace(r, evidence=(d("other"),)))
    with pytest.raises(TrainMismatchError, match=r"nt2\.0"):
        collect_train(SPEC, [*folders, other])


@pytest.mark.parametrize("damage", ["changed", "shorter", "gone"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, damage: str) -> None:
    folders = [leave(tmp_path, platform) for platform in PLATFORMS]
    bundle = folders[2] / "nwm-2.5-nt3.0-25.swu"
    match damage:
        case "changed":
            bundle.write_bytes(b"NEW nt3.0")
        case "shorter":
            bundle.write_bytes(b"new")
        case _:
            bundle.unlink()
    with pytest.raises(TrainMismatchError, match=r"part for nt3\.0 is damaged"):
        collect_train(SPEC, folders)


def test_a_result_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    folder = leave(tmp_path, "nt2.0")
    path = folder / BUNDLE_RESULT_NAME
    path.write_bytes(path.read_bytes().replace(b"nwm-2.5-nt2.0-25.swu", b"../../../etc/passwd.swu"))
    with pytest.raises(SchemaError, match="not the name of a file"):
        collect_train(SPEC, [folder])


@given(st.binary(max_size=6), st.integers(0, 5000), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_a_damaged_result_is_read_or_refused_never_a_traceback(new: bytes, at: int, cut: int) -> None:
    data = documents.encode(part("nt2.0")[0])
    at %= len(data)
    with contextlib.suppress(NwmError):
        result = documents.decode(BundleResult, data[:at] + new + data[at + cut :], "result")
        check_train(dataclasses.replace(SPEC, platforms=("nt2.0",)), [result])


# --- publishing ---------------------------------------------------------------------------------------------------


def timestamp(version: int, note: str = "") -> bytes:
    return json.dumps({"signed": {"version": version, "note": note}, "signatures": []}).encode()


NAME = "metadata/timestamp.json"


def test_all_mirrors_get_the_timestamp(open_local: Open, open_sftp: Open, tmp_path: Path) -> None:
    mirrors = [open_local("here", tmp_path / "a"), open_sftp("there", tmp_path / "b")]
    assert publish(mirrors, timestamp(1), NAME).published == ("here", "there")
    again = publish(mirrors, timestamp(1), NAME)
    assert (again.published, again.already) == ((), ("here", "there"))
    assert publish(mirrors, timestamp(2), NAME).published == ("here", "there")
    for mirror in mirrors:
        assert mirror.read(NAME, 1000) == timestamp(2)


def test_a_timestamp_never_goes_back(open_any: Open, tmp_path: Path) -> None:
    mirror = open_any("m", tmp_path / "m")
    publish([mirror], timestamp(5), NAME)
    for older in (timestamp(4), timestamp(5, "other content"), b"not json"):
        with pytest.raises(TimestampOlderError):
            publish([mirror], older, NAME)
    assert mirror.read(NAME, 1000) == timestamp(5)


class Broken(LocalFiles):
    """A mirror that fails at one kind of operation."""

    def __init__(self, at: str) -> None:
        super().__init__("broken")
        self.at = at

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        if self.at == "write":
            raise MirrorWriteError("full", why="no space", next="make room")
        super().write(path, chunks)

    def rename(self, old: str, new: str) -> None:
        if self.at == "rename":
            raise MirrorWriteError("gone", why="no answer", next="look")
        super().rename(old, new)


def test_a_full_mirror_is_noticed_before_anything_is_published(open_local: Open, tmp_path: Path) -> None:
    good = open_local("good", tmp_path / "a")
    with pytest.raises(MirrorWriteError):
        publish([good, FilesMirror("full", Broken("write"), str(tmp_path / "b"))], timestamp(1), NAME)
    assert good.read(NAME, 1000) is None


def test_an_interrupted_publication_is_finished_by_repeating_it(open_local: Open, tmp_path: Path) -> None:
    good = open_local("good", tmp_path / "a")
    with pytest.raises(PublishInterruptedError, match="published on good, not on broken"):
        publish([good, FilesMirror("broken", Broken("rename"), str(tmp_path / "b"))], timestamp(1), NAME)
    repaired = FilesMirror("broken", LocalFiles("broken"), str(tmp_path / "b"))
    report = publish([good, repaired], timestamp(1), NAME)
    assert (report.published, report.already) == (("broken",), ("good",))
    assert repaired.read(NAME, 1000) == timestamp(1)
