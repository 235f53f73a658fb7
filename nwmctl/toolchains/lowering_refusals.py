"""What the lowering's child process says when a graph is at fault, and the error class that each of it becomes.

The child knows the reason, the parent raises the error; between them goes a small JSON file. One kind per distinct
refusal. A refusal never quotes a path of this machine.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from nwmctl.errors import (
    CalibrationMismatchError,
    DimensionOpenError,
    ExternalDataDamagedError,
    ExternalDataMissingError,
    ExternalDataOutsideError,
    GraphTooLargeError,
    GraphUnreadableError,
    GroupUnknownError,
    NothingToQuantiseError,
    NwmError,
    OperatorUnsupportedError,
    QuantisationLostError,
    WeightsRangeError,
)

REFUSAL_FILE = "refused.json"


class Refusal(StrEnum):
    """Why a graph is not lowered."""

    UNREADABLE = "unreadable"
    OPERATOR = "operator"
    DIMENSION = "dimension"
    DATA_MISSING = "data_missing"
    DATA_OUTSIDE = "data_outside"
    DATA_DAMAGED = "data_damaged"
    TOO_LARGE = "too_large"
    WEIGHTS_RANGE = "weights_range"
    CALIBRATION = "calibration"
    GROUP_UNKNOWN = "group_unknown"
    NOTHING_TO_QUANTISE = "nothing_to_quantise"
    QUANTISATION_LOST = "quantisation_lost"


_GRAPH = "the model's graph cannot be lowered"
_ERRORS: dict[Refusal, tuple[type[NwmError], str]] = {
    Refusal.UNREADABLE: (GraphUnreadableError, _GRAPH),
    Refusal.OPERATOR: (OperatorUnsupportedError, "the model has an operator that cannot be compiled"),
    Refusal.DIMENSION: (DimensionOpenError, "a shape of the model is not known"),
    Refusal.DATA_MISSING: (ExternalDataMissingError, "the model's weights lie in another file, which is not there"),
    Refusal.DATA_OUTSIDE: (ExternalDataOutsideError, "the model names a file outside its package"),
    Refusal.DATA_DAMAGED: (ExternalDataDamagedError, "the file of the model's weights does not fit the graph"),
    Refusal.TOO_LARGE: (GraphTooLargeError, "the model is too large for this order"),
    Refusal.WEIGHTS_RANGE: (WeightsRangeError, "the model's weights do not fit the precision"),
    Refusal.CALIBRATION: (CalibrationMismatchError, "the calibration data does not fit the model"),
    Refusal.GROUP_UNKNOWN: (GroupUnknownError, "the recipe keeps a group that the model does not have"),
    Refusal.NOTHING_TO_QUANTISE: (NothingToQuantiseError, "there is nothing to quantise"),
    Refusal.QUANTISATION_LOST: (QuantisationLostError, "the lowered graph is not quantised as it was asked"),
}
_EXPORT = "export the model again as ONNX with a symbolic batch and static shapes otherwise"


class Refused(Exception):
    """The graph or the data is at fault, not the tools. Raised in the child only."""

    def __init__(self, kind: Refusal, why: str, next: str = _EXPORT) -> None:
        super().__init__(why)
        self.kind, self.why, self.next = kind, why, next

    def write(self, folder: Path) -> None:
        """Leave the refusal where the parent looks for it."""
        text = json.dumps({"kind": self.kind.value, "why": self.why, "next": self.next})
        (folder / REFUSAL_FILE).write_text(text, "utf-8")


def read_refusal(folder: Path) -> NwmError | None:
    """The error that the child left in a folder; None if it left none."""
    try:
        found = json.loads((folder / REFUSAL_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return None
    kind, what = _ERRORS[Refusal(found["kind"])]
    return kind(what, why=found["why"], next=found["next"])
