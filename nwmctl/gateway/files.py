"""The mirror's folder over HTTP: repository metadata and bundles, and the dossier of a release by its name.

Whole files, HEAD without a body, ranges (one or several), and entity tags. Serves regular files below the root and
nothing else: no folder, no hidden file, nothing that a link leads out to. Needs no token: what lies on a mirror is
signed, and any web server may serve it instead.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from nwmctl.domain.certificate import dossier_name

_LONG = "public, max-age=31536000, immutable"


def file_routes(root: Path) -> list[Route]:
    """The routes below ``/mirror/`` for the folder ``root``."""
    real_root = root.resolve()

    async def serve(request: Request) -> Response:
        path = find_file(real_root, request.path_params["path"])
        if path is None:
            return Response(json.dumps({"error": "there is no such file"}), 404, media_type="application/json")
        # Only a bundle's name carries its digest; metadata under a fixed name changes.
        headers = {"Cache-Control": _LONG if path.suffix == ".swu" else "no-cache"}
        return FileResponse(path, headers=headers, media_type="application/octet-stream")

    def dossier(request: Request) -> Response:
        name = dossier_name(request.path_params["release"], request.path_params["sequence"])
        path = find_dossier(real_root, name)
        if path is None:
            return Response(json.dumps({"error": f"no mirror here has {name}"}), 404, media_type="application/json")
        headers = {"Cache-Control": "no-cache"}
        return FileResponse(path, headers=headers, media_type="application/json", filename=name)

    return [
        Route("/mirror/{path:path}", serve, methods=["GET", "HEAD"]),
        Route("/api/releases/{release}/{sequence:int}/dossier", dossier, methods=["GET", "HEAD"]),
    ]


def find_dossier(real_root: Path, name: str) -> Path | None:
    """The dossier of this name among the mirror's files, where each has its digest in front; the newest of several.

    Whoever reads it believes its seal and nothing about where it lay.
    """
    marked = re.compile(rf"[0-9a-f]{{64}}\.{re.escape(name)}\Z")
    try:
        names = [entry.name for entry in (real_root / "targets").iterdir() if marked.match(entry.name)]
    except OSError:
        return None
    found = [path for each in names if (path := find_file(real_root, f"targets/{each}")) is not None]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def find_file(real_root: Path, asked: str) -> Path | None:
    """The file below ``real_root`` that a URL path names, or None."""
    parts = asked.split("/")
    if "\0" in asked or "\\" in asked or any(part in ("", "..") or part.startswith(".") for part in parts):
        return None
    try:
        path = real_root.joinpath(*parts).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    return path if path.is_file() and path.is_relative_to(real_root) else None
