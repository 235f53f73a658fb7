"""What a drill asks of a client, whoever it is: look at a world, and say what you did.

Clients that are programs are watched: something that is sent without end is watched for a few seconds from its first
byte on, and then the client is ended, with all that it has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from nwmctl.app.drill.server import Stand
from nwmctl.domain.drill import Counterparty
from nwmctl.trust.attacks.scene import Act, House


class Did(Enum):
    """What a client did with what it was shown."""

    ACCEPTED = auto()
    REFUSED = auto()
    HELD = auto()
    """It was still at it when the drill stopped watching."""
    SKIPPED = auto()
    """It went on with the honest part, and nothing of the rest took effect."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``words`` are the client's own as far as it has any; ``error`` is the class of a refusal of ours."""

    did: Did
    words: str
    error: str = ""


class Session(Protocol):
    """One client with what it remembers; a new one for every attack."""

    def see(self, act: Act, stand: Stand) -> Answer:
        """Let the client update itself from what is served now."""
        ...


class Adapter(Protocol):
    """A kind of client."""

    @property
    def party(self) -> Counterparty:
        """Which client, its version, and why it cannot take part if it cannot."""
        ...

    def begin(self, house: House, folder: Path) -> Session:
        """A new client in ``folder``, as it leaves the factory."""
        ...


WATCHED_S = 5.0
"""How long a client is watched at something that has no end."""
MOST_S = 120.0
"""How long a client may take at anything else: a busy machine is no attack."""
_LOOK_S = 0.1


def run_watched(order: Sequence[str], folder: Path, environment: Mapping[str, str], stand: Stand) -> tuple[str, bool]:
    """Run a client; what it said on both outputs, and whether it had to be ended."""
    said = folder / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            list(order),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=folder,
            start_new_session=True,
        )
        try:
            ended = _ends(process, stand)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return said.read_text(errors="replace"), not ended


def _ends(process: subprocess.Popen[bytes], stand: Stand) -> bool:
    looks = hostile = 0
    while looks * _LOOK_S < MOST_S and hostile * _LOOK_S < WATCHED_S:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
            return True
        looks += 1
        hostile += stand.hostile.is_set()
    return False
