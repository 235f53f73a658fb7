"""Refusals of settings, projects, keys and processes. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import (
    ConflictError,
    ExitCode,
    InputError,
    MissingError,
    NwmError,
    RefusedError,
    VerificationError,
)


class FileUnreadableError(InputError):
    """A file that the user named cannot be read."""


class PolicySignatureError(VerificationError):
    """The policy is not what the safety role signed."""


class DiskFullError(MissingError):
    """The workspace's disk has too little room for a run, or became full during one."""


class OutputUnwritableError(InputError):
    """A file that the user asked for cannot be written."""


class ChecksRefusedError(RefusedError):
    """The policy would refuse to sign what was checked."""


class KeysNeededError(MissingError):
    """A real fleet needs a key folder that the user made."""


class ProcessDiedError(NwmError):
    """A process that nwmctl started (gateway, vehicles) ended by itself."""


class CommandLineError(NwmError):
    """A command, option or argument that nwmctl does not have, or one that is missing."""

    exit_code = ExitCode.USAGE


class NoCampaignError(InputError):
    """A command about a campaign, in a workspace that has none."""


class CampaignOverError(ConflictError):
    """A release is to be rolled out again whose campaign has been aborted or rolled back."""


class CampaignStoppedError(RefusedError):
    """A campaign that is being followed was paused or aborted, by a gate or by a person."""


class InterruptedByUserError(NwmError):
    """Somebody pressed Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class NotPublishedError(ConflictError):
    """Something needs the published bundles of a release that has none yet."""


class NoLocalFleetError(InputError):
    """A virtual fleet cannot be driven from this workspace."""


class HostPlatformError(RefusedError):
    """A real fleet's release names a platform whose builds run on the machine that runs nwmctl."""


class ArtifactUnknownError(InputError):
    """A text names no artifact: no model package, no ONNX file, nothing that a run of this workspace compiled."""


class ArtifactAmbiguousError(InputError):
    """A text names several artifacts."""


class ArtifactUnreachableError(MissingError):
    """An artifact cannot execute on this machine in any way."""


class NotDrivableError(InputError):
    """A model wants to see or says something else than the simulator shows or takes."""


class DrillNameError(InputError):
    """There is no attack of that name."""


class DrillFailedError(VerificationError):
    """The vehicle client did not refuse an attack of a drill, or not with the refusal that is due."""
