"""What an inspection says about a payload, and the rule that turns counts into a precision.

The counts are static: a loop's body counts once, so they say what kind of code is there and not how often it runs. The
precision is that of the operands of most multiplications, each instruction weighted with the multiplications that it
carries out per lane set; a label, a file name or a recipe plays no part. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.domain.artifact import Precision
from nwmctl.errors import InspectionFailedError


@dataclass(frozen=True, slots=True)
class Inspection:
    """``found`` counts instructions or operators; ``precision`` follows from them."""

    found: dict[str, int]
    precision: Precision
    notes: tuple[str, ...] = ()


def dominant(work: Mapping[Precision, float], what: str) -> Precision:
    """The precision of most multiplications. Raises InspectionFailedError if there is none at all."""
    if not sum(work.values()):
        raise uninspectable(what, "no multiplication was found in it")
    return max(Precision, key=lambda precision: work.get(precision, 0.0))


def uninspectable(what: str, why: str) -> InspectionFailedError:
    """The refusal to say what is in a payload."""
    return InspectionFailedError(
        f"it cannot be told what is in {what}",
        why=why,
        next="use a toolchain version that this inspection knows, or extend the inspection",
    )


def operators(found: Mapping[str, int], products: Mapping[str, int]) -> Inspection:
    """The inspection of an ONNX graph: operators by element type, of which ``products`` multiply matrices."""
    by_type = {
        Precision.FP32: ("float32", "float64"),
        Precision.FP16: ("float16",),
        Precision.BF16: ("bfloat16",),
        Precision.INT8: ("int8", "uint8"),
    }
    work = {kind: float(sum(products.get(dtype, 0) for dtype in dtypes)) for kind, dtypes in by_type.items()}
    return Inspection(dict(found), dominant(work, "the graph"))
