"""Real keys, made once: two release authorities, of which the vehicles trust the first."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nwmctl.trust.keys import KeyRing, KeyRole, init_keys


class TestClock:
    """The machine's clock."""

    __test__ = False

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture(scope="session")
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory, clock: TestClock) -> KeyRing:
    return init_keys(tmp_path_factory.mktemp("keys") / "ring", clock, list(KeyRole), development=True)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory, clock: TestClock) -> KeyRing:
    folder: Path = tmp_path_factory.mktemp("keys") / "stranger"
    return init_keys(folder, clock, [KeyRole.RELEASE], development=True)
