"""Large models: what lowering one takes, as the most memory that its process held and the seconds.

``python -m benchmarks.large 0.1B 1B`` writes the generated driving transformer at these sizes with its weights beside
the graph (one weight at a time; nothing is held whole), lowers it to each form and prints one line per form. The memory
is the peak of the lowering's own process as the kernel counts it (``ru_maxrss``, which includes the libraries), the
limit that of its address space. Needs three times the model on the disk of ``--folder``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.model_graph import Size, write_graph
from nwmctl.domain.artifact import Precision, Quantisation
from nwmctl.errors import NwmError
from nwmctl.toolchains.lowering import GraphFiles, Integers, LoweringOrder

SIZES: Final = {
    "0.03B": Size(512, 9, 224),
    "0.1B": Size(768, 14, 224),
    "0.6B": Size(1536, 21, 224),
    "1B": Size(2048, 20, 224),
}
"""Width, layers and image tokens by the number of parameters, roughly."""
FORMS: Final = {
    "fp32": LoweringOrder(Precision.FP32),
    "fp16": LoweringOrder(Precision.FP16),
    "int8 weights": LoweringOrder(Precision.INT8, quantisation=Quantisation.WEIGHTS),
    "int8 dynamic": LoweringOrder(Precision.INT8, quantisation=Quantisation.DYNAMIC, integers=Integers.NARROW),
    "int8 static": LoweringOrder(Precision.INT8, quantisation=Quantisation.STATIC),
}
_CHILD = """
import resource, sys
from nwmctl.toolchains import lowering_child
status = lowering_child.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""
_MIB = 1 << 20


def write_large(folder: Path, name: str, rows: int = 8) -> GraphFiles:
    """Write a model of ``SIZES`` with its weights in a file beside it, and calibration data of ``rows`` rows."""
    from benchmarks.models import _save, observations

    folder.mkdir(parents=True, exist_ok=True)
    files = GraphFiles(folder / "model.onnx", folder / "model.onnx.data", folder / "calibration.npz")
    write_graph(files.model, SIZES[name], 1, files.data)
    assert files.calibration is not None
    _save(files.calibration, {f"in/{key}": values for key, values in observations(rows, 2).items()})
    return files


def lower_measured(files: GraphFiles, scratch: Path, order: LoweringOrder, memory_bytes: int) -> tuple[float, float]:
    """Lower in a process of its own; its peak in MiB and its seconds. Raises NwmError where it is refused."""
    import json

    from nwmctl.toolchains.lowering import child_order
    from nwmctl.toolchains.lowering_refusals import read_refusal
    from nwmctl.toolchains.process import Limits

    scratch.mkdir(parents=True)
    said = json.dumps(child_order(files, order, Limits(3600, memory_bytes)))
    limit = f'ulimit -v {memory_bytes >> 10}; exec "$@"'
    began = time.perf_counter()
    ended = subprocess.run(
        ["/bin/sh", "-c", limit, "sh", sys.executable, "-c", _CHILD, said],
        cwd=scratch,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    refusal = read_refusal(scratch)
    if refusal is not None:
        raise refusal
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    return int(ended.stdout.split()[-1]) / 1024, time.perf_counter() - began


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What lowering a large model takes.")
    parser.add_argument("sizes", nargs="*", default=["0.1B"], choices=[*SIZES, []])
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--memory", type=float, default=8.0, help="GiB of address space that the lowering may use")
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    for name in asked.sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder, prefix="large-") as folder:
            root = Path(folder)
            files = write_large(root / "model", name)
            assert files.data is not None
            print(f"{name}: {files.data.stat().st_size / _MIB:.0f} MiB of weights", flush=True)
            for form in asked.forms:
                try:
                    peak, took = lower_measured(files, root / "s", FORMS[form], int(asked.memory * (1 << 30)))
                    written = sum(path.stat().st_size for path in (root / "s").glob("lowered.onnx*")) / _MIB
                    said = f"peak {peak:.0f} MiB, {took:.1f} s, {written:.0f} MiB written"
                except NwmError as problem:
                    said = f"refused: {problem.why}"
                print(f"  {form}: {said}", flush=True)
                shutil.rmtree(root / "s")


if __name__ == "__main__":
    main()
