"""What signed metadata say about the ordered bundle, on top of what the vehicle trusted before.

Every order is looked up in freshly verified metadata: the pinned root decides whom to believe, the kept state that
nothing older is believed again; the time is never below the vehicle's floor (``timefloor``). A new state is kept only
after it was verified whole; a newer root is kept at once, so that a revoked key stays revoked. The signed description
of a bundle is compared with the vehicle before a byte of the bundle is fetched. Where the factory pinned a director,
its word is needed too (``uptane``). Blocking: runs beside the event loop.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.errors import BundleContentsError
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.metadata import ListedBundle, most_bytes
from nwmctl.vehicle import disk
from nwmctl.vehicle.client import SignedFile
from nwmctl.vehicle.fit import check_hardware, check_platform, check_requires, check_sequence
from nwmctl.vehicle.lines import Lines, open_lines
from nwmctl.vehicle.machine import Machine
from nwmctl.vehicle.order import BundleOrder, SlotOrder
from nwmctl.vehicle.pace import METADATA_PACE, Pace
from nwmctl.vehicle.record import METADATA_NAME
from nwmctl.vehicle.uptane import confirm_bundle, confirm_slot


class Repository:
    """The repository at ``url`` and the director at ``director`` (no trailing slashes; ``{vin}`` in the latter stands
    for the vehicle's own). ``gateway`` is the origin that may see the vehicle's token."""

    def __init__(self, url: str, gateway: str, clock: Clock, director: str = "", pace: Pace = METADATA_PACE) -> None:
        self._url = url
        self._gateway = gateway
        self._director = director
        self._clock = clock
        self._pace = pace

    def find(self, machine: Machine, order: BundleOrder) -> SignedFile:
        """What signed metadata say about the ordered bundle.

        Raises the refusals of ``trust.client.refresh`` and of ``uptane.confirm_bundle``, BundleNotListedError,
        TransferTooSlowError, BundleContentsError where the gateway says another thing than the metadata, and
        WrongPlatformError, WrongHardwareError, SequenceTooLowError, RequirementLackingError for a bundle that is not
        for this vehicle.
        """
        now_us = machine.time.now_us(self._clock)
        with self._lines(machine) as lines:
            listed = self._listed(machine, order, lines, now_us)
            if machine.trust.director_root is not None:
                confirm_bundle(machine, listed, lines, self._director, now_us)
        machine.time.held_at(self._clock, now_us)
        if (Digest(order.sha256), order.size) != (listed.digest, listed.length):
            raise BundleContentsError(
                f"the gateway offers another file than the repository lists as '{order.tuf_name[:80]}'",
                why=f"{order.size} bytes with sha256:{order.sha256} against {listed.length} with {listed.digest}",
                next="publish the release again; do not install what the gateway offers",
            )
        check_platform(machine.record, listed.about.platform)
        check_hardware(machine.record, listed.about.board, listed.about.revisions)
        check_sequence(listed.about.sequence, machine.slots.state().highest)
        check_requires(machine.record, listed.about.requires, machine.reported())
        return SignedFile(listed.digest, listed.length)

    def allow(self, machine: Machine, order: SlotOrder) -> None:
        """Return if the director, where one is pinned, wants the vehicle to run its own slot. Raises its refusals."""
        if machine.trust.director_root is None:
            return
        now_us = machine.time.now_us(self._clock)
        with self._lines(machine) as lines:
            confirm_slot(machine, order.sequence, lines, self._director, now_us)
        machine.time.held_at(self._clock, now_us)

    def _lines(self, machine: Machine) -> AbstractContextManager[Lines]:
        secure = self._url.startswith("https:")
        return open_lines(self._gateway, machine.record.token, self._pace, self._clock, secure=secure)

    def _listed(self, machine: Machine, order: BundleOrder, lines: Lines, now_us: int) -> ListedBundle:
        def keep(state: TrustedState) -> None:
            disk.replace_file(machine.folder / METADATA_NAME, state.to_bytes())

        before = load_state(machine.folder, machine.trust.root_metadata)
        fetch = lines.fetcher(self._url, most_bytes)
        found = refresh(before, fetch, now_us, keep)
        listed = found.resolve(order.tuf_name)
        if found.state != before:
            keep(found.state)
        return listed


def load_state(folder: Path, pinned_root: bytes) -> TrustedState:
    """What the vehicle in ``folder`` trusted last. Raises MetadataFormatError for a damaged file."""
    path = folder / METADATA_NAME
    return TrustedState.from_bytes(disk.read_file(path)) if path.exists() else TrustedState(pinned_root)
