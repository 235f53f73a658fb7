"""Serves one world at a time on the loopback: repository, director, bundle, and a gateway of a few lines.

It does what the world says, which may be to send without end or a few bytes at a time, and counts what it sent. Ends
within a moment when it is closed, whatever is being sent. Listens on an ephemeral port of 127.0.0.1 and nowhere else.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from nwmctl.errors import NwmError
from nwmctl.formats import ddi
from nwmctl.trust.attacks.scene import Body, Drip, Endless, World

IMAGE, DIRECTOR, BUNDLE, TENANT = "/image", "/director", "/bundle.swu", "/default/"
_BLOCK = 1 << 16
_DRIP_S = 0.05
_MAX_BODY = 1 << 20


class Stand:
    """What is served now, and what was sent: ``sent`` counts bytes by path since the last ``show``; ``hostile`` is set
    once something without end has begun to be sent."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.world: World | None = None
        self.action = 0
        self.open = False
        self.sent: Counter[str] = Counter()
        self.hostile = threading.Event()
        self.closing = threading.Event()

    def show(self, world: World) -> None:
        """Serve another world; the gateway offers its bundle as a new action."""
        self.world = world
        self.action += 1
        self.open = True
        self.sent.clear()
        self.hostile.clear()

    def body(self, path: str) -> Body | None:
        """What lies at a path."""
        assert self.world is not None
        if path == BUNDLE:
            return self.world.bundle
        if path.startswith(f"{IMAGE}/"):
            return self.world.image.get(path.removeprefix(f"{IMAGE}/"))
        if path.startswith(f"{DIRECTOR}/"):
            return self.world.director.get(path.removeprefix(f"{DIRECTOR}/"))
        return None

    def gateway(self, base: str, rest: str) -> bytes:
        """The gateway's answer to a GET."""
        assert self.world is not None
        if rest.startswith("deploymentBase/"):
            return ddi.encode_deployment(self._deployment())
        href = f"{self.url}{base}/deploymentBase/{self.action}" if self.open else ""
        return ddi.encode_polling(ddi.Polling(1.0, deployment=href))

    def hear(self, rest: str, data: bytes) -> None:
        """A vehicle's report: the action is over when it says so."""
        with suppress(NwmError):
            if rest.endswith("/feedback") and ddi.decode_feedback(data).execution is ddi.Execution.CLOSED:
                self.open = False

    def _deployment(self) -> ddi.Deployment:
        assert self.world is not None
        offer = self.world.offer
        artifact = ddi.DdiArtifact(offer.name, "0" * 40, offer.digest.hex, offer.size, f"{self.url}{BUNDLE}")
        meta = {ddi.META_SEQUENCE: str(offer.sequence), ddi.META_TUF_NAME: offer.name}
        return ddi.Deployment(self.action, (ddi.Chunk(ddi.PART_BUNDLE, offer.name, "1", (artifact,), meta),))


@contextmanager
def serving() -> Iterator[Stand]:
    """A stand that is open until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.stand = Stand(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.stand
    finally:
        server.stand.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stand: Stand

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what a drill is for."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        stand = self.server.stand
        if self.path.startswith(TENANT):
            base, rest = self._vehicle()
            self._plain(stand.gateway(base, rest))
            return
        body = stand.body(self.path)
        match body:
            case None:
                self.send_error(404)
            case bytes():
                self._plain(body)
            case Endless():
                self._endless(body)
            case Drip():
                self._drip(body)

    def do_PUT(self) -> None:
        self._hear()

    def do_POST(self) -> None:
        self._hear()

    def _hear(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        self.server.stand.hear(self.path, self.rfile.read(min(size, _MAX_BODY)))
        self._plain(b"")

    def _vehicle(self) -> tuple[str, str]:
        parts = self.path.split("/")
        return "/".join(parts[:5]), "/".join(parts[5:])

    def _plain(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self._send(data)

    def _endless(self, body: Endless) -> None:
        self.server.stand.hostile.set()
        self.send_response(200)
        self.end_headers()
        self._send(body.head)
        left = body.most - len(body.head)
        while left > 0 and not self.server.stand.closing.is_set():
            self._send(bytes(min(left, _BLOCK)))
            left -= _BLOCK

    def _drip(self, body: Drip) -> None:
        self.server.stand.hostile.set()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body.data)))
        self.end_headers()
        step = max(1, int(body.rate * _DRIP_S))
        for at in range(0, len(body.data), step):
            self._send(body.data[at : at + step])
            if self.server.stand.closing.wait(_DRIP_S):
                return

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.stand.sent[self.path] += len(data)
