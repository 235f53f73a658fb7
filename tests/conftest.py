"""Sampling of the long tests.

``--long all`` runs every test; the default ``sample`` runs a few of those marked ``long``, chosen by a printed seed,
so that every run of the suite covers another part of them; ``none`` leaves them out.
"""

from __future__ import annotations

import os
import random
import secrets
from typing import Any

import pytest

from tests.mutants import hunting, lines_of
from tests.postgres import postgres, stores

__all__ = ["hunting", "postgres", "stores"]

SAMPLE = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", choices=["all", "sample", "none"], default="sample", help="which long tests to run")
    parser.addoption("--sample-seed", type=int, default=None, help="repeat the sample of an earlier run")


def pytest_configure(config: pytest.Config) -> None:
    seed = getattr(config, "workerinput", {}).get("sample_seed", config.getoption("--sample-seed"))
    config.stash[_SEED] = seed if seed is not None else secrets.randbelow(1_000_000)
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(_OneSample(config.stash[_SEED]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class _OneSample:
    """Where several processes share the tests, all must have drawn the same sample."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["sample_seed"] = self._seed


_SEED = pytest.StashKey[int]()


def pytest_report_header(config: pytest.Config) -> str:
    which = config.getoption("--long")
    if which != "sample":
        return f"long tests: {which}"
    return f"long tests: a sample of {SAMPLE}; repeat it with --sample-seed {config.stash[_SEED]}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What every hunt for mutants has met: also of tests that pass, in whichever process they ran."""
    stats = terminalreporter.stats
    if lines := lines_of([report for end in ("passed", "failed") for report in stats.get(end, ())]):
        terminalreporter.section("mutants")
        for line in lines:
            terminalreporter.write_line(line)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which = config.getoption("--long")
    long = [item for item in items if item.get_closest_marker("long")]
    if which == "all":
        return
    dice = random.Random(config.stash[_SEED])
    kept = set(dice.sample(long, min(SAMPLE, len(long)))) if which == "sample" else set()
    dropped = [item for item in long if item not in kept]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]
