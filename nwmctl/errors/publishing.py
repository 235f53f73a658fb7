"""Refusals of bundling, staging and publishing. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import ConflictError, InputError, RefusedError, RemoteError, VerificationError


class BundlePlanError(InputError):
    """A bundle cannot be put together from these artifacts: one is missing, doubled or of another model."""


class ChassisTemplateError(InputError):
    """The chassis template fails, or what it renders is not an adaptation of the vehicle model."""


class ChassisEnvelopeError(InputError):
    """A chassis adaptation has a figure that no car has, or a limit wider than its platform's control envelope."""


class RuntimeFileError(VerificationError):
    """A runtime that a release carries is not the pinned file."""


class ScriptTemplateError(InputError):
    """The template of a script in a bundle fails, or what it renders does not do its work."""


class BundleFileError(InputError):
    """A bundle's file cannot be read or written."""


class MirrorUriError(InputError):
    """A mirror's address cannot be understood."""


class MirrorNameError(InputError):
    """A name cannot be the name of a file on a mirror."""


class MirrorWriteError(RemoteError):
    """A mirror's folder cannot be written or read."""


class MirrorConflictError(ConflictError):
    """A mirror already has this name with other content, or one name was asked for twice."""


class MirrorReadBackError(VerificationError):
    """What a mirror returns is not what was sent to it."""


class StagedFileChangedError(VerificationError):
    """A local file is no longer what was planned to be staged."""


class TimestampOlderError(ConflictError):
    """A mirror already has a timestamp of the same or a higher version with other content."""


class PublishInterruptedError(RemoteError):
    """Some mirrors have the timestamp and others do not; running again finishes."""


class TrainIncompleteError(RefusedError):
    """A release train lacks a platform or a bundle."""


class TrainMismatchError(RefusedError):
    """The parts of a release train were not built from the same release."""
