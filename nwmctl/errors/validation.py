"""Refusals of simulator and checks. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, RefusedError


class PolicyShapeError(InputError):
    """A driving policy returned something that is not a control per lane."""


class UnpairedOutcomesError(InputError):
    """Two closed-loop runs that shall be compared drove different scenarios."""


class ContractBrokenError(InputError):
    """A model file's graph is not what its contract promises."""


class GoldenDataError(InputError):
    """The golden data of a model package cannot be used."""


class CandidateFailedError(RefusedError):
    """An artifact under test crashed, hung or answered in another shape than its contract's."""
