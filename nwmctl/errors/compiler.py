"""Refusals of the search and the cost model. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, RefusedError


class NoCandidateError(InputError):
    """No toolchain here builds for a unit, so there is nothing to search."""


class NothingPassedError(RefusedError):
    """Every candidate of a search failed or was rejected."""
