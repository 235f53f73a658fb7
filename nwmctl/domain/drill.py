"""An attack drill: which client was shown which attack, and what it did. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Client(StrEnum):
    """Who is attacked."""

    VEHICLE = "vehicle"
    """nwmctl's own vehicle client: the Uptane verifier, then the installer."""
    TUF_JS = "tuf-js"
    """A TUF client that shares no code with ours; it knows no director and opens no bundle."""
    SWUPDATE = "swupdate"
    """The installer alone, which checks a bundle's own signature and reads no repository metadata."""


class Outcome(StrEnum):
    """What came of an attack on one client."""

    REFUSED = "refused"
    """The client said no by itself, and went on working."""
    UNHARMED = "unharmed"
    """The client did not notice, and nothing of the attacker's took effect."""
    EXPOSED = "exposed"
    """The client installed or accepted what the attacker wanted, or was held up without end."""
    NOT_APPLICABLE = "not_applicable"
    """The client does not have what is attacked."""
    NOT_RUN = "not_run"
    """Nobody knows: the client is not installed here, or refused an honest release before the attack."""


class Holds(StrEnum):
    """What the attacker has."""

    NETWORK = "the network, or a mirror"
    TIMESTAMP_KEY = "the timestamp key"
    REPOSITORY_KEYS = "the image repository's and the director's keys"
    DIRECTOR_KEY = "the director's key"
    NEGLECT = "nothing"


@dataclass(frozen=True, slots=True)
class Counterparty:
    """A client and its version; ``missing`` says why it could not take part, '' if it did."""

    client: Client
    version: str
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Threat:
    """An attack. ``does`` and ``harm`` are predicates: of the attacker, and of a client that is exposed; ``refusal`` is
    the error class with which the vehicle client must answer."""

    name: str
    title: str
    holds: Holds
    does: str
    stopped_by: str
    harm: str
    refusal: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One attack on one client. ``words`` are the client's own, or the reason why nothing was run; ``error`` is the
    class of the refusal where the client is ours."""

    attack: str
    client: Client
    outcome: Outcome
    words: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class DrillReport:
    """The whole matrix: one cell per attack and client. ``development``: the key that signs it protects nothing."""

    nwmctl: str
    development: bool
    counterparties: tuple[Counterparty, ...]
    threats: tuple[Threat, ...]
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        wanted = {(threat.name, party.client) for threat in self.threats for party in self.counterparties}
        found = [(cell.attack, cell.client) for cell in self.cells]
        if set(found) != wanted or len(found) != len(wanted):
            raise ValueError("a drill has exactly one cell per attack and client")

    @property
    def failures(self) -> tuple[Cell, ...]:
        """What must not be: cells of the vehicle client that are not the refusal that is due."""
        due = {threat.name: threat.refusal for threat in self.threats}
        return tuple(
            cell
            for cell in self.cells
            if cell.client is Client.VEHICLE and (cell.outcome is not Outcome.REFUSED or cell.error != due[cell.attack])
        )
