"""A real sshd on loopback, with its own host key, user key and configuration, for tests that need one."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real import require_program


@dataclass(frozen=True)
class Sshd:
    """Where the server is, what it shows, and who may log in."""

    port: int
    host_key: str
    identity: Path
    user: str
    log: Path

    def uri(self, path: Path | str) -> str:
        return f"sftp://{self.user}@127.0.0.1:{self.port}{path}"


def make_key(path: Path, kind: str = "ed25519") -> str:
    """A key pair by ssh-keygen; returns the public line without its comment."""
    subprocess.run(
        [require_program("ssh-keygen", "openssh-client"), "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)],
        check=True,
    )
    return path.with_suffix(".pub").read_text().strip()


@contextmanager
def running_sshd(folder: Path, extra: str = "", kinds: tuple[str, ...] = ("ed25519",)) -> Iterator[Sshd]:
    """Start sshd on a free port; the first of ``kinds`` is the pinned host key. Stops it at the end."""
    program = require_program("sshd", "openssh-server")
    require_program("ssh-keygen", "openssh-client")
    folder.mkdir(parents=True, exist_ok=True)
    host_keys = [make_key(folder / f"host_{kind}", kind) for kind in kinds]
    user_key = make_key(folder / "user")
    (folder / "authorized_keys").write_text(user_key + "\n")
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd as root refuses to start without it
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\n"
        + "".join(f"HostKey {folder / f'host_{kind}'}\n" for kind in kinds)
        + f"AuthorizedKeysFile {folder / 'authorized_keys'}\nPasswordAuthentication no\n"
        + f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n{extra}\n"
        + ("" if "Subsystem" in extra else "Subsystem sftp internal-sftp\n")
    )
    log = folder / "sshd.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=stderr, stdin=subprocess.DEVNULL)
    try:
        _wait(process, port, log)
        yield Sshd(port, host_keys[0], folder / "user", getpass.getuser(), log)
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"sshd ended: {log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"sshd does not answer: {log.read_text()}")
