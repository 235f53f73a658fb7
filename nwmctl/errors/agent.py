"""Refusals of plan, runner and steps. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import ConflictError, InputError, NwmError


class InternalError(NwmError):
    """A defect of nwmctl itself, caught at the border of a step."""


class StepFailedError(NwmError):
    """A run ended because a step failed and no remedy was left; carries the step's own exit code."""


class RunUnknownError(InputError):
    """No run of that name is in this workspace."""


class RunMismatchError(ConflictError):
    """A run cannot be resumed with another release, policy or profile than it was started with."""


class ModelIncompleteError(InputError):
    """A model package lacks a file that the road needs."""


class PlanError(InputError):
    """What is asked for cannot be planned (an unknown platform, nothing to do)."""
