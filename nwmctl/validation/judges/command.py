"""A judge that is a program on this machine.

It runs in a folder of its own, with the question and copies of the artifact's files, in its own process group, with a
fixed environment, a time limit and a memory limit, and leaves its answer there. It is killed with everything it
started. It gets no key from nwmctl: the key that it signs with is its own business.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.judge import JudgeRequest
from nwmctl.errors import (
    JudgeFailedError,
    JudgeTimeoutError,
    JudgeUnreachableError,
    ToolchainError,
    ToolchainMissingError,
    ToolchainTimeoutError,
)
from nwmctl.toolchains.process import Command, Limits, MemoryLimit, own_path, run_tool
from nwmctl.trust.judgements import MAX_ENVELOPE
from nwmctl.validation.judges.protocol import ANSWER, REQUEST, Material, question

PYTHON = "{python}"
"""In a command: the interpreter that runs nwmctl."""
_PATH = "/usr/local/bin:/usr/bin:/bin"
_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class CommandJudge:
    """Runs ``argv``. An item that starts with ``./`` is a file beside the release (``base``)."""

    name: str
    argv: tuple[str, ...]
    base: Path
    timeout_s: float
    memory_mb: int

    def fingerprint(self) -> str:
        """The command with the bytes of every file of the release that it names."""
        state = hashlib.sha256()
        for item in self.argv:
            state.update(item.encode() + b"\0")
            place = self.base / item
            if item.startswith("./") and place.is_file():
                state.update(hashlib.sha256(place.read_bytes()).digest())
        return state.hexdigest()

    def ask(self, request: JudgeRequest, material: Material) -> bytes:
        """See ``Judge.ask``. Raises JudgeUnreachableError, JudgeTimeoutError, JudgeFailedError."""
        with tempfile.TemporaryDirectory(prefix="nwmctl-judge-") as folder:
            place = Path(folder)
            (place / REQUEST).write_bytes(question(request))
            for name, path in material.files.items():
                shutil.copyfile(path, place / name)
            self._run(place)
            return read_answer(self.name, place / ANSWER)

    def _run(self, place: Path) -> None:
        limits = Limits(self.timeout_s, self.memory_mb * _MB, MemoryLimit.DATA)
        command = Command(f"judge '{self.name}'", self._resolved(), place, limits, own_path(), error_pattern="")
        try:
            run_tool(command)
        except ToolchainTimeoutError as problem:
            raise JudgeTimeoutError(
                problem.what, why=problem.why, next="raise its 'timeout_s' in the release, or ask it for less"
            ) from problem
        except ToolchainMissingError as problem:
            raise self._missing(problem.why) from problem
        except ToolchainError as problem:
            raise JudgeFailedError(
                problem.what, why=problem.why, next="run its command by hand on the question of `nwmctl judge request`"
            ) from problem

    def _resolved(self) -> tuple[str, ...]:
        items = [sys.executable if item == PYTHON else self._beside(item) for item in self.argv]
        program = items[0] if "/" in items[0] else shutil.which(items[0], path=_PATH)
        if program is None:
            raise self._missing(f"there is no program '{items[0]}' in {_PATH}")
        return (program, *items[1:])

    def _beside(self, item: str) -> str:
        return str(self.base / item) if item.startswith("./") else item

    def _missing(self, why: str) -> JudgeUnreachableError:
        return JudgeUnreachableError(
            f"judge '{self.name}' cannot be started", why=why, next="correct its 'command' in the release"
        )


def read_answer(name: str, path: Path) -> bytes:
    """What a judge left. Raises JudgeFailedError where it left nothing that can be read."""
    try:
        # A link out of the folder, a pipe without a writer: an answer is a plain file or none at all.
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(2, f"it left no file '{ANSWER}'")
        with path.open("rb") as file:
            return file.read(MAX_ENVELOPE + 1)
    except OSError as problem:
        raise no_answer(name, problem.strerror or str(problem)) from problem


def no_answer(name: str, why: str) -> JudgeFailedError:
    """The refusal for a judge that ended well and said nothing."""
    return JudgeFailedError(
        f"judge '{name}' gave no answer", why=why, next=f"have it write its signed evidence to '{ANSWER}'"
    )
