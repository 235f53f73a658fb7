"""The words for a driving scenario: kinds of road and kinds of trap.

Names only, so that documents, the simulator and the checks speak of the same things. What a kind means, in metres and
seconds, is said in ``driving``. An order here is part of a seed's meaning: new members go last.
"""

from __future__ import annotations

from enum import StrEnum


class Family(StrEnum):
    """The kinds of road."""

    HIGHWAY = "highway"
    MERGE = "merge"
    ROUNDABOUT = "roundabout"
    INTERSECTION = "intersection"
    CURVY = "curvy"


class Trap(StrEnum):
    """The error states that a drive is put into, and has to come back from."""

    OFF_CENTRE = "off_centre"
    HEADING_ERROR = "heading_error"
    TOO_FAST = "too_fast"
    CUT_IN = "cut_in"
    STALLED = "stalled"
    RIGHT_OF_WAY = "right_of_way"
    DROPPED = "dropped"
    LATE = "late"
