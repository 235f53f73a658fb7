"""What the repository's signed metadata say about the ordered bundle, on top of what the vehicle trusted before.

Every order is looked up in freshly verified metadata: the pinned root decides whom to believe, the kept state that
nothing older is believed again. A new state is kept only after it was verified whole. The signed description of a
bundle is compared with the vehicle before a byte of the bundle is fetched. Blocking: runs beside the event loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.errors import (
    BundleContentsError,
    GatewayAnswerError,
    GatewayUnreachableError,
)
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.metadata import MAX_TARGETS, Fetch
from nwmctl.vehicle import disk
from nwmctl.vehicle.client import SignedFile
from nwmctl.vehicle.fit import check_hardware, check_platform, check_sequence
from nwmctl.vehicle.link import credentials
from nwmctl.vehicle.machine import Machine
from nwmctl.vehicle.order import BundleOrder
from nwmctl.vehicle.record import METADATA_NAME

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 20.0


class Repository:
    """The repository at ``url`` (no trailing slash); ``gateway`` is the origin that may see the vehicle's token."""

    def __init__(self, url: str, gateway: str, clock: Clock) -> None:
        self._url = url
        self._gateway = gateway
        self._clock = clock

    def find(self, machine: Machine, order: BundleOrder) -> SignedFile:
        """What signed metadata say about the ordered bundle.

        Raises the refusals of ``trust.client.refresh``, BundleNotListedError, BundleContentsError where the gateway
        says another thing than the metadata, and WrongPlatformError, WrongHardwareError, SequenceTooLowError for a
        bundle that is not for this vehicle.
        """
        import httpx

        headers = credentials(self._gateway, machine.record.token, self._url)
        secure = self._url.startswith("https:")
        with httpx.Client(headers=headers, verify=secure, trust_env=False, timeout=_TIMEOUT_S) as http:
            before = load_state(machine.folder, machine.trust.root_metadata)
            found = refresh(before, _fetcher(http, self._url), self._clock.now_us())
        if found.state != before:
            disk.replace_file(machine.folder / METADATA_NAME, found.state.to_bytes())
        listed = found.resolve(order.tuf_name)
        if (Digest(order.sha256), order.size) != (listed.digest, listed.length):
            raise BundleContentsError(
                f"the gateway offers another file than the repository lists as '{order.tuf_name[:80]}'",
                why=f"{order.size} bytes with sha256:{order.sha256} against {listed.length} with {listed.digest}",
                next="publish the release again; do not install what the gateway offers",
            )
        check_platform(machine.record, listed.about.platform)
        check_hardware(machine.record, listed.about.board, listed.about.revisions)
        check_sequence(listed.about.sequence, machine.slots.state().highest)
        return SignedFile(listed.digest, listed.length)


def load_state(folder: Path, pinned_root: bytes) -> TrustedState:
    """What the vehicle in ``folder`` trusted last. Raises MetadataFormatError for a damaged file."""
    path = folder / METADATA_NAME
    return TrustedState.from_bytes(disk.read_file(path)) if path.exists() else TrustedState(pinned_root)


def _fetcher(http: httpx.Client, url: str) -> Fetch:
    import httpx

    def fetch(path: str) -> bytes | None:
        data = bytearray()
        try:
            with http.stream("GET", f"{url}/{path}") as response:
                status = response.status_code
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > MAX_TARGETS:
                        raise _odd(path, f"it has more than {MAX_TARGETS} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise GatewayUnreachableError(
                "the repository cannot be reached",
                why=str(problem) or type(problem).__name__,
                next="check the network and the mirror; vehicles try again",
            ) from problem
        if status == 404:
            return None
        if status != 200:
            raise _odd(path, f"the server answered {status}")
        return bytes(data)

    return fetch


def _odd(path: str, why: str) -> GatewayAnswerError:
    return GatewayAnswerError(
        f"'{path}' cannot be fetched from the repository", why=why, next="check the mirror and its address"
    )
