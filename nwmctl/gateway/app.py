"""The gateway as an ASGI application: routes for vehicles, files, and people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nwmctl.errors import NwmError
from nwmctl.fleet.status import all_status, story
from nwmctl.formats.codec import to_plain
from nwmctl.gateway.ddi import ddi_routes
from nwmctl.gateway.edge import Edge, edge_of, refusal_answer
from nwmctl.gateway.files import file_routes
from nwmctl.gateway.uptane import uptane_routes


def build_app(edge: Edge, mirror: Path | None) -> Starlette:
    """The application; without a ``mirror`` folder it serves no files."""
    routes = [
        *ddi_routes(),
        *uptane_routes(mirror),
        *(file_routes(mirror) if mirror is not None else []),
        Route("/healthz", _health, methods=["GET"]),
        Route("/api/status", _status, methods=["GET"]),
        Route("/api/vehicles/{vin}", _story, methods=["GET"]),
    ]
    handlers: dict[type[Exception] | int, Callable[[Request, Exception], Response | Awaitable[Response]]]
    handlers = {NwmError: refusal_answer}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.state.edge = edge
    return app


async def _health(request: Request) -> Response:
    edge_of(request).database.reader.one("SELECT 1")
    return JSONResponse({"ok": True})


async def _status(request: Request) -> Response:
    edge = edge_of(request)
    campaigns = all_status(edge.database, edge.clock.now_us())
    return JSONResponse({"campaigns": [to_plain(campaign) for campaign in campaigns]})


async def _story(request: Request) -> Response:
    lines = story(edge_of(request).database, request.path_params["vin"])
    return JSONResponse({"story": [to_plain(line) for line in lines]})
