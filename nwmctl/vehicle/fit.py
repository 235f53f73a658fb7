"""Whether something that is described for a platform, a board and a sequence is for this vehicle. Pure.

Asked twice of every bundle: of the repository's signed description before the download, and of the bundle's own
signed description before a byte goes into a slot. One refusal class per reason.
"""

from __future__ import annotations

from nwmctl.domain.requires import Reported, Requires, unmet
from nwmctl.errors import RequirementLackingError, SequenceTooLowError, WrongHardwareError, WrongPlatformError
from nwmctl.vehicle.record import VehicleRecord

_OWN = "assign the bundle of the vehicle's own platform"


def check_platform(record: VehicleRecord, platform: str) -> None:
    """Raises WrongPlatformError."""
    if platform != record.platform:
        raise WrongPlatformError(
            f"the bundle is for platform '{platform}'",
            why=f"this vehicle is of platform '{record.platform}'",
            next=_OWN,
        )


def check_hardware(record: VehicleRecord, board: str, revisions: tuple[str, ...]) -> None:
    """Raises WrongHardwareError."""
    if board != record.board or record.revision not in revisions:
        raise WrongHardwareError(
            f"the bundle is for {board} {', '.join(revisions)}",
            why=f"this vehicle is {record.board} {record.revision}",
            next=_OWN,
        )


def check_sequence(sequence: int, highest: int) -> None:
    """``highest`` is the highest sequence that the vehicle ever committed. Raises SequenceTooLowError."""
    if sequence < highest:
        raise SequenceTooLowError(
            f"the bundle has release sequence {sequence}",
            why=f"this vehicle has committed {highest} before; an older sequence may bring back what was repaired",
            next="send old content as a return bundle, under a higher sequence",
        )


def check_requires(record: VehicleRecord, requires: Requires, has: Reported) -> None:
    """Raises RequirementLackingError with everything that the vehicle lacks."""
    lacks = unmet(requires, record.variant, has)
    if lacks:
        raise RequirementLackingError(
            "the vehicle lacks what the bundle requires",
            why="; ".join(lacks),
            next="bring the vehicle up to it first, or release with a range that it meets or with 'runtime: carry'",
        )
