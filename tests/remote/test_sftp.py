"""Files through a real SFTP server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwmctl.errors import HostUnreachableError, RemoteFileError
from nwmctl.remote.sftp import SftpFiles
from nwmctl.remote.ssh import SshAddress, Timeouts
from tests.disks import small_disk
from tests.sshd import Sshd, running_sshd


@pytest.fixture
def files(sshd: Sshd) -> Iterator[SftpFiles]:
    with SftpFiles.open(SshAddress.parse(sshd.uri("/")), sshd.host_key, sshd.identity) as session:
        yield session


def test_write_read_rename_list_remove(files: SftpFiles, tmp_path: Path) -> None:
    folder = str(tmp_path / "a" / "b")
    files.make_folder(folder)
    files.make_folder(folder)
    data = os.urandom(300_001)
    files.write(f"{folder}/.part", [data[:7], data[7:]])
    assert (tmp_path / "a/b/.part").read_bytes() == data
    assert files.durable is True, "OpenSSH offers fsync"
    files.rename(f"{folder}/.part", f"{folder}/file")
    assert files.list(folder) == ("file",)
    assert files.size(f"{folder}/file") == 300_001
    assert b"".join(files.read(f"{folder}/file")) == data
    files.remove(f"{folder}/file")
    files.remove(f"{folder}/file")
    assert files.size(f"{folder}/file") is None
    assert files.list(f"{folder}/none") == ()


def test_rename_replaces(files: SftpFiles, tmp_path: Path) -> None:
    files.write(str(tmp_path / "old"), [b"old"])
    files.write(str(tmp_path / "new"), [b"new"])
    files.rename(str(tmp_path / "new"), str(tmp_path / "old"))
    assert (tmp_path / "old").read_bytes() == b"new"


def test_empty_file(files: SftpFiles, tmp_path: Path) -> None:
    files.write(str(tmp_path / "empty"), [])
    assert files.size(str(tmp_path / "empty")) == 0
    assert list(files.read(str(tmp_path / "empty"))) == []


def test_refusals_name_the_path(files: SftpFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for action in (
        lambda: files.make_folder(str(tmp_path / "file" / "below")),
        lambda: files.write(str(tmp_path / "none" / "file"), [b"x"]),
        lambda: files.size(str(tmp_path)),
        lambda: list(files.read(str(tmp_path / "none"))),
        lambda: files.rename(str(tmp_path / "none"), str(tmp_path / "other")),
    ):
        with pytest.raises(RemoteFileError) as caught:
            action()
        assert str(tmp_path) in caught.value.what


@pytest.mark.parametrize("size", [(1 << 20) + 1, 3 << 20])
def test_a_full_disk_is_noticed(files: SftpFiles, tmp_path: Path, size: int) -> None:
    with small_disk(tmp_path / "small") as disk:
        with pytest.raises(RemoteFileError, match="could not write"):
            files.write(str(disk / "file"), [b"x" * size])
        with pytest.raises(RemoteFileError, match="could not write"):
            files.write(str(disk / "other"), (b"x" * 1000 for _ in range(size // 1000)))
    files.write(str(tmp_path / "whole"), [b"", b"one", b"", b"two", b""])
    assert (tmp_path / "whole").read_bytes() == b"onetwo", "the session goes on"


def test_a_server_without_extensions_renames_to_free_names_only(tmp_path: Path) -> None:
    """`internal-sftp -P` takes the extensions away, as other servers do not have them."""
    with running_sshd(tmp_path / "s", "Subsystem sftp internal-sftp -P fsync,posix-rename") as server:
        with SftpFiles.open(SshAddress.parse(server.uri("/")), server.host_key, server.identity) as files:
            files.write(str(tmp_path / "part"), [b"one"])
            assert files.durable is False
            files.rename(str(tmp_path / "part"), str(tmp_path / "name"))
            files.write(str(tmp_path / "part"), [b"two"])
            with pytest.raises(RemoteFileError):
                files.rename(str(tmp_path / "part"), str(tmp_path / "name"))
            assert (tmp_path / "name").read_bytes() == b"one"


def test_a_connection_that_breaks(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "s") as server:
        files = SftpFiles.open(SshAddress.parse(server.uri("/")), server.host_key, server.identity, Timeouts(5.0, 2.0))
        files._transport.close()  # the network goes away
        time.sleep(0.05)
        with pytest.raises(HostUnreachableError):
            files.write(str(tmp_path / "file"), [b"x"])
        files.close()
        files.close()
