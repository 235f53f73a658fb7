"""The Uptane endpoints of one vehicle: the director, the image repository in the reference dialect, and reports.

A client's server address is ``/{tenant}/uptane/v1/{vin}``; below it lie the paths that the C++ reference client knows.
It proves itself with the token that it has for DDI (a terminator of mutual TLS puts the header in). Director metadata
are signed at the poll where they are due and the gateway has the director's keys; otherwise what was signed before is
served. Bodies are bounded; what a vehicle says is acknowledged after it is durable.

The image repository's files have versions in their names on the mirror, and the one timestamp of python-tuf's dialect
says which of them count: so one file makes a release exist in both dialects at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from nwmctl.errors import DirectorNotReadyError, EcusNotRegisteredError
from nwmctl.fleet.director import kept_body, root_at, sign_one, wanted
from nwmctl.fleet.manifests import record_events, record_manifest, record_note, register
from nwmctl.formats.uptane import Dialect
from nwmctl.formats.uptane_reports import decode_events, decode_note, decode_registration, decode_report
from nwmctl.gateway.edge import Edge, answer, edge_of, read_body, unauthorised
from nwmctl.gateway.files import find_file
from nwmctl.storage.database import Transaction

BASE = "/{tenant}/uptane/v1/{vin}"
IMAGE_FOLDER = "uptane"
"""Where the mirror keeps the image repository's metadata in the reference dialect."""


def uptane_routes(mirror: Path | None) -> list[Route]:
    """The routes; without a ``mirror`` folder there is no image repository."""
    director = [
        Route(BASE + "/director/targets.json", director_targets, methods=["GET"]),
        Route(BASE + "/director/{version:int}.root.json", director_root, methods=["GET"]),
        Route(BASE + "/director/manifest", manifest, methods=["PUT"]),
        Route(BASE + "/director/ecus", ecus, methods=["POST"]),
        Route(BASE + "/core/installed", _note("installed"), methods=["PUT"]),
        Route(BASE + "/system_info", _note("system_info"), methods=["PUT", "POST"]),
        Route(BASE + "/system_info/config", _note("config"), methods=["PUT", "POST"]),
        Route(BASE + "/system_info/network", _note("network"), methods=["PUT", "POST"]),
        Route(BASE + "/events", events, methods=["POST"]),
    ]
    return director + (_image_routes(mirror.resolve()) if mirror is not None else [])


async def director_targets(request: Request) -> Response:
    """What the vehicle shall install, signed for it alone."""
    edge, vin = _asked(request)
    if vin is None:
        return unauthorised()
    reader, signer, now_us = edge.database.reader, edge.director, edge.clock.now_us()
    if signer is None or not wanted(reader, vin).due(signer.fingerprint, now_us):
        return answer(kept_body(reader, vin).encode())
    body = await edge.write(lambda tx: sign_one(tx, vin, signer, now_us))
    return answer(body.encode())


async def director_root(request: Request) -> Response:
    """A version of the director's root; 404 behind the newest, where clients stop asking."""
    edge, vin = _asked(request)
    if vin is None:
        return unauthorised()
    version = request.path_params["version"]
    found = root_at(edge.database.reader, version) if 0 < version < 2**31 else None
    body = found.of(_dialect(edge, vin)) if found else b""
    if not body:
        raise DirectorNotReadyError(
            f"there is no version {version} of the director's root",
            why="it was not made, or not in the vehicle's dialect",
            next="go on with the newest one that there is",
        )
    return answer(body)


async def ecus(request: Request) -> Response:
    """Registration of the vehicle's computers; 201 the first time, 200 for the same again."""
    edge, vin = _asked(request)
    if vin is None:
        return unauthorised()
    said = decode_registration(await read_body(request))
    first = await edge.write(lambda tx: register(tx, vin, said, edge.clock.now_us()))
    return Response(status_code=201 if first else 200)


