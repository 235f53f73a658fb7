"""The mirror's folder over HTTP: repository metadata and bundles.

Whole files, HEAD without a body, ranges (one or several), and entity tags. Serves regular files below the root and
nothing else: no folder, no hidden file, nothing that a link leads out to. Needs no token: what lies on a mirror is
signed, and any web server may serve it instead.
"""

from __future__ import annotations

import json
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

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

    return [Route("/mirror/{path:path}", serve, methods=["GET", "HEAD"])]


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
