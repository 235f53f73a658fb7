"""A small HTTP server on loopback that serves a folder, well or badly."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Behaviour:
    """How the server behaves; tests change it while it runs. Big files only: small ones are always served well."""

    ranges: bool = True
    etag: str = "strong"
    """strong, weak or none"""
    drop_after: int = 0
    """Close the connection after this many bytes of an answer (0: never)."""
    drops: int = 1 << 30
    """How often."""
    lie: int = 0
    """Added to the announced length."""
    announce: bool = True
    endless: bool = False
    status: list[int] = field(default_factory=list)
    """Answers to give instead, one per request."""
    shift: int = 0
    """Added to where a range answer starts."""
    most: int = 1 << 30
    """Most bytes of one range answer."""
    delay_s: float = 0.0
    """Wait between pieces."""
    encoding: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Path, Range, If-Range of every request."""
    sent: int = 0

    def big(self, name: str) -> list[tuple[str, str, str]]:
        return [request for request in self.requests if request[0].endswith(name)]


SMALL = 20_000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        return

    def do_GET(self) -> None:
        how = self.server.how
        name = unquote(self.path.partition("?")[0]).lstrip("/")
        range_, if_range = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        how.requests.append((self.path, range_, if_range))
        path = self.server.root / name
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        good = len(data) < SMALL
        if how.status and not good:
            self.send_error(how.status.pop(0))
            return
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        start, status = 0, 200
        if range_ and how.ranges and if_range in ("", tag):
            start, status = int(range_.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        body = data[start : start + how.most] if status == 206 else data
        self._answer(how, status, start, body, len(data), tag, good)

    def _answer(self, how: Behaviour, status: int, start: int, body: bytes, size: int, tag: str, good: bool) -> None:
        self.send_response(status)
        if status == 206:
            first = start + how.shift
            self.send_header("Content-Range", f"bytes {first}-{start + len(body) - 1}/{size}")
        if how.etag != "none":
            self.send_header("ETag", tag if how.etag == "strong" else f"W/{tag}")
        if how.encoding and not good:
            self.send_header("Content-Encoding", how.encoding)
        if how.announce or good:
            self.send_header("Content-Length", str(len(body) + (0 if good else how.lie)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        with contextlib.suppress(OSError):
            self._send(how, body, good)

    def _send(self, how: Behaviour, body: bytes, good: bool) -> None:
        if good:
            self.wfile.write(body)
            return
        if how.drop_after and how.drops > 0 and how.drop_after < len(body):
            how.drops -= 1
            self.wfile.write(body[: how.drop_after])
            self.wfile.flush()
            self.close_connection = True
            return
        for at in range(0, len(body), 1 << 14):
            self.wfile.write(body[at : at + (1 << 14)])
            how.sent += 1 << 14
            if how.delay_s:
                time.sleep(how.delay_s)
        while how.endless:
            self.wfile.write(bytes(1 << 14))
            how.sent += 1 << 14
        if how.lie > 0:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    how: Behaviour
    root: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.how, server.root = Behaviour(), root
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.how.endless = False
        server.shutdown()
        server.server_close()
        thread.join()
