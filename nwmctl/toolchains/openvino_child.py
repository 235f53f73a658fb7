"""OpenVINO's own work, in a process of its own: ``python -m nwmctl.toolchains.openvino_child HINT``.

Reads ``lowered.onnx`` in the working directory, writes the payload ``model.tar`` (description and weights in one file,
without owner or time) and the report ``openvino.json``: what the model compiled out of that very payload consists of,
as the runtime says. The reader of graphs is the runtime's own; the package's converter would report to its maker.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from nwmctl.toolchains.lowering import LOWERED
from nwmctl.toolchains.runtimes import IR_BIN, IR_XML, compile_model, silent_openvino

PAYLOAD, REPORT = "model.tar", "openvino.json"
PRODUCTS: Final = frozenset({"FullyConnected", "MatMul", "Convolution", "Deconvolution", "GroupConvolution"})
_ABOUT = re.compile(r"^\t<rt_info>.*?^\t</rt_info>\n", re.MULTILINE | re.DOTALL)
"""What the converter notes about the whole model: versions, options, paths. No reader needs it."""
_MEANINGLESS = frozenset({"", "undefined", "dynamic"})


def main(argv: list[str]) -> int:
    """Convert, pack, compile, report."""
    openvino = silent_openvino()
    (hint,) = argv
    core = openvino.Core()
    openvino.serialize(core.read_model(LOWERED), IR_XML, IR_BIN)
    described = _ABOUT.sub("", Path(IR_XML).read_text("utf-8"))
    Path(IR_XML).write_text(described, "utf-8")
    compiled = compile_model(core, core.read_model(IR_XML, IR_BIN), hint)
    pack(Path(PAYLOAD), {IR_XML: described.encode(), IR_BIN: Path(IR_BIN)})
    Path(REPORT).write_text(json.dumps({"found": _found(compiled)}), "utf-8")
    return 0


def pack(out: Path, entries: dict[str, bytes | Path]) -> None:
    """One file out of several, with nothing in it but names and contents."""
    with tarfile.open(out, "w:", format=tarfile.GNU_FORMAT) as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, Path):
                entry.size = content.stat().st_size
                with content.open("rb") as stream:
                    archive.addfile(entry, stream)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def _found(compiled: Any) -> dict[str, int]:
    """Layers of the compiled model by kind and element type. For a product that is the type of its activations as they
    reach it: its own label names the weights' type where only those are integers, and the arithmetic is float."""
    counts: Counter[str] = Counter()
    for operator in compiled.get_runtime_model().get_ops():
        about = operator.get_rt_info()
        kind, precision = (_text(about, key) for key in ("layerType", "runtimePrecision"))
        if kind in PRODUCTS:
            precision = operator.inputs()[0].get_element_type().get_type_name()
        counts[kind if precision in _MEANINGLESS else f"{kind}.{precision}"] += 1
    return dict(sorted(counts.items()))


def _text(about: Any, key: str) -> str:
    return str(about[key].astype(str)) if key in about else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
