"""Staging is planned, sends only what is missing, reads everything back, and never overwrites."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import HostUnreachableError, MirrorConflictError, MirrorReadBackError
from nwmctl.publishing.local import LocalFiles
from nwmctl.publishing.mirrors import FilesMirror
from nwmctl.publishing.stage import StageAction, StagedFile, execute_stage, plan_stage, stage
from tests.publishing.conftest import Open


def files(folder: Path) -> list[StagedFile]:
    made = []
    for name, data in (("a.swu", b"a" * 300_000), ("b.swu", b"b" * 10)):
        (folder / name).write_bytes(data)
        made.append(StagedFile(f"targets/{name}", folder / name, digest_bytes(data), len(data)))
    return [*made, StagedFile.of_bytes("metadata/7.snapshot.json", b'{"version":7}')]


def test_every_file_on_every_mirror(open_local: Open, open_sftp: Open, tmp_path: Path) -> None:
    wanted = files(tmp_path)
    mirrors = [open_local("here", tmp_path / "m1"), open_sftp("there", tmp_path / "m2")]
    seen: list[tuple[str, str, int, int]] = []
    plan = plan_stage(wanted, mirrors)
    assert not (tmp_path / "m1").exists(), "a plan changes nothing"
    assert [(s.mirror, s.action) for s in plan.steps] == [("here", StageAction.UPLOAD)] * 3 + [
        ("there", StageAction.UPLOAD)
    ] * 3
    assert plan.upload_bytes == 2 * sum(f.size for f in wanted)
    report = execute_stage(plan, mirrors, lambda *args: seen.append(args))
    assert report.sent_bytes == plan.upload_bytes
    assert ("there", "targets/a.swu", 300_000, 300_000) in seen
    for root in (tmp_path / "m1", tmp_path / "m2"):
        for file in wanted:
            assert digest_bytes((root / file.name).read_bytes()) == file.digest

    again = stage(wanted, mirrors)
    assert again.sent_bytes == 0
    assert len(again.verified) == 6


class Failing(LocalFiles):
    """A mirror whose connection breaks at the n-th write."""

    def __init__(self, writes: int) -> None:
        super().__init__("failing")
        self.left = writes

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        if self.left == 0:
            raise HostUnreachableError("gone", why="the cable", next="plug it in")
        self.left -= 1
        super().write(path, chunks)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 3))
def test_interrupted_anywhere_then_repeated(tmp_path_factory: pytest.TempPathFactory, writes: int) -> None:
    tmp_path = tmp_path_factory.mktemp("stage")
    wanted = files(tmp_path)
    broken = FilesMirror("m", Failing(writes), str(tmp_path / "m"))
    if writes < 3:
        with pytest.raises(HostUnreachableError):
            stage(wanted, [broken])
    else:
        stage(wanted, [broken])
    report = stage(wanted, [FilesMirror("m", LocalFiles("m"), str(tmp_path / "m"))])
    assert len(report.uploaded) == 3 - writes, "what was done stays done"
    assert len(report.verified) == writes


def test_a_name_with_other_content_is_never_overwritten(open_any: Open, tmp_path: Path) -> None:
    wanted = files(tmp_path)
    mirror = open_any("m", tmp_path / "m")
    mirror.put_bytes("targets/b.swu", b"B" * 10)  # same size
    with pytest.raises(MirrorConflictError, match="cannot be staged"):
        stage(wanted, [mirror])
    assert mirror.read("targets/b.swu", 100) == b"B" * 10

    mirror.put_bytes("targets/b.swu", b"longer than ten bytes")
    with pytest.raises(MirrorConflictError):
        plan_stage(wanted, [mirror])


def test_one_name_with_two_contents(open_local: Open, tmp_path: Path) -> None:
    two = [StagedFile.of_bytes("a", b"one"), StagedFile.of_bytes("a", b"two")]
    with pytest.raises(MirrorConflictError, match="'a' cannot be staged"):
        plan_stage(two, [open_local("m", tmp_path / "m")])


class Lying(LocalFiles):
    """A mirror that loses the last byte of everything."""

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        super().write(path, [data[:-1]])


def test_what_is_read_back_decides(tmp_path: Path) -> None:
    mirror = FilesMirror("liar", Lying("liar"), str(tmp_path / "m"))
    with pytest.raises(MirrorReadBackError, match="'liar' does not return what was sent"):
        stage(files(tmp_path), [mirror])
