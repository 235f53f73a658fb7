"""Refusals of outside judges and drive logs. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, MissingError, RefusedError, RemoteError, VerificationError


class JudgeUnknownError(RefusedError):
    """A release asks a judge whom the signed policy does not trust, or for a check that it is not trusted with."""


class JudgeUnreachableError(RemoteError):
    """A judge could not be asked: its program, its host or its file is not there."""


class JudgeTimeoutError(RemoteError):
    """A judge did not answer in time."""


class JudgeFailedError(RemoteError):
    """A judge ended without an answer."""


class JudgeEvidenceError(VerificationError):
    """A judge's evidence is malformed, or about something else than was asked."""


class DriveLogError(InputError):
    """A drive log is malformed, or does not fit the model."""


class DriveLogUntrustedError(VerificationError):
    """A drive log is not one that a trusted judge has signed."""


class LogsMissingError(MissingError):
    """Drive logs need pyarrow, which is not installed."""
