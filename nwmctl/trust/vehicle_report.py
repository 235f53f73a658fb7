"""Whether a vehicle's version report was signed by its own computers, and is newer than what they said before. Pure.

The primary computer's signature covers everything, each computer's its own part. The primary's counter must have
grown: whoever replays a report, or sends an older one, is refused. A computer that was asleep may repeat its last word,
never an earlier one. ``sign_report`` is the vehicle's side of it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from nwmctl.errors import ReportImplausibleError, ReportReplayedError, ReportUntrustedError
from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.formats.uptane import Dialect, Ecu, key_id
from nwmctl.formats.uptane_reports import (
    Installed,
    Signed,
    VehicleReport,
    ecu_report_value,
    vehicle_report_value,
)
from nwmctl.trust.keys import Signer, verify_ed25519

IMAGE_LEAP = 1_000
"""How far above the highest known a reported version of the image repository may lie. A restored backup is behind by a
few publications; a vehicle that lies must not be able to use up the numbers that all vehicles share."""
DIRECTOR_LEAP = 1_000_000
"""The same for a vehicle's own director metadata, whose versions start from the minute: the clock may have jumped."""


def verify_report(
    report: VehicleReport, ecus: Mapping[str, Ecu], primary: str, counters: Mapping[str, int]
) -> Mapping[str, int]:
    """The counters after this report. ``counters``: the highest of each serial that was accepted before.

    Raises ReportUntrustedError (unknown computer, another primary, or a signature that is not its key's) and
    ReportReplayedError.
    """
    if report.primary != primary:
        raise _untrusted(f"'{report.primary[:80]}' speaks for the vehicle, registered is '{primary}'")
    _check(report.signed, _known(ecus, primary), "the whole report")
    after = dict(counters)
    for said in report.ecus:
        _check(said.signed, _known(ecus, said.serial), f"the report of '{said.serial}'")
        before = counters.get(said.serial, -1)
        stale = said.counter <= before if said.serial == primary else said.counter < before
        if stale:
            raise ReportReplayedError(
                f"'{said.serial}' has reported before",
                why=f"its report has the counter {said.counter}, accepted was {before}",
                next="send a new report with a higher counter; look for somebody who replays messages",
            )
        after[said.serial] = said.counter
    return after


def check_plausible(reported: Mapping[str, int], own: Mapping[str, int], what: str, leap: int) -> None:
    """Raise ReportImplausibleError for a version that lies more than ``leap`` above our own."""
    for role, version in reported.items():
        if version > own.get(role, 0) + leap:
            raise ReportImplausibleError(
                f"a vehicle reports version {version} of the {what}'s {role} metadata",
                why=f"ours is {own.get(role, 0)}; no backup is that old, so the vehicle is mistaken or lies",
                next="look at the vehicle's story; nothing of the report was stored",
            )


def sign_report(
    primary: Signer,
    serial: str,
    counter: int,
    installed: Installed,
    *,
    dialect: Dialect = Dialect.TUF,
    attacks: str = "",
    metadata: Plain = None,
    others: Sequence[tuple[Signer, str, int, Installed]] = (),
) -> bytes:
    """A whole report: the primary computer's part, the others' (key, serial, counter, installed), and the envelope."""
    parts = {serial: _signed(primary, ecu_report_value(serial, counter, installed, attacks, metadata), dialect)}
    for key, name, count, image in others:
        parts[name] = _signed(key, ecu_report_value(name, count, image), dialect)
    return canonical.encode(_signed(primary, vehicle_report_value(serial, parts), dialect))


def installed_of(report: VehicleReport) -> dict[str, Installed]:
    """What each computer runs."""
    return {said.serial: said.installed for said in report.ecus}


def attacks_of(report: VehicleReport) -> dict[str, str]:
    """What computers say about attacks, where they do."""
    return {said.serial: said.attacks for said in report.ecus if said.attacks}


def _known(ecus: Mapping[str, Ecu], serial: str) -> Ecu:
    found = ecus.get(serial)
    if found is None:
        raise _untrusted(f"the computer '{serial[:80]}' is not registered")
    return found


def _check(signed: Signed, ecu: Ecu, what: str) -> None:
    if not any(verify_ed25519(ecu.public, raw, signed.data) for raw in signed.signatures):
        raise _untrusted(f"{what} is not signed by the key of '{ecu.serial}'")


def _signed(key: Signer, value: Plain, dialect: Dialect) -> Plain:
    raw = key.sign(canonical.encode(value))
    row: dict[str, Plain] = {"keyid": key_id(dialect, key.public), "sig": raw.hex()}
    if dialect is Dialect.REFERENCE:
        row = {**row, "method": "ed25519", "sig": base64.b64encode(raw).decode()}
    rows: list[Plain] = [row]
    return {"signatures": rows, "signed": value}


def _untrusted(why: str) -> ReportUntrustedError:
    return ReportUntrustedError(
        "the vehicle's report cannot be trusted",
        why=why,
        next="register the vehicle's computers again if one was replaced; otherwise look for a forger",
    )
