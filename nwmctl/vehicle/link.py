"""A vehicle's line to its gateway: DDI over HTTP.

Answers are bounded, and what is not an answer of the protocol is an error of its own. The vehicle's token goes to the
gateway's own origin only: a mirror that a link leads to never sees it. One try per call; who calls decides whether to
try again. Knows no slots.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nwmctl.errors import GatewayAnswerError, GatewayUnreachableError
from nwmctl.formats import ddi
from nwmctl.formats.untrusted import MAX_BODY
from nwmctl.vehicle.faults import Trouble

if TYPE_CHECKING:
    import httpx

_GONE = frozenset({404, 409, 410})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ANSWER_S = 60.0
_GARBAGE = b'{"status":{"execution":"dancing","result":'


class Link:
    """DDI for one vehicle. ``gateway`` is the gateway's URL without a trailing slash."""

    def __init__(
        self, http: httpx.AsyncClient, gateway: str, vin: str, token: str, trouble: Trouble, tenant: str = "default"
    ) -> None:
        self.http = http
        self._base = f"{gateway}/{tenant}/controller/v1/{vin}"
        self._gateway = gateway
        self._token = token
        self._trouble = trouble

    async def poll(self) -> ddi.Polling:
        """Ask what there is to do. Raises GatewayUnreachableError, GatewayAnswerError, DdiFormatError."""
        return ddi.decode_polling(await self._ask("GET", self._base))

    async def deployment(self, href: str) -> ddi.Deployment:
        """What to install. Raises as ``poll``."""
        return ddi.decode_deployment(await self._ask("GET", href))

    async def cancel(self, href: str) -> ddi.Cancel:
        """What to stop. Raises as ``poll``."""
        return ddi.decode_cancel(await self._ask("GET", href))

    async def tell(self, attributes: dict[str, str]) -> None:
        """Say what the vehicle is. Raises as ``poll``."""
        await self._ask("PUT", f"{self._base}/configData", ddi.encode_config_data(attributes))

    async def report(self, feedback: ddi.Feedback, *, cancel: bool = False) -> bool:
        """Say how an action goes; False if the gateway no longer knows the action. Raises as ``poll``."""
        kind = "cancelAction" if cancel else "deploymentBase"
        body = _GARBAGE if self._trouble.garbles() else ddi.encode_feedback(feedback)
        href = f"{self._base}/{kind}/{feedback.action}/feedback"
        status, _ = await self._send("POST", href, body)
        if status in _GONE:
            return False
        _refuse_unless_fine(status, href)
        return True

    def credentials(self, href: str) -> dict[str, str]:
        """The headers that ``href`` may see."""
        return credentials(self._gateway, self._token, href)

    async def _ask(self, method: str, href: str, body: bytes | None = None) -> bytes:
        status, answer = await self._send(method, href, body)
        _refuse_unless_fine(status, href)
        return answer

    async def _send(self, method: str, href: str, body: bytes | None) -> tuple[int, bytes]:
        """Status and body of the answer. Raises GatewayUnreachableError, GatewayAnswerError."""
        import httpx

        if self._trouble.silent:
            raise _unreachable("the vehicle is silent on purpose")
        headers = {**self.credentials(href), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            # All of it, whatever the server does: an answer of the protocol is small.
            async with (
                asyncio.timeout(_ANSWER_S),
                self.http.stream(method, href, content=body, headers=headers) as response,
            ):
                answer = bytearray()
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > MAX_BODY:
                        raise _odd(href, f"the answer is longer than {MAX_BODY} bytes")
                status = response.status_code
        except TimeoutError as problem:
            raise _unreachable(f"its answer was not whole after {_ANSWER_S:g} s") from problem
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise _unreachable(str(problem) or type(problem).__name__) from problem
        if status in _BUSY:
            raise _unreachable(f"it answered {status}")
        return status, bytes(answer)


def credentials(gateway: str, token: str, href: str) -> dict[str, str]:
    """The headers that ``href`` may see: the token goes to the gateway's own origin and nowhere else."""
    import httpx

    here, there = httpx.URL(gateway), httpx.URL(href)
    same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
    return {"Authorization": f"TargetToken {token}"} if same else {}


def _refuse_unless_fine(status: int, href: str) -> None:
    if status in (401, 403):
        raise GatewayAnswerError(
            f"the gateway refuses this vehicle ({status})",
            why="the vehicle's token is not the one in the inventory, or the vehicle is not in it",
            next="import the inventory again with the vehicle's token",
        )
    if not 200 <= status < 300:
        raise _odd(href, f"it answered {status}")


def _odd(href: str, why: str) -> GatewayAnswerError:
    return GatewayAnswerError(
        f"the gateway's answer for '{href.rpartition('/controller/')[2][:80]}' is not one",
        why=why,
        next="check that the URL is a gateway's and that both sides speak the same version",
    )


def _unreachable(why: str) -> GatewayUnreachableError:
    return GatewayUnreachableError(
        "the gateway cannot be reached", why=why, next="check the network and the gateway; vehicles try again"
    )
