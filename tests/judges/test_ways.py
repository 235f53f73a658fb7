"""Where answers come from, on bad days: files, commands and hosts that are not there, hang, lie or say too much."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.evidence import Verdict
from nwmctl.domain.judge import JudgeSource
from nwmctl.errors import (
    HostKeyError,
    HostUnreachableError,
    JudgeFailedError,
    JudgeTimeoutError,
    JudgeUnreachableError,
    LoginRefusedError,
)
from nwmctl.trust.judgements import MAX_ENVELOPE, weigh_envelope
from nwmctl.validation.judges.choose import outside_judge
from nwmctl.validation.judges.command import CommandJudge
from nwmctl.validation.judges.file import FileJudge
from nwmctl.validation.judges.ssh import SshJudge
from tests.judges.papers import JUDGE, RULES, Papers, made_up
from tests.sshd import Sshd, make_key, running_sshd


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return made_up(tmp_path / "papers")


def command(folder: Path, text: str, timeout_s: float = 20.0, memory_mb: int = 512) -> CommandJudge:
    (folder / "judge.py").write_text(text)
    return CommandJudge("rig", ("{python}", "./judge.py"), folder, timeout_s, memory_mb)


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_that_arrives_later_is_another_answer(tmp_path: Path, papers: Papers) -> None:
    judge = FileJudge("rig", "hil/{platform}-{variant}-{build}-{model}.json", tmp_path)
    before = judge.fingerprint()
    with pytest.raises(JudgeUnreachableError, match=r"hil/virtual-host-host-[0-9a-f]{12}\.json"):
        judge.ask(papers.question, papers.material)
    (tmp_path / "hil").mkdir()
    place = tmp_path / "hil" / f"virtual-host-host-{papers.case.model.short}.json"
    place.write_bytes(b"first")
    arrived = judge.fingerprint()
    place.write_bytes(b"second")
    assert len({before, arrived, judge.fingerprint()}) == 3
    assert judge.ask(papers.question, papers.material) == b"second"


def test_a_file_elsewhere_is_none_of_its_business(tmp_path: Path) -> None:
    judge = FileJudge("rig", "hil/[x]/{artifact}.json", tmp_path)
    before = judge.fingerprint()
    (tmp_path / "hil").mkdir()
    (tmp_path / "hil" / "notes.txt").write_text("nothing")
    assert judge.fingerprint() == before


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_no_answer(tmp_path: Path, papers: Papers, kind: str) -> None:
    import os

    place = tmp_path / "answer"
    place.mkdir() if kind == "folder" else os.mkfifo(place)
    judge = FileJudge("rig", "answer", tmp_path)
    judge.fingerprint()
    with pytest.raises(JudgeUnreachableError):
        judge.ask(papers.question, papers.material)


def test_a_huge_file_is_not_read_whole(tmp_path: Path, papers: Papers) -> None:
    with (tmp_path / "answer").open("wb") as file:
        file.truncate(MAX_ENVELOPE * 100)
    answer = FileJudge("rig", "answer", tmp_path).ask(papers.question, papers.material)
    assert len(answer) == MAX_ENVELOPE + 1
    found = weigh_envelope(answer, JUDGE, papers.case, papers.question.checks, RULES)
    assert "too large" in found.refused


# --- commands -----------------------------------------------------------------------------------------------------


def test_a_command_finds_its_files_and_nothing_else(tmp_path: Path, papers: Papers) -> None:
    text = (
        "import os, pathlib\n"
        "names = sorted(path.name for path in pathlib.Path('.').iterdir())\n"
        "told = '|'.join(names) + '#' + '|'.join(sorted(os.environ))\n"
        "pathlib.Path('artifact.bin').write_bytes(b'spoilt')\n"
        "pathlib.Path('evidence.json').write_text(told)\n"
    )
    names, environment = command(tmp_path, text).ask(papers.question, papers.material).decode().split("#")
    assert names.split("|") == ["artifact.bin", "artifact.json", "model-card.json", "model.onnx", "request.json"]
    assert not {"SSH_AUTH_SOCK", "NWMCTL_KEYS", "PYTEST_CURRENT_TEST"} & set(environment.split("|"))
    assert papers.material.payload.read_bytes() == b"payload"


BAD = {
    "exits with 3": ("raise SystemExit(3)", JudgeFailedError, "exit status 3"),
    "raises": ("raise ValueError('no rig today')", JudgeFailedError, "exit status 1"),
    "dies of a signal": ("import os; os.kill(os.getpid(), 9)", JudgeFailedError, "SIGKILL"),
    "leaves nothing": ("pass", JudgeFailedError, "no answer"),
    "leaves a folder": ("import os; os.mkdir('evidence.json')", JudgeFailedError, "no answer"),
    "leaves a link": ("import os; os.symlink('/etc/passwd', 'evidence.json')", JudgeFailedError, "no answer"),
    "leaves a pipe": ("import os; os.mkfifo('evidence.json')", JudgeFailedError, "no answer"),
    "prints without end": ("while True: print('x' * 9999)", JudgeFailedError, "printed more than"),
    "takes all memory": ("x = bytearray(2 << 30)", JudgeFailedError, "the memory that it needs"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_command_that_fails_is_no_answer(tmp_path: Path, papers: Papers, what: str) -> None:
    text, kind, said = BAD[what]
    with pytest.raises(kind) as refusal:
        command(tmp_path, text).ask(papers.question, papers.material)
    assert said in refusal.value.what
    assert refusal.value.next


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path: Path, papers: Papers) -> None:
    mark = tmp_path / "still-alive"
    late = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    child = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {late!r}])\ntime.sleep(60)"
    with pytest.raises(JudgeTimeoutError, match="did not end within 1 s"):
        command(tmp_path, child, timeout_s=1.0).ask(papers.question, papers.material)
    time.sleep(3.5)
    assert not mark.exists()


@pytest.mark.parametrize("argv", [("no-such-program",), ("./no-such-file",), ("/no/such/program",)])
def test_a_command_that_is_not_there(tmp_path: Path, papers: Papers, argv: tuple[str, ...]) -> None:
    with pytest.raises(JudgeUnreachableError, match="cannot be started"):
        CommandJudge("rig", argv, tmp_path, 5.0, 512).ask(papers.question, papers.material)


def test_a_changed_script_is_asked_again(tmp_path: Path) -> None:
    one = command(tmp_path, "pass").fingerprint()
    two = command(tmp_path, "pass  # better").fingerprint()
    assert one != two
    assert two == command(tmp_path, "pass  # better").fingerprint()


# --- over SSH -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def there(server: Sshd, text: str, timeout_s: float = 20.0) -> SshJudge:
    address = f"{server.user}@127.0.0.1:{server.port}"
    argv = (sys.executable, "-c", text)
    return SshJudge("rig", address, server.host_key, server.identity, argv, timeout_s, 512)


def test_a_command_there_finds_its_files_and_its_folder_is_removed(server: Sshd, papers: Papers) -> None:
    text = (
        "import os, pathlib\n"
        "names = '|'.join(sorted(path.name for path in pathlib.Path('.').iterdir()))\n"
        "pathlib.Path('evidence.json').write_text(names + '#' + os.getcwd())\n"
    )
    names, folder = there(server, text).ask(papers.question, papers.material).decode().split("#")
    assert names.split("|") == ["artifact.bin", "artifact.json", "model-card.json", "model.onnx", "request.json"]
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("import sys; print('no rig today'); sys.exit(3)", JudgeFailedError, "ended with 3"),
        ("pass", JudgeFailedError, "no answer"),
        ("import time; time.sleep(60)", JudgeTimeoutError, "did not end within 1 s"),
        ("x = bytearray(2 << 30)", JudgeFailedError, "ended with 1"),
    ],
)
def test_a_command_there_that_fails(server: Sshd, papers: Papers, text: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        there(server, text, 1.0 if kind is JudgeTimeoutError else 20.0).ask(papers.question, papers.material)


def test_a_huge_answer_there_is_not_fetched_whole(server: Sshd, papers: Papers) -> None:
    text = f"open('evidence.json', 'wb').truncate({MAX_ENVELOPE * 20})"
    assert len(there(server, text).ask(papers.question, papers.material)) == MAX_ENVELOPE + 1


def test_hosts_that_are_not_there_or_not_themselves(server: Sshd, papers: Papers, tmp_path: Path) -> None:
    judge = there(server, "pass")
    other = make_key(tmp_path / "other")
    for wrong, kind in [
        (replace(judge, address=f"{server.user}@127.0.0.1:1"), HostUnreachableError),
        (replace(judge, host_key=other), HostKeyError),
        (replace(judge, identity=tmp_path / "other"), LoginRefusedError),
    ]:
        with pytest.raises(kind):
            wrong.ask(papers.question, papers.material)


# --- a release's entry --------------------------------------------------------------------------------------------


def test_an_entry_means_one_judge(tmp_path: Path) -> None:
    far = JudgeSource("rig", command=("x",), ssh="a@b:22", host_key="ssh-ed25519 AAAA", identity="~/id")
    assert isinstance(outside_judge(far, tmp_path), SshJudge)
    assert isinstance(outside_judge(JudgeSource("rig", command=("x",)), tmp_path), CommandJudge)
    assert isinstance(outside_judge(JudgeSource("rig", file="x"), tmp_path), FileJudge)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "none"),
        ({"file": "x", "command": ("x",)}, "file and command"),
        ({"file": "x", "ssh": "a@b"}, "no 'command'"),
        ({"command": ("x",), "ssh": "host"}, "user@host"),
        ({"command": ("x",), "ssh": "a@b"}, "go together"),
        ({"command": ("x",), "timeout_s": 0.0}, "timeout_s"),
        ({"command": ("x",), "memory_mb": 1}, "memory_mb"),
        ({"file": "x", "name": "a/b"}, "letters"),
        ({"log": "x", "checks": ("parity",)}, "log_replay"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        JudgeSource(**{"name": "rig", **changes})  # type: ignore[arg-type]


def test_silence_is_not_run() -> None:
    from nwmctl.domain.evidence import Check
    from nwmctl.domain.judge import silent

    said = silent("rig", Check.CLOSED_LOOP, "it is asleep", "wake it")
    assert (said.verdict, said.judge) == (Verdict.NOT_RUN, "rig")
