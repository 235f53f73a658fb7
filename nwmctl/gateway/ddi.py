"""The DDI endpoints: from requests to the fleet's functions, and back.

A report is acknowledged after it is durable. A body that cannot be read changes nothing and is answered with 400.
What a client's words mean for an action is said here once (``report_of``, ``cancel_report_of``); what follows from
them is decided in the fleet.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nwmctl.domain.fleet import AssignmentState
from nwmctl.errors import MirrorUnprovenError, UnknownVehicleError
from nwmctl.fleet.consequences import Heard, Report
from nwmctl.fleet.offers import Act, Idle, Offer, Owed, Stop, offer, open_action, standing
from nwmctl.fleet.releases import EnabledBundle
from nwmctl.fleet.reports import record_asked, record_attributes, record_report
from nwmctl.formats import ddi
from nwmctl.formats.untrusted import garbage
from nwmctl.gateway.edge import Edge, answer, edge_of, read_body, unauthorised

_BASE = "/{tenant}/controller/v1/{vin}"


def ddi_routes() -> list[Route]:
    """The routes; the poll first, since nearly every request is one."""
    return [
        Route(_BASE, poll, methods=["GET"]),
        Route(_BASE + "/deploymentBase/{action:int}", deployment, methods=["GET"]),
        Route(_BASE + "/deploymentBase/{action:int}/feedback", feedback, methods=["POST"]),
        Route(_BASE + "/cancelAction/{action:int}", cancel, methods=["GET"]),
        Route(_BASE + "/cancelAction/{action:int}/feedback", cancel_feedback, methods=["POST"]),
        Route(_BASE + "/configData", config_data, methods=["PUT", "POST"]),
    ]


async def poll(request: Request) -> Response:
    """What the vehicle has to do, and when to ask again."""
    edge = edge_of(request)
    known = edge.authenticate(request)
    if known is None:
        return unauthorised()
    vin = known.vin
    found = standing(edge.database.reader, vin)
    if isinstance(found, Owed):
        found = await edge.write(lambda tx: open_action(tx, vin, edge.clock.now_us()))
    base = f"{_origin(request)}/{edge.tenant}/controller/v1/{quote(vin)}"
    deployment_href = cancel_href = ""
    match found:
        case Act(action):
            deployment_href = f"{base}/deploymentBase/{action}"
        case Stop(action):
            cancel_href = f"{base}/cancelAction/{action}"
        case Idle() | Owed():
            pass
    polling = ddi.Polling(known.poll_s, f"{base}/configData", deployment_href, cancel_href)
    return answer(ddi.encode_polling(polling))


async def deployment(request: Request) -> Response:
    """What an action asks for."""
    edge, vin, action = _asked(request)
    if vin is None:
        return unauthorised()
    found = offer(edge.database.reader, vin, action)
    if found.begun:
        await edge.write(lambda tx: record_asked(tx, vin, action))
    return answer(ddi.encode_deployment(_deployment(edge, request, found)))


async def feedback(request: Request) -> Response:
    """A report on an action."""
    edge, vin, action = _asked(request)
    if vin is None:
        return unauthorised()
    said = ddi.decode_feedback(await read_body(request))
    if said.action is not None and said.action != action:
        raise garbage(f"it is about action {said.action} and was sent to action {action}")
    await edge.write(lambda tx: record_report(tx, vin, action, report_of(said), edge.clock.now_us()))
    return Response()


async def cancel(request: Request) -> Response:
    """The wish to stop an action."""
    edge, vin, action = _asked(request)
    if vin is None:
        return unauthorised()
    if standing(edge.database.reader, vin) != Stop(action):
        raise UnknownVehicleError(
            f"the vehicle {vin} need not stop action {action}",
            why="the action was closed or never withdrawn",
            next="let the vehicle poll and follow the links that it gets",
        )
    return answer(ddi.encode_cancel(ddi.Cancel(action)))


async def cancel_feedback(request: Request) -> Response:
    """A report on the wish to stop."""
    edge, vin, action = _asked(request)
    if vin is None:
        return unauthorised()
    said = ddi.decode_feedback(await read_body(request))
    await edge.write(lambda tx: record_report(tx, vin, action, cancel_report_of(said), edge.clock.now_us()))
    return Response()


async def config_data(request: Request) -> Response:
    """What the vehicle says about itself."""
    edge = edge_of(request)
    known = edge.authenticate(request)
    if known is None:
        return unauthorised()
    vin = known.vin
    attributes = ddi.decode_config_data(await read_body(request))
    slots = ddi.slot_facts(attributes)
    await edge.write(lambda tx: record_attributes(tx, vin, attributes, slots, edge.clock.now_us()))
    return Response()


def report_of(said: ddi.Feedback) -> Report:
    """What a feedback means. A success must be said: ``closed`` without a result counts as a failure."""
    stage = said.stage
    match said.execution, said.finished:
        case ddi.Execution.CLOSED, ddi.Finished.SUCCESS:
            heard = Heard.SUCCESS
        case ddi.Execution.CLOSED, _:
            heard = Heard.FAILURE
        case ddi.Execution.REJECTED, _:
            heard, stage = Heard.FAILURE, AssignmentState.REFUSED
        case ddi.Execution.CANCELED, _:
            heard = Heard.CANCELLED
        case ddi.Execution.SCHEDULED, _:
            heard, stage = Heard.PROGRESS, stage or AssignmentState.DEFERRED
        case _:
            heard = Heard.PROGRESS
    return Report(heard, stage, said.details, said.progress)


def cancel_report_of(said: ddi.Feedback) -> Report:
    """What a feedback on a cancel action means."""
    match said.execution, said.finished:
        case ddi.Execution.REJECTED, _:
            heard = Heard.CANCEL_REFUSED
        case ddi.Execution.CLOSED, ddi.Finished.FAILURE:
            heard = Heard.CANCEL_REFUSED
        case ((ddi.Execution.CLOSED | ddi.Execution.CANCELED), _):
            heard = Heard.CANCELLED
        case _:
            heard = Heard.CANCEL_PROGRESS
    return Report(heard, said.stage, said.details, said.progress)


def _asked(request: Request) -> tuple[Edge, str | None, int]:
    edge = edge_of(request)
    known = edge.authenticate(request)
    action = request.path_params["action"]
    # No database holds larger ids; such an action is simply unknown.
    return edge, known.vin if known else None, action if action < 2**62 else 0


def _deployment(edge: Edge, request: Request, found: Offer) -> ddi.Deployment:
    metadata = {
        ddi.META_SEQUENCE: str(found.sequence),
        ddi.META_RELEASE: found.release,
        ddi.META_KIND: found.kind.value,
        ddi.META_GENERATION: str(found.generation),
    }
    bundle = found.bundle
    if bundle is None:
        # No artifact: a client that does not know this part reports a failure, and then gets the bundle.
        chunk = ddi.Chunk(ddi.PART_SLOT, found.release, str(found.sequence), (), metadata)
        return ddi.Deployment(found.action, (chunk,))
    href = f"{_mirror(edge, request, bundle)}/{quote(bundle.path)}"
    artifact = ddi.DdiArtifact(bundle.filename, bundle.sha1, bundle.sha256, bundle.size, href)
    metadata[ddi.META_TUF_NAME] = bundle.tuf_name
    chunk = ddi.Chunk(ddi.PART_BUNDLE, found.release, str(found.sequence), (artifact,), metadata)
    return ddi.Deployment(found.action, (chunk,))


def _mirror(edge: Edge, request: Request, bundle: EnabledBundle) -> str:
    """Where the vehicle shall download: never from a place that was not read back. Raises MirrorUnprovenError."""
    if edge.elsewhere is not None and edge.elsewhere.holds(bundle):
        return edge.elsewhere.url
    if edge.serves_files:
        return f"{_origin(request)}/mirror"
    raise MirrorUnprovenError(
        f"no server is known to hold '{bundle.filename}'",
        why="this gateway serves no files, and the server for downloads has not given the published bytes yet",
        next="ask again in a minute; the gateway's log says what is wrong with that server",
    )


def _origin(request: Request) -> str:
    # As the client wrote it; parsing the whole URL would cost more than the look-ups of a poll.
    host = request.headers.get("host")
    return f"{request.scope['scheme']}://{host}" if host else f"{request.url.scheme}://{request.url.netloc}"
