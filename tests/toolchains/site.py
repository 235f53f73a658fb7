"""A host behind a real sshd with a vendor's tiny SDK on it, and a cable to it that can be cut."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from pathlib import Path

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.external import External
from nwmctl.toolchains.external_hosts import Hosts
from nwmctl.toolchains.protocol import CompileRequest
from tests.sshd import Sshd
from tests.toolchains import far, vendor
from tests.toolchains.models import request

FP32 = Precision.FP32


class Cable:
    """A connection through which bytes pass until it is cut."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._to, self._open = port, [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                distant = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, distant]
                for ends in ((near, distant), (distant, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)

    def cut(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclasses.dataclass
class Site:
    """A host, the declaration of an SDK on it, and a driver that knows both."""

    folder: Path
    sshd: Sshd
    declarations: Path
    model: Path

    @property
    def driver(self) -> External:
        return External((self.declarations,), Hosts(self.folder / "hosts.yml"))

    @property
    def rooms(self) -> list[Path]:
        return list((self.folder / "rooms").iterdir())

    def ask(self, scratch: Path, **options: str | bool | int) -> CompileRequest:
        return request(self.model, scratch, "external", FP32, "npu", template="tiny", **options)

    def edit(self, old: str, new: str, path: Path | None = None) -> None:
        path = path or self.declarations / "tiny.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def make_site(folder: Path, sshd: Sshd, model: Path) -> Site:
    """A host whose SDK, chip and fresh folders lie in ``folder``."""
    declarations = vendor.install(folder, far=True)
    (folder / "rooms").mkdir()
    far.hosts(folder, sshd)
    return Site(folder, sshd, declarations, model)


def until(true: object, seconds: float = 15.0) -> bool:
    """Whether something becomes true in time."""
    assert callable(true)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
