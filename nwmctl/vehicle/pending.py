"""What a vehicle must not forget about an action of the gateway when it loses power.

``action.json`` holds the action that the vehicle works on and how far it durably got; once the outcome is known it
holds what the gateway must be told, until the gateway has acknowledged it, and after that so that an action which is
offered once more is answered and not installed again. Written whole or not at all. Decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nwmctl.errors import NwmError, VehicleStateError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.vehicle import disk

NAME = "action.json"
_SCHEMA = "nwmctl.vehicle-action/1"


class Stage(StrEnum):
    """How far an action got. Of the first two nothing needs to be remembered but the downloaded bytes."""

    ACCEPTED = "accepted"
    DOWNLOADED = "downloaded"
    INSTALLED = "installed"
    TRIAL = "trial"
    CLOSED = "closed"


class Way(StrEnum):
    """What an action asks for."""

    BUNDLE = "bundle"
    """Download and install a bundle."""
    SLOT = "slot"
    """Go back to what lies in the inactive slot."""


class Ending(StrEnum):
    """How an action ended."""

    COMMITTED = "committed"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an action: ``reason`` is the refusal's class, empty for a success; ``text`` is for people;
    ``computer`` the one that failed, empty where it was none in particular."""

    ending: Ending
    reason: str = ""
    text: str = ""
    computer: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """The action at hand; ``sequence`` is the release sequence that it asks for, 0 if it names none.

    ``trial`` is the number of the car's transaction, from that stage on. ``outcome`` is there exactly in the stage
    closed; ``told``: the gateway has acknowledged it.
    """

    action: int
    way: Way
    sequence: int
    stage: Stage = Stage.ACCEPTED
    trial: int = 0
    outcome: Outcome | None = None
    told: bool = False

    def __post_init__(self) -> None:
        if (self.stage is Stage.CLOSED) != (self.outcome is not None):
            raise ValueError("an action has an outcome exactly when it is closed")
        if self.told and self.outcome is None:
            raise ValueError("the gateway cannot know an outcome that there is not")


def load(folder: Path) -> Pending | None:
    """The action at hand, if there is one. Raises VehicleStateError for a damaged file."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        plain = canonical.decode(disk.read_file(path), NAME)
        if not isinstance(plain, dict) or plain.pop("schema", None) != _SCHEMA:
            raise VehicleStateError(f"{NAME} is not {_SCHEMA}", why="another program wrote it", next=_NEXT)
        return from_plain(Pending, plain, Source(NAME))
    except VehicleStateError:
        raise
    except NwmError as problem:
        raise VehicleStateError(
            f"the action of '{folder.name}' cannot be read", why=problem.what, next=_NEXT
        ) from problem


def keep(folder: Path, pending: Pending) -> Pending:
    """Make the action at hand durable."""
    plain = to_plain(pending)
    assert isinstance(plain, dict)
    disk.replace_file(folder / NAME, canonical.encode({"schema": _SCHEMA, **plain}))
    return pending


_NEXT = f"remove {NAME} from the vehicle's folder: the gateway will offer the action again"
