"""The one hierarchy of refusals: what happened, why, and what to do next.

Every error that a user can meet is a subclass of ``NwmError`` and carries three sentences. One class stands
for one distinct refusal, so tests and the agent tell refusals apart by type and never by wording. The exit code
belongs to the family. This package imports nothing of the project.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Documented process exit codes (see docs/exit-codes.md)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    INPUT = 3
    VERIFICATION = 4
    REFUSED = 5
    TOOLCHAIN = 6
    MISSING = 7
    CONFLICT = 8
    REMOTE = 9
    PERSON = 10
    INTERRUPTED = 130


class NwmError(Exception):
    """Base of all refusals. ``what`` happened, ``why``, and what to do ``next``; each one sentence or two."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, what: str, *, why: str, next: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next

    def __str__(self) -> str:
        return f"{self.what}\n  why:  {self.why}\n  next: {self.next}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and errors cross process borders.
        return (_rebuild, (type(self), self.what, self.why, self.next))


def _rebuild(kind: type[NwmError], what: str, why: str, next: str) -> NwmError:
    return kind(what, why=why, next=next)


# --- families: one exit code each --------------------------------------------------------------------------------


class InputError(NwmError):
    """A file or an argument of the user is not what it must be."""

    exit_code = ExitCode.INPUT


class VerificationError(NwmError):
    """Bytes are not what somebody signed or promised."""

    exit_code = ExitCode.VERIFICATION


class RefusedError(NwmError):
    """The policy, a check or a gate says no."""

    exit_code = ExitCode.REFUSED


class ToolchainError(NwmError):
    """A compiler or runtime failed."""

    exit_code = ExitCode.TOOLCHAIN


class MissingError(NwmError):
    """Something that must be installed or present is not."""

    exit_code = ExitCode.MISSING


class ConflictError(NwmError):
    """The request contradicts what is already true (a lock, a sequence, a state)."""

    exit_code = ExitCode.CONFLICT


class RemoteError(NwmError):
    """A mirror, a host or a gateway did not do what was asked."""

    exit_code = ExitCode.REMOTE


class PersonNeededError(NwmError):
    """Only a person can decide this; the run stops and can be resumed."""

    exit_code = ExitCode.PERSON
