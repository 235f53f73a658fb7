"""One contract suite for mirrors, run against a folder and against a real sshd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.release import Mirror
from nwmctl.errors import HostKeyError, MirrorNameError, MirrorUriError, NwmError, StagedFileChangedError
from nwmctl.publishing.mirrors import open_mirror
from tests.publishing.conftest import Open
from tests.sshd import Sshd, make_key


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_put_and_read_back(open_any: Open, tmp_path: Path) -> None:
    data = os.urandom(700_001)
    source = tmp_path / "source"
    source.write_bytes(data)
    root = tmp_path / "mirror"
    seen: list[int] = []
    with open_any("m", root) as mirror:
        assert not mirror.exists("targets/a.swu")
        mirror.put_file("targets/a.swu", source, digest_bytes(data), seen.append)
        mirror.put_bytes("metadata/1.root.json", b"{}")
        assert mirror.exists("targets/a.swu")
        assert mirror.size("targets/a.swu") == len(data)
        assert mirror.read_back("targets/a.swu") == digest_bytes(data)
        assert mirror.read("metadata/1.root.json", 10) == b"{}"
    assert tree(root) == {"targets/a.swu": data, "metadata/1.root.json": b"{}"}, "no hidden file is left"
    assert seen[-1] == len(data)
    assert seen == sorted(seen)


def test_absent(open_any: Open, tmp_path: Path) -> None:
    with open_any("m", tmp_path / "mirror") as mirror:
        assert mirror.size("a") is None
        assert mirror.read("a", 10) is None
        assert mirror.read_back("a") is None


def test_replaces(open_any: Open, tmp_path: Path) -> None:
    with open_any("m", tmp_path / "mirror") as mirror:
        mirror.put_bytes("timestamp.json", b"one, which is longer")
        mirror.put_bytes("timestamp.json", b"two")
        assert mirror.read("timestamp.json", 100) == b"two"


def test_prepared_bytes_have_no_name_until_settled(open_any: Open, tmp_path: Path) -> None:
    with open_any("m", tmp_path / "mirror") as mirror:
        prepared = mirror.prepare("metadata/timestamp.json", b"new")
        assert not mirror.exists("metadata/timestamp.json")
        mirror.settle(prepared)
        assert mirror.read("metadata/timestamp.json", 100) == b"new"
    assert list(tree(tmp_path / "mirror")) == ["metadata/timestamp.json"]


def test_a_source_that_changed_gets_no_name(open_any: Open, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"changed")
    with open_any("m", tmp_path / "mirror") as mirror:
        with pytest.raises(StagedFileChangedError, match="not what was planned"):
            mirror.put_file("a", source, digest_bytes(b"planned"))
        with pytest.raises(StagedFileChangedError):
            mirror.put_file("a", tmp_path / "none", digest_bytes(b"planned"))
    assert tree(tmp_path / "mirror") == {}


def test_a_leftover_of_a_killed_run_is_written_over(open_any: Open, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    root.mkdir()
    data = b"whole"
    (root / f".partial-{digest_bytes(data).short}-a").write_bytes(b"leftover that is longer than the file")
    with open_any("m", root) as mirror:
        mirror.put_bytes("a", data)
    assert tree(root) == {"a": data}


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", ".hidden", "a/.partial-x", "a\nb", "a b", "a/"])
def test_names_that_leave_the_mirror_are_refused(open_any: Open, tmp_path: Path, name: str) -> None:
    root = tmp_path / "mirror"
    with open_any("m", root) as mirror:
        for action in (
            lambda: mirror.put_bytes(name, b"x"),
            lambda: mirror.size(name),
            lambda: mirror.read_back(name),
            lambda: mirror.read(name, 10),
        ):
            with pytest.raises(MirrorNameError):
                action()
    assert not root.exists()


def test_a_file_larger_than_expected_is_not_read(open_any: Open, tmp_path: Path) -> None:
    with open_any("m", tmp_path / "mirror") as mirror:
        mirror.put_bytes("a", bytes(1000))
        with pytest.raises(NwmError, match="too large"):
            mirror.read("a", 999)


def test_a_folder_that_cannot_be_made(open_any: Open, tmp_path: Path) -> None:
    (tmp_path / "mirror").write_bytes(b"a file where the folder should be")
    with open_any("m", tmp_path / "mirror") as mirror:
        with pytest.raises(NwmError) as caught:
            mirror.put_bytes("a/b", b"x")
        assert caught.value.exit_code == 9


def test_a_folder_where_a_file_should_be(open_any: Open, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "a").mkdir(parents=True)
    with open_any("m", tmp_path / "mirror") as mirror:
        with pytest.raises(NwmError):
            mirror.exists("a")


def test_close_twice(open_any: Open, tmp_path: Path) -> None:
    mirror = open_any("m", tmp_path / "mirror")
    mirror.close()
    mirror.close()


# --- addresses ----------------------------------------------------------------------------------------------------


def test_a_relative_file_mirror_starts_at_the_workspace(tmp_path: Path) -> None:
    with open_mirror(Mirror("m", "file:mirror/here"), tmp_path) as mirror:
        mirror.put_bytes("a", b"x")
    assert (tmp_path / "mirror/here/a").read_bytes() == b"x"


@pytest.mark.parametrize("uri", ["ftp://a/b", "mirror", "", "file:", "file://host/x", "sftp://host/x", "s3://b/k"])
def test_addresses_that_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(MirrorUriError):
        open_mirror(Mirror("m", uri), tmp_path)


def test_a_mirror_with_another_host_key_gets_nothing(sshd: Sshd, tmp_path: Path) -> None:
    root = tmp_path / "mirror"
    for key in (make_key(tmp_path / "other"), ""):
        with pytest.raises(HostKeyError):
            open_mirror(Mirror("m", sshd.uri(root), key, str(sshd.identity)), tmp_path)
    assert not root.exists()
