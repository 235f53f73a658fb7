"""A folder on another machine: what runs there, how it ends, and that nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nwmctl.errors import RemoteFileError
from nwmctl.remote.ssh import SshAddress, Timeouts
from nwmctl.remote.workroom import Login, RemoteLimits, Workroom
from nwmctl.toolchains.files import file_digest
from tests.sshd import Sshd

LIMITS = RemoteLimits(20.0)


@pytest.fixture
def login(sshd: Sshd, tmp_path: Path) -> Login:
    (tmp_path / "rooms").mkdir()
    return Login(SshAddress.parse(sshd.uri("/")), sshd.host_key, sshd.identity, str(tmp_path / "rooms"))


@pytest.fixture
def room(login: Login) -> Iterator[Workroom]:
    with Workroom.open(login, Timeouts(connect_s=3.0, answer_s=20.0)) as made:
        yield made
    assert list(Path(login.folder).iterdir()) == []


def sh(room: Workroom, script: str, limits: RemoteLimits = LIMITS, **environment: str) -> tuple[int | None, str, str]:
    done = room.run(("sh", "-c", script), limits, environment)
    return done.status, done.output, done.errors


def test_files_go_there_and_come_back(room: Workroom, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(range(256)) * 5000)
    room.put("in.bin", tmp_path / "data")
    assert room.describe("in.bin") == (file_digest(tmp_path / "data"), 1_280_000)
    assert sh(room, "tr 'a' 'b' < in.bin > out.bin; mkdir deep; cp out.bin deep/er")[0] == 0
    room.get("deep/er", tmp_path / "back", 1 << 30)
    assert (tmp_path / "back").read_bytes() == (bytes(range(256)) * 5000).replace(b"a", b"b")
    assert room.describe("none") is None
    for name, limit in (("none", 1 << 30), ("out.bin", 1000)):
        with pytest.raises(RemoteFileError):
            room.get(name, tmp_path / "not", limit)
    assert not (tmp_path / "not").exists()
    for name in ("../x", "/x", "a/../b", "-x", ""):
        with pytest.raises(ValueError, match="no plain relative name"):
            room.describe(name)


def test_a_program_has_a_fixed_environment_and_its_streams_apart(room: Workroom) -> None:
    status, out, err = sh(room, "env | cut -d= -f1; echo wrong >&2; exit 7", EXTRA="")
    assert (status, err) == (7, "wrong\n")
    fixed = {"PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "EXTRA"}
    assert set(out.split()) - {"PWD", "SHLVL", "_", "OLDPWD"} == fixed
    odd = "a b'c\n$d `id` \""
    assert sh(room, "printenv EXTRA", EXTRA=odd)[1] == odd + "\n"


def test_the_end_of_a_program_is_its_own(room: Workroom) -> None:
    assert sh(room, "kill -SEGV $$")[0] == 139
    assert room.run(("no-such-program",), LIMITS, {}).status == 127
    # Long silence after the output was closed is no end.
    assert sh(room, "exec > /dev/null 2>&1; exec >&-; sleep 4; exit 5")[0] == 5


def test_limits_hold_there(room: Workroom) -> None:
    assert sh(room, "echo begun; sleep 60", RemoteLimits(1.0))[0] is None
    grown = sh(room, "head -c 200000 /dev/zero > big", RemoteLimits(20.0, file_bytes=100_000))
    assert grown[0] != 0
    done = room.run(("yes",), RemoteLimits(20.0, output_bytes=10_000), {})
    assert done.overflowed
    assert len(done.output) == 10_000
    assert sh(room, "echo and the room is still there") == (0, "and the room is still there\n", "")


def test_what_a_program_leaves_running_ends_with_it(room: Workroom, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    assert sh(room, f"sleep 600 & echo $! > {told}")[0] == 0
    state = Path(f"/proc/{told.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"
