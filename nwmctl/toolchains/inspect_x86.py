"""Reads the assembly text of a host twin: which multiplications it carries out.

x86 instructions have no fixed length, so the compiler's own assembly listing is read instead of the machine code. That
is enough for a twin, which is never shipped; it shows whether the host computes in the asked precision or stands in.
"""

from __future__ import annotations

import re
from collections import Counter

from nwmctl.domain.artifact import Precision
from nwmctl.toolchains.inspection import Inspection, dominant

_INSTRUCTION = re.compile(r"^\t([a-z][a-z0-9]+)\s", re.MULTILINE)
_FP32 = re.compile(r"v?(fn?m(add|sub)(132|213|231)|mul)(ps|ss|pd|sd)$")
_WIDENS = "vcvtph2ps"
WIDE_INTEGERS = frozenset({"vpmulld", "vpmaddwd"})
"""How eight-bit integers are multiplied after widening, where the machine has nothing better."""
_KEPT = (_WIDENS, "vcvtps2ph", "vdpbf16ps", "vpdpbusd", "vpdpbssd", *sorted(WIDE_INTEGERS))


def inspect_x86(listing: str) -> Inspection:
    """What the code of an assembly listing does. Raises InspectionFailedError."""
    counts = Counter(_INSTRUCTION.findall(listing))
    found = {name: count for name, count in counts.items() if _FP32.match(name) or name in _KEPT}
    work = dict.fromkeys(Precision, 0.0)
    work[Precision.FP32] = float(sum(count for name, count in found.items() if _FP32.match(name)))
    work[Precision.BF16] = 2.0 * found.get("vdpbf16ps", 0)
    work[Precision.INT8] = 4.0 * (found.get("vpdpbusd", 0) + found.get("vpdpbssd", 0))
    work[Precision.INT8] += sum(found.get(name, 0) for name in WIDE_INTEGERS)
    widened = min(work[Precision.FP32], 4.0 * found.get(_WIDENS, 0))
    work[Precision.FP16] = widened
    work[Precision.FP32] -= widened
    precision = dominant(work, "the host twin's code")
    found["instructions"] = sum(counts.values())
    notes = ("fp16 operands are widened and multiplied in fp32",) if precision is Precision.FP16 else ()
    return Inspection(dict(sorted(found.items())), precision, notes)
