"""Refusals of the store, the logs and the database. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import ConflictError, InputError, MissingError, NwmError, VerificationError


class ContentMissingError(MissingError):
    """A digest is not in the content store."""


class ContentCorruptError(VerificationError):
    """Bytes in the content store no longer have their digest."""


class WorkspaceLockedError(ConflictError):
    """Another nwmctl holds the workspace."""


class LogCorruptError(VerificationError):
    """The middle of an append-only log is damaged (a torn tail is not an error)."""


class DatabaseTooNewError(ConflictError):
    """The database was migrated by a newer nwmctl."""


class DatabaseBusyError(ConflictError):
    """Another process has held the database's write lock for too long."""


class DatabaseUnusableError(InputError):
    """The database file cannot be opened, is damaged, or its disk is full."""


class DatabaseDriverMissingError(MissingError):
    """The database's server needs a package that is not installed."""


class DatabaseFailedError(NwmError):
    """The database refused a statement: a defect of nwmctl."""


class WriterClosedError(ConflictError):
    """The database writer no longer takes work, since the process shuts down."""
