"""What onnxruntime makes of a graph when it loads it: ``python -m nwmctl.toolchains.onnxruntime_child``.

Loads ``lowered.onnx`` of the working directory as the worker would, and counts the operators of the graph that the
runtime then executes into ``onnxruntime.json``: a graph full of integers proves nothing if the runtime turns them back
into floats. The optimised graph itself is thrown away; it fits this kind of machine and no other.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from nwmctl.toolchains.lowering import LOWERED

REPORT = "onnxruntime.json"
INTEGER_KERNELS: Final = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QAttention"}
    | {"ConvInteger", "QLinearConv"}
)
_OPTIMISED, _WEIGHTS = "optimised.onnx", "optimised.data"


def main() -> int:
    """Load, count, report."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = _OPTIMISED
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    onnxruntime.InferenceSession(LOWERED, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(_OPTIMISED, load_external_data=False).graph
    for name in (_OPTIMISED, _WEIGHTS):
        Path(name).unlink(missing_ok=True)
    counts = Counter(node.op_type for node in graph.node)
    Path(REPORT).write_text(json.dumps(dict(sorted(counts.items()))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
