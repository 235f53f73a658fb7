"""The replayed report: told to the gateway, which is the part of nwmctl that is attacked here.

The report is signed, encoded, decoded and verified by the product's own code, as the gateway does it; only the
database that keeps the counters is a table in memory.
"""

from __future__ import annotations

from nwmctl.domain.drill import Cell, Client, Outcome
from nwmctl.errors import NwmError
from nwmctl.formats.uptane import Ecu
from nwmctl.formats.uptane_reports import Installed, decode_report
from nwmctl.trust.attacks.catalogue import REPLAYED_REPORT
from nwmctl.trust.attacks.scene import House
from nwmctl.trust.attacks.staging import CURRENT, OLDER
from nwmctl.trust.keys import Ed25519Signer
from nwmctl.trust.vehicle_report import sign_report, verify_report


def replay_report(house: House) -> Cell:
    """An honest report, a newer one, and the first once more."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519Signer(Ed25519PrivateKey.generate())
    serial, hardware = next(iter(house.hardware.items()))
    ecus = {serial: Ecu(serial, hardware, key.public)}

    def said(counter: int, sequence: int) -> bytes:
        listed = house.bundles[sequence].listed
        return sign_report(key, serial, counter, Installed(listed.name, listed.length, listed.digest.hex))

    first, second = said(1, OLDER), said(2, CURRENT)
    try:
        counters = verify_report(decode_report(first), ecus, serial, {})
        counters = verify_report(decode_report(second), ecus, serial, counters)
    except NwmError as problem:
        words = f"it did not take an honest report before the attack: {problem.what}"
        return _cell(Outcome.NOT_RUN, words, type(problem).__name__)
    try:
        verify_report(decode_report(first), ecus, serial, counters)
    except NwmError as problem:
        return _cell(Outcome.REFUSED, f"{problem.what}: {problem.why}", type(problem).__name__)
    return _cell(Outcome.EXPOSED, "the gateway took an older report for the newest")


def _cell(outcome: Outcome, words: str, error: str = "") -> Cell:
    return Cell(REPLAYED_REPORT.name, Client.VEHICLE, outcome, words, error)