async def manifest(request: Request) -> Response:
    """A signed version report."""
    edge, vin = _asked(request)
    if vin is None:
        return unauthorised()
    body = await read_body(request)
    said = decode_report(body)
    await edge.write(lambda tx: record_manifest(tx, vin, said, body, edge.clock.now_us()))
    return Response()


async def events(request: Request) -> Response:
    """Events out of the vehicle's diary."""
    edge, vin = _asked(request)
    if vin is None:
        return unauthorised()
    said = decode_events(await read_body(request))
    await edge.write(lambda tx: record_events(tx, vin, said, edge.clock.now_us()))
    return Response()


def _note(topic: str) -> Callable[[Request], Any]:
    async def note(request: Request) -> Response:
        edge, vin = _asked(request)
        if vin is None:
            return unauthorised()
        text = decode_note(await read_body(request))

        def work(tx: Transaction) -> None:
            record_note(tx, vin, topic, text, edge.clock.now_us())

        await edge.write(work)
        return Response()

    return note


def _asked(request: Request) -> tuple[Edge, str | None]:
    edge = edge_of(request)
    known = edge.authenticate(request)
    return edge, known.vin if known else None


def _dialect(edge: Edge, vin: str) -> Dialect:
    try:
        return wanted(edge.database.reader, vin).dialect
    except EcusNotRegisteredError:
        return Dialect.TUF


# --- the image repository, from the mirror's folder ---------------------------------------------------------------


def _image_routes(root: Path) -> list[Route]:
    def path_of(name: str) -> Path | None:
        return find_file(root, f"{IMAGE_FOLDER}/{name}")

    def current(role: str) -> Path | None:
        """The file of a role that the published timestamp leads to."""
        version = _version(find_file(root, "metadata/timestamp.json"))
        path = path_of(f"{version}.timestamp.json")
        for name in ("snapshot", "targets"):
            if role == "timestamp" or path is None:
                return path
            path = path_of(f"{_listed_version(path, f'{name}.json')}.{name}.json")
            if role == name:
                return path
        snapshot = current("snapshot")
        return path_of(f"{_listed_version(snapshot, f'{role}.json')}.{role}.json") if snapshot else None

    async def metadata(request: Request) -> Response:
        return _file(current(request.path_params["role"]))

    async def numbered_root(request: Request) -> Response:
        return _file(path_of(f"{request.path_params['version']}.root.json"))

    async def content(request: Request) -> Response:
        name = request.path_params["name"]
        top = _signed(current("targets"))
        roles = [str(role["name"]) for role in top.get("delegations", {}).get("roles", [])]
        lists = [top, *(_signed(current(role)) for role in roles)]
        digest = next((found for one in lists if (found := _listed_hash(one, name))), None)
        return _file(find_file(root, f"targets/{digest}.{name}") if digest else None)

    return [
        Route(BASE + "/repo/{version:int}.root.json", numbered_root, methods=["GET"]),
        Route(BASE + "/repo/{role:str}.json", metadata, methods=["GET"]),
        Route(BASE + "/repo/delegations/{role:str}.json", metadata, methods=["GET"]),
        Route(BASE + "/repo/targets/{name:str}", content, methods=["GET", "HEAD"]),
    ]


def _file(path: Path | None) -> Response:
    if path is None:
        return Response(json.dumps({"error": "there is no such file"}), 404, media_type="application/json")
    return FileResponse(path, headers={"Cache-Control": "no-cache"}, media_type="application/octet-stream")


def _signed(path: Path | None) -> dict[str, Any]:
    # The mirror's own files: signed by us, and small.
    return dict(json.loads(path.read_bytes())["signed"]) if path is not None else {}


def _version(path: Path | None) -> int:
    return int(_signed(path).get("version", 0))


def _listed_version(path: Path, name: str) -> int:
    return int(_signed(path).get("meta", {}).get(name, {}).get("version", 0))


def _listed_hash(listing: dict[str, Any], name: str) -> str | None:
    found = listing.get("targets", {}).get(name)
    return str(found["hashes"]["sha256"]) if found else None
