"""All checks of one artifact, in one call."""

from __future__ import annotations

from nwmctl.domain.evidence import CheckResult
from nwmctl.validation.subject import Progress, Settings, StepCost, Subject, Unreachable, Way

__all__ = ["Progress", "Settings", "StepCost", "Subject", "Unreachable", "Way", "validate_artifact"]


def validate_artifact(subject: Subject, settings: Settings, progress: Progress) -> tuple[CheckResult, ...]:
    """Run every check. Never raises for anything that the artifact does."""
    raise NotImplementedError
