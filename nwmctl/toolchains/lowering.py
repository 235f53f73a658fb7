"""From the model as trained to the graph that a compiler gets: batch, folded constants, precision, integers.

The result is deterministic and holds no path and no word of the exporter's about its own source. ``lower`` runs the
work in a process of its own (``lowering_child``), because graph libraries crash on odd files and to bound its memory.
Precision fp16 has two scopes: ``matmul`` casts only the matrix products (what tensor cores speed up) and leaves the
geometry in fp32, ``all`` converts every operator that onnxruntime's converter knows. bf16, as precision or as the rest
of an int8 graph, is left to the compiler: the graph stays fp32 there, since a cast in the graph would also round the
sums that a compiler keeps in fp32. Does not compile, and does not choose a precision.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from nwmctl.domain.artifact import Port, Precision, Quantisation
from nwmctl.errors import CompileFailedError
from nwmctl.toolchains.process import Command, Limits, own_path, python_module, run_tool

LOWERED, LOWERED_DATA = "lowered.onnx", "lowered.onnx.data"
ENTRY = "model"
"""The graph's name, and so the name of the function in a compiled module."""
REPORT = "lowered.json"
FOLD_WITH_WEIGHTS = 256 << 20
"""Bytes of weights up to which constants are folded with all weights in memory; above, large weights stay aside."""
EXTERNAL_ABOVE = 3 << 29
"""Bytes of lowered weights above which they lie beside the graph; the format's own limit is 2 GiB for all."""
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "MatMulInteger", "ConvInteger"})


class Scope(StrEnum):
    """What fp16 is applied to."""

    MATMUL = "matmul"
    ALL = "all"


class Integers(StrEnum):
    """Which 8-bit integers a quantised product multiplies. Weights are symmetric per channel in all, and signed in all
    but the last.

    A ``dynamic`` graph takes unsigned activations by the operator's definition, whatever is said here.
    """

    SIGNED = "signed"
    """Signed activations: what IREE turns into ``sdot`` and ``smmla``; unsigned ones stay scalar on Arm."""
    UNSIGNED = "unsigned"
    """Unsigned activations: what x86 multiplies with VNNI, in onnxruntime and OpenVINO."""
    NARROW = "narrow"
    """Unsigned activations and weights of 7 bits: x86 with AVX2 and no VNNI adds two products in 16 bits, which
    saturates with 8-bit weights. Nothing saturates, and the weights are coarser."""
    WIDE = "wide"
    """Unsigned activations and unsigned weights around 128: onnxruntime multiplies these in 32 bits on x86 without
    VNNI. Exact with 8 bits; took a quarter longer than narrow ones there, and still a quarter less than fp32."""


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """A model as trained: its ONNX file, the file of its weights if they lie outside (whatever name the graph has for
    it), calibration data (``.npz``: arrays by input name, alone or as ``in/NAME``, batch first)."""

    model: Path
    data: Path | None = None
    calibration: Path | None = None


@dataclass(frozen=True, slots=True)
class LoweringOrder:
    """What a graph is to become. ``batch`` replaces the symbolic batch, None keeps it.

    ``quantisation`` quantises all groups but those of ``keep``, in ``integers``; ``rest`` is what the products that
    stay float are computed in (fp16 is cast in the graph, bf16 is the compiler's to do). For ``weights`` that is all.
    ``merge``: products that read the same tensor become one; whether that pays is the compiler's, see ``optimising``.
    """

    precision: Precision
    scope: Scope = Scope.MATMUL
    batch: int | None = 1
    quantisation: Quantisation | None = None
    keep: tuple[str, ...] = ()
    integers: Integers = Integers.SIGNED
    rest: Precision = Precision.FP32
    merge: bool = False


@dataclass(frozen=True, slots=True)
class Lowered:
    """The lowered graph's file, its tensors in order, and its operators (``MatMul.float16``) counted after reading
    the file back; a product of quantised operands counts under their type (``MatMul.int8``).

    ``data`` is the file of its weights where they lie outside. ``before``: operators of the model as given.
    ``quantised``: products by operator whose weights are integers (of weights-only ones the arithmetic is float);
    ``groups``: all groups that could be quantised, in the order of the graph, whether they were or not.
    """

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: dict[str, int]
    before: dict[str, int] = field(default_factory=dict)
    quantised: dict[str, int] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    data: Path | None = None

    @property
    def products(self) -> dict[str, int]:
        """Matrix products by the element type of their arithmetic."""
        found: Counter[str] = Counter()
        for name, count in self.operators.items():
            operator, _, dtype = name.partition(".")
            if operator in _PRODUCTS:
                found[dtype] += count
        return dict(found)


def lower(files: GraphFiles, scratch: Path, order: LoweringOrder, limits: Limits) -> Lowered:
    """Write ``lowered.onnx`` into ``scratch``, and ``lowered.onnx.data`` beside it where the weights are large.

    Raises GraphUnreadableError or one of its kinds where the graph or its weights are at fault, GroupUnknownError,
    CalibrationMismatchError, NothingToQuantiseError, QuantisationLostError, and what ``run_tool`` raises.
    """
    # Imported here: it knows all refusals, and a driver that never lowers needs none of them.
    from nwmctl.toolchains.lowering_refusals import read_refusal

    command = Command(
        "the lowering of the graph",
        python_module("nwmctl.toolchains.lowering_child", json.dumps(child_order(files, order, limits))),
        scratch,
        limits,
        own_path(),
        error_pattern="",
    )
    try:
        run_tool(command)
    except CompileFailedError as problem:
        refused = read_refusal(scratch)
        if refused is None:
            raise
        raise refused from problem
    return read_lowered(scratch)


def read_lowered(scratch: Path) -> Lowered:
    """What the child left in its folder."""
    report = json.loads((scratch / REPORT).read_text("utf-8"))
    data = scratch / LOWERED_DATA
    return Lowered(
        scratch / LOWERED,
        tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in report["inputs"]),
        tuple(Port(p["name"], p["dtype"], tuple(p["shape"])) for p in report["outputs"]),
        report["operators"],
        report["before"],
        report["quantised"],
        tuple(report["groups"]),
        data if data.exists() else None,
    )


def child_order(files: GraphFiles, order: LoweringOrder, limits: Limits) -> dict[str, object]:
    """What the child is told. None of it reaches the graph but what ``order`` says."""
    return {
        # Resolved names of folders, and the last part as it is: a link in place of the weights is refused there.
        "model": str(files.model.resolve()),
        "data": os.path.abspath(files.data) if files.data else "",
        "calibration": str(files.calibration.resolve()) if files.calibration else "",
        "precision": order.precision.value,
        "scope": order.scope.value,
        "batch": order.batch or 0,
        "quantisation": order.quantisation.value if order.quantisation else "",
        "keep": list(order.keep),
        "integers": order.integers.value,
        "rest": order.rest.value,
        "merge": order.merge,
        "memory_bytes": limits.memory_bytes,
        "fold_with_weights": FOLD_WITH_WEIGHTS,
        "external_above": EXTERNAL_ABOVE,
    }
