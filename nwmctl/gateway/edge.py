"""What every handler of the gateway needs, and how a refusal becomes an HTTP answer."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from nwmctl.domain.clock import Clock
from nwmctl.errors import (
    ConflictError,
    DatabaseUnusableError,
    DdiFormatError,
    DirectorNotReadyError,
    EcusNotRegisteredError,
    EcusTakenError,
    InputError,
    NwmError,
    ReportImplausibleError,
    ReportReplayedError,
    ReportUntrustedError,
    UnknownCampaignError,
    UnknownVehicleError,
    WriterClosedError,
)
from nwmctl.fleet.inventory import token_hash
from nwmctl.fleet.offers import Known, known_vehicle
from nwmctl.formats.untrusted import MAX_BODY, garbage
from nwmctl.gateway.elsewhere import Elsewhere
from nwmctl.storage.database import Database, Transaction
from nwmctl.storage.group_commit import GroupWriter
from nwmctl.trust.director import DirectorSigner

Result = TypeVar("Result")
_JSON = "application/json"
# Compared where the vehicle is unknown, so that the answer takes as long as for a wrong token.
_NOBODY = token_hash("")


@dataclass(slots=True)
class Edge:
    """The gateway's parts. ``seen`` collects VIN -> microseconds until the ticker stores them."""

    database: Database
    writer: GroupWriter
    clock: Clock
    tenant: str
    elsewhere: Elsewhere | None = None
    """Where vehicles download once it is proven; until then, and where it is None, from this gateway's ``/mirror``."""
    serves_files: bool = True
    """Whether this gateway has a ``/mirror``."""
    seen: dict[str, int] = field(default_factory=dict)
    director: DirectorSigner | None = None
    """Signs the director's metadata at the poll; None where this gateway serves what was signed before."""

    async def write(self, work: Callable[[Transaction], Result]) -> Result:
        """Run ``work`` in the next group commit; returns once it is durable."""
        return await asyncio.wrap_future(self.writer.submit(work))

    def authenticate(self, request: Request) -> Known | None:
        """The vehicle that sends the request, or None: another tenant, an unknown VIN, or a wrong token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = known_vehicle(self.database.reader, request.path_params["vin"])
        expected = known.token_sha256 if known else _NOBODY
        same = hmac.compare_digest(token_hash(token.strip()), expected)
        right_door = scheme.lower() == "targettoken" and request.path_params["tenant"] == self.tenant
        if known is None or not same or not right_door:
            return None
        self.seen[known.vin] = self.clock.now_us()
        return known


def edge_of(request: Request) -> Edge:
    """The parts that the application was built with."""
    edge: Edge = request.app.state.edge
    return edge


async def read_body(request: Request) -> bytes:
    """The body of a request, up to what any message may have. Raises DdiFormatError."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise garbage(f"it is longer than {MAX_BODY} bytes")
    except ClientDisconnect as problem:
        raise garbage("the connection broke before its end") from problem
    return bytes(body)


def unauthorised() -> Response:
    """The answer to a vehicle that is not who it says."""
    refusal = {"error": "the vehicle is unknown or its token is wrong"}
    return Response(json.dumps(refusal), 401, {"WWW-Authenticate": "TargetToken"}, _JSON)


def answer(body: bytes) -> Response:
    """A JSON answer that is encoded already."""
    return Response(body, media_type=_JSON)


async def refusal_answer(request: Request, problem: Exception) -> Response:
    """The HTTP answer to a refusal."""
    assert isinstance(problem, NwmError)
    body = json.dumps({"error": problem.what, "why": problem.why, "next": problem.next})
    return Response(body, _status_of(problem), media_type=_JSON)


def _status_of(problem: NwmError) -> int:
    match problem:
        case DdiFormatError():
            return 400
        case UnknownVehicleError() | UnknownCampaignError() | DirectorNotReadyError() | EcusNotRegisteredError():
            return 404
        case ReportUntrustedError():
            return 403
        case EcusTakenError() | ReportReplayedError() | ReportImplausibleError():
            return 409
        case WriterClosedError() | DatabaseUnusableError():
            return 503
        case ConflictError():
            # A compare-and-set that lost: the client's next try sees the new state.
            return 503
        case InputError():
            return 400
        case _:
            return 500
