"""Refusals of scenarios that somebody asks for. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError


class ScenarioNameError(InputError):
    """A text names no scenario."""


class ScenarioGeometryError(InputError):
    """A scenario file draws a road or a track that no vehicle can drive."""


class ScenarioStartError(InputError):
    """A scenario file lets vehicles start off their track, off the road, or inside each other."""


class ScenarioLimitError(InputError):
    """A scenario file asks for a speed, a delay or a number of vehicles outside what the simulator knows."""
