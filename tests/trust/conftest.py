"""Keys for the trust tests: made once per session, RSA generation is slow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from nwmctl.trust.keys import KeyRing, KeyRole, init_keys


@dataclass
class FixedClock:
    """A clock that a test sets."""

    us: int

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6


def real_now() -> FixedClock:
    """The present, for tests whose counterparty (swupdate) reads the machine's clock."""
    return FixedClock(int(time.time() * 1e6))


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """A whole development key ring, valid now."""
    folder: Path = tmp_path_factory.mktemp("keys") / "ring"
    return init_keys(folder, real_now(), list(KeyRole), development=True)
