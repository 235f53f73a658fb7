"""Connections: only to the host whose key is pinned, only with a key, and every failure in our own words."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.errors import (
    HostKeyError,
    HostKeyFormatError,
    HostUnreachableError,
    IdentityError,
    LoginRefusedError,
    MirrorUriError,
)
from nwmctl.remote.sftp import SftpFiles
from nwmctl.remote.ssh import HostKey, SshAddress, Timeouts
from tests.sshd import Sshd, make_key, running_sshd

QUICK = Timeouts(connect_s=3.0, answer_s=5.0)


def address(sshd: Sshd) -> SshAddress:
    return SshAddress.parse(sshd.uri("/"))


def test_connects_to_the_pinned_host(sshd: Sshd) -> None:
    with SftpFiles.open(address(sshd), sshd.host_key, sshd.identity, QUICK) as files:
        assert files.size("/no/such/file") is None


def test_a_comment_after_the_pinned_key_is_fine(sshd: Sshd) -> None:
    with SftpFiles.open(address(sshd), sshd.host_key + " root@mirror", sshd.identity, QUICK):
        pass


def test_another_host_key_is_refused_before_any_login(sshd: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    before = sshd.log.read_text().count("Accepted publickey")
    with pytest.raises(HostKeyError, match="not the host whose key is pinned") as caught:
        SftpFiles.open(address(sshd), other, sshd.identity, QUICK)
    assert sshd.host_key.split()[1] in caught.value.why, "the shown key helps a person to decide"
    assert sshd.log.read_text().count("Accepted publickey") == before


def test_a_host_without_a_key_of_the_pinned_kind_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="not the host whose key is pinned"):
        SftpFiles.open(address(sshd), make_key(tmp_path / "other", "ecdsa"), sshd.identity, QUICK)


def test_no_pinned_key_is_refused_without_connecting(sshd: Sshd) -> None:
    with pytest.raises(HostKeyError, match="no host key is pinned"):
        SftpFiles.open(address(sshd), "  ", sshd.identity, QUICK)


def test_the_pinned_one_of_several_host_keys_is_asked_for(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "many", kinds=("rsa", "ed25519", "ecdsa")) as server:
        assert server.host_key.startswith("ssh-rsa ")
        SftpFiles.open(address(server), server.host_key, server.identity, QUICK).close()
        ecdsa = (tmp_path / "many" / "host_ecdsa.pub").read_text()
        SftpFiles.open(address(server), ecdsa, server.identity, QUICK).close()


def test_an_unknown_user_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    with pytest.raises(LoginRefusedError, match="refuses the login"):
        SftpFiles.open(address(sshd), sshd.host_key, tmp_path / "stranger", QUICK)


@pytest.mark.parametrize("content", [None, b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END"])
def test_a_bad_identity_file(sshd: Sshd, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "identity"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IdentityError):
        SftpFiles.open(address(sshd), sshd.host_key, path, QUICK)


def test_nobody_listens(sshd: Sshd) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        where = SshAddress("nobody", "127.0.0.1", taken.getsockname()[1], "/")
        with pytest.raises(HostUnreachableError, match="cannot be reached"):
            SftpFiles.open(where, sshd.host_key, sshd.identity, QUICK)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n" + bytes(64)])
def test_something_else_answers(sshd: Sshd, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        where = SshAddress("nobody", "127.0.0.1", server.getsockname()[1], "/")
        with pytest.raises(HostUnreachableError):
            SftpFiles.open(where, sshd.host_key, sshd.identity, QUICK)
        thread.join()


def test_a_silent_host_times_out(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = SshAddress("nobody", "127.0.0.1", server.getsockname()[1], "/")
        with pytest.raises(HostUnreachableError):
            SftpFiles.open(where, sshd.host_key, sshd.identity, Timeouts(connect_s=0.5))


def test_no_traceback_reaches_the_terminal(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
from pathlib import Path
from nwmctl.errors import HostUnreachableError
from nwmctl.remote.sftp import SftpFiles
from nwmctl.remote.ssh import SshAddress, Timeouts
try:
    SftpFiles.open(SshAddress("nobody", "127.0.0.1", {server.getsockname()[1]}, "/"), {sshd.host_key!r},
                   Path({str(sshd.identity)!r}), Timeouts(connect_s=0.3))
except HostUnreachableError:
    print("refused")
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_a_host_without_sftp(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "bare", "Subsystem sftp /bin/false") as server:
        with pytest.raises(HostUnreachableError, match="cannot be reached"):
            SftpFiles.open(address(server), server.host_key, server.identity, QUICK)


# --- texts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "AAAAC3NzaC1lZDI1NTE5AAAAIC",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAP",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHHH",
        "ssh-ed25519 %%%%",
    ],
)
def test_host_key_text_is_refused(text: str) -> None:
    with pytest.raises(HostKeyFormatError):
        HostKey.parse(text)


@given(st.text(max_size=80))
def test_any_host_key_text_is_read_or_refused(text: str) -> None:
    with pytest.raises((HostKeyFormatError, HostKeyError)):
        HostKey.parse(text)


def test_addresses() -> None:
    assert SshAddress.parse("sftp://ota@mirror.example:2222/srv/ota") == SshAddress(
        "ota", "mirror.example", 2222, "/srv/ota"
    )
    assert SshAddress.parse("sftp://ota@[::1]/a%20b") == SshAddress("ota", "::1", 22, "/a b")


@pytest.mark.parametrize(
    "uri",
    ["sftp://mirror/x", "ssh://a@b/c", "sftp://a@b:99999/c", "sftp://a@b:x/c", "sftp://@/x", "sftp://a@b/c?d=1", ""],
)
def test_addresses_that_are_refused(uri: str) -> None:
    with pytest.raises(MirrorUriError):
        SshAddress.parse(uri)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    for uri in ("sftp://a:hunter2@b/c", "sftp://a:hunter2@b:x/c"):
        with pytest.raises(MirrorUriError) as caught:
            SshAddress.parse(uri)
        assert "hunter2" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_address_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(MirrorUriError):
        SshAddress.parse(f"sftp://{text}")
