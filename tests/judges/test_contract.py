"""Every judge passes the same suite: a file, a command, a command over SSH, nwmctl's simulator, a replayed log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.evidence import Check
from nwmctl.domain.figure import Obtained
from nwmctl.driving.scenarios import paired
from nwmctl.errors import ToolchainMissingError
from nwmctl.toolchains.protocol import Toolchain
from nwmctl.toolchains.registry import Registry, registry
from nwmctl.trust.judgements import sign_evidence
from nwmctl.validation.judges.command import CommandJudge
from nwmctl.validation.judges.file import FileJudge
from nwmctl.validation.judges.own import OwnJudge
from nwmctl.validation.judges.record import record_expert
from nwmctl.validation.judges.runs import log_run, simulator_run
from nwmctl.validation.judges.ssh import SshJudge
from tests.judges.contract import SUITE, Seat
from tests.judges.papers import CONTRACT, KEY, NAME, compiled, evidence, made_up, write_key
from tests.sshd import running_sshd

SCRIPT = Path(__file__).with_name("judge_script.py")


def by_file(folder: Path) -> Iterator[Seat]:
    papers = made_up(folder / "papers")
    name = f"{papers.case.platform}-{papers.case.artifact.short}.json"
    (folder / name).write_bytes(sign_evidence(evidence(papers.case), KEY))
    yield Seat(FileJudge(NAME, "{platform}-{artifact}.json", folder), papers, FileJudge(NAME, "none.json", folder))


def by_command(folder: Path) -> Iterator[Seat]:
    write_key(folder)
    (folder / "rig.py").write_text(SCRIPT.read_text())
    judge = CommandJudge(NAME, ("{python}", "./rig.py", "./judge.pem"), folder, 30.0, 1024)
    yield Seat(judge, made_up(folder / "papers"), replace(judge, argv=("./no-such-rig",)))


def by_ssh(folder: Path) -> Iterator[Seat]:
    key = write_key(folder)
    with running_sshd(folder / "sshd") as server:
        judge = SshJudge(
            NAME,
            f"{server.user}@127.0.0.1:{server.port}",
            server.host_key,
            server.identity,
            (sys.executable, str(SCRIPT), str(key)),
            30.0,
            1024,
        )
        yield Seat(judge, made_up(folder / "papers"), replace(judge, address=f"{server.user}@127.0.0.1:1"))


def by_simulator(folder: Path) -> Iterator[Seat]:
    judge = OwnJudge(
        NAME, "1", KEY, registry(), Obtained.PROXY, {Check.CLOSED_LOOP: simulator_run(20)}, {"scenarios": "20"}
    )
    papers = compiled(folder, (Check.CLOSED_LOOP,))
    yield Seat(judge, papers, replace(judge, toolchains=Nothing(())))


def by_log(folder: Path) -> Iterator[Seat]:
    log = folder / "drives.parquet"
    record_expert(log, CONTRACT, paired(4, 9_100_000))
    judge = OwnJudge(NAME, "1", KEY, registry(), Obtained.PROXY, {Check.LOG_REPLAY: log_run(log, "drives")})
    papers = compiled(folder, (Check.LOG_REPLAY,))
    yield Seat(judge, papers, replace(judge, toolchains=Nothing(())))


class Nothing(Registry):
    """A machine without toolchains."""

    def get(self, name: str) -> Toolchain:
        raise ToolchainMissingError(f"there is no {name}", why="nothing is installed", next="install it")


KINDS = {"file": by_file, "command": by_command, "ssh": by_ssh, "simulator": by_simulator, "log": by_log}


@pytest.fixture(scope="module", params=KINDS)
def seat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seat]:
    folder = tmp_path_factory.mktemp(f"judge-{request.param}")
    yield from KINDS[request.param](folder)


@pytest.mark.parametrize("law", SUITE, ids=lambda law: law.__name__)
def test_the_contract(seat: Seat, law: Callable[[Seat], None]) -> None:
    law(seat)
