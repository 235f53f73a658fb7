"""Runtimes that crash, hang, or answer nonsense: each is one error of ours, and the process is gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Port
from nwmctl.errors import RuntimeCrashedError, RuntimeFailedError, ToolchainTimeoutError
from nwmctl.toolchains import onnxruntime, sessions
from nwmctl.toolchains.process import Command, Limits, own_path
from nwmctl.toolchains.sessions import WorkerSession
from tests.toolchains.models import expected, inputs, worst

INPUTS = (Port("tokens", "float32", ("B", 16, 32)), Port("gain", "float32", ("B", 1)))
OUTPUTS = (Port("features", "float32", ("B", 16, 32)), Port("level", "float32", ("B", 1)))
HELLO = "import os, sys, time\nfrom nwmctl.toolchains.framing import pack\nsys.stdout.buffer.write(pack({}))\n"
FLUSH = "sys.stdout.flush()\n"


@contextmanager
def worker(tmp_path: Path, code: str, timeout_s: float = 10.0) -> Iterator[WorkerSession]:
    folder = tmp_path / "worker"
    folder.mkdir()
    command = Command("the runtime", (sys.executable, "-c", code), folder, Limits(), own_path())
    session = WorkerSession(command, INPUTS, OUTPUTS, timeout_s)
    try:
        yield session
    finally:
        session.close()
    assert session._process.poll() is not None
    assert not folder.exists()


def test_a_crash_names_the_signal_and_the_last_words(tmp_path: Path) -> None:
    crash = "sys.stdin.buffer.read(8)\nsys.stderr.write('about to divide\\n')\nos.kill(os.getpid(), 11)\n"
    code = HELLO + FLUSH + crash
    with worker(tmp_path, code) as session:
        with pytest.raises(RuntimeCrashedError) as caught:
            session.run(inputs(1))
        assert "SIGSEGV" in caught.value.why
        assert "about to divide" in caught.value.why
        with pytest.raises(RuntimeFailedError, match="is closed"):
            session.run(inputs(1))


def test_a_hang_is_ended(tmp_path: Path) -> None:
    with worker(tmp_path, HELLO + FLUSH + "time.sleep(600)\n", timeout_s=4.0) as session:
        with pytest.raises(ToolchainTimeoutError, match="did not answer within 4 s"):
            session.run(inputs(1))


def test_a_hang_that_never_reads_is_ended_too(tmp_path: Path) -> None:
    """More input than a pipe holds must not block us for ever."""
    with worker(tmp_path, HELLO + FLUSH + "time.sleep(600)\n", timeout_s=4.0) as session:
        with pytest.raises(ToolchainTimeoutError):
            session.run(inputs(200))


def test_a_hang_while_loading_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ToolchainTimeoutError):
        with worker(tmp_path, "import time; time.sleep(600)", timeout_s=0.5):
            pass


def test_an_answer_that_drips_is_late(tmp_path: Path) -> None:
    """Every byte alone is in time; the answer as a whole never is."""
    drip = "for _ in range(200): sys.stdout.buffer.write(b'\\x00'); sys.stdout.flush(); time.sleep(0.5)\n"
    with worker(tmp_path, HELLO + FLUSH + drip, timeout_s=3.0) as session:
        with pytest.raises(ToolchainTimeoutError, match="did not answer within 3 s"):
            session.run(inputs(1))


def test_an_answer_larger_than_promised_is_not_taken_in(tmp_path: Path) -> None:
    much = "import numpy; sys.stdout.buffer.write(pack({'features': numpy.zeros((4000, 16, 32), numpy.float32)}))\n"
    with worker(tmp_path, HELLO + FLUSH + much) as session:
        with pytest.raises(RuntimeFailedError, match="answered nonsense") as caught:
            session.run(inputs(1))
    assert "bytes of tensors" in caught.value.why


def test_words_without_end_fill_no_disk(tmp_path: Path) -> None:
    """What a runtime prints goes to a file, and that file has a limit."""
    flood = "os.write(2, b'w' * 300_000)\nsys.stdout.buffer.write(pack({})); sys.stdout.flush()\ntime.sleep(600)\n"
    folder = tmp_path / "flood"
    folder.mkdir()
    limits = Limits(file_bytes=100_000)
    command = Command("the runtime", (sys.executable, "-c", HELLO + FLUSH + flood), folder, limits, own_path())
    with WorkerSession(command, INPUTS, OUTPUTS, 10.0) as session:
        with pytest.raises(RuntimeFailedError):
            session.run(inputs(1))


@pytest.mark.parametrize(
    "answer",
    [
        "sys.stdout.buffer.write(b'\\xff' * 64)",
        "sys.stdout.buffer.write(b'\\x08' + bytes(7) + b'nonsense')",
        "import numpy; sys.stdout.buffer.write(pack({'other': numpy.zeros(3)}))",
        "sys.stdout.buffer.write(pack({}, 'out of tiles'))",
    ],
)
def test_nonsense_and_refusals_are_failures(tmp_path: Path, answer: str) -> None:
    with worker(tmp_path, HELLO + f"{answer}\n" + FLUSH + "time.sleep(600)\n") as session:
        with pytest.raises(RuntimeFailedError):
            session.run(inputs(1))


def test_the_model_as_trained_is_the_reference(model: Path) -> None:
    given = inputs(5)
    with onnxruntime.open_model(model, INPUTS, OUTPUTS) as session:
        assert worst(session.run(given), expected(given)) < 1e-5


def test_a_runtime_leaves_nothing_and_reports_to_nobody(model: Path) -> None:
    """The runtime's own HOME is watched: a device identifier or an event store would appear there."""
    session = onnxruntime.open_model(model, INPUTS, OUTPUTS)
    assert isinstance(session, WorkerSession)
    session.run(inputs(1))
    assert {path.name for path in session._folder.rglob("*")} == {"stderr.txt"}
    session.close()
    assert not session._folder.exists()


def test_a_payload_that_no_runtime_takes(tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"nothing")
    with pytest.raises(RuntimeFailedError, match="onnxruntime failed") as caught:
        sessions.open_worker("onnxruntime", tmp_path / "payload", INPUTS, OUTPUTS, 30.0)
    assert "cannot be loaded" in caught.value.why
