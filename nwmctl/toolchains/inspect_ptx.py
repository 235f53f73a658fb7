"""Reads PTX: which multiplications, on which units, at which precision.

fp16 without ``mma`` leaves the tensor cores idle; only the text of the kernels tells. The text is what the compiler put
into the payload (the caller makes sure of that). A driver turns it into machine code in the vehicle; nothing here says
anything about that machine code.
"""

from __future__ import annotations

import re
from collections import Counter

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.inspection import Inspection, dominant, uninspectable

_INSTRUCTION = re.compile(r"^[ \t]+(?:@!?%\w+[ \t]+)?([a-z][a-z0-9_.:]*)(?=[\s;])", re.MULTILINE)
_ENTRY = re.compile(r"^\s*(?:\.visible\s+)?\.entry\s", re.MULTILINE)
_VERSION = re.compile(r"^\.version\s+(\S+)", re.MULTILINE)
_CHIP = re.compile(r"^\.target\s+([a-z0-9_]+)", re.MULTILINE)
_MMA = re.compile(r"^w?mma\.(?:sync|mma)\..*?\.m(\d+)n(\d+)k(\d+)\.(.*)$")
_LANES = 32
_KEPT = ("fma.", "dp4a.", "dp2a.")


def inspect_ptx(text: str) -> tuple[Inspection, str]:
    """What the kernels do, and the chip that they are for (``sm_87``). Raises InspectionFailedError."""
    chip, version = _CHIP.search(text), _VERSION.search(text)
    if not chip or not version:
        raise uninspectable("the GPU code", "it is not PTX text with a version and a chip")
    counts = Counter(_INSTRUCTION.findall(text))
    found = {name: count for name, count in counts.items() if _tensor(name) or name.startswith(_KEPT)}
    work = _work(found, counts)
    precision = dominant(work, "the GPU code")
    tensor = sum(count for name, count in found.items() if _tensor(name))
    found["instructions"] = sum(counts.values())
    found["kernels"] = len(_ENTRY.findall(text))
    notes = [f"PTX {version.group(1)}: a driver compiles it further in the vehicle"]
    if not tensor:
        notes.append("no tensor-core instruction: every multiplication runs on the ordinary cores")
    return Inspection(dict(sorted(found.items())), precision, tuple(notes)), chip.group(1)


def _tensor(name: str) -> bool:
    return name.startswith(("mma.", "wmma.mma."))


def _work(found: dict[str, int], counts: Counter[str]) -> dict[Precision, float]:
    """Multiplications per thread, by the operands' precision."""
    work = dict.fromkeys(Precision, 0.0)
    for name, count in found.items():
        if _tensor(name):
            shape = _MMA.match(name)
            if not shape:
                raise uninspectable("the GPU code", f"the tensor-core instruction '{name}' is unknown")
            m, n, k = (int(shape.group(i)) for i in (1, 2, 3))
            work[_operands(shape.group(4), name)] += count * m * n * k / _LANES
        elif name.startswith("fma."):
            half = name.endswith(("f16", "f16x2"))
            brain = name.endswith(("bf16", "bf16x2"))
            kind = Precision.BF16 if brain else Precision.FP16 if half else Precision.FP32
            work[kind] += count * (2 if name.endswith("x2") else 1)
        elif name.startswith(("dp4a.", "dp2a.")):
            work[Precision.INT8] += count * 4
    # Half-precision operands that are widened one by one are multiplied by fma.f32: those multiplications are fp16's.
    widened = float(min(work[Precision.FP32], 2 * (counts["cvt.f32.f16"])))
    work[Precision.FP16] += widened
    work[Precision.FP32] -= widened
    return work


def _operands(types: str, name: str) -> Precision:
    parts = types.split(".")
    for kind, words in (
        (Precision.INT8, {"s8", "u8"}),
        (Precision.BF16, {"bf16"}),
        (Precision.FP16, {"f16"}),
        (Precision.FP32, {"tf32"}),
    ):
        if words.intersection(parts[1:] or parts):
            return kind
    raise uninspectable("the GPU code", f"the operands of '{name}' are of an unknown type")
