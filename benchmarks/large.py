"""Large models: what lowering and compiling one takes, as the most memory that was held and the seconds.

``python -m benchmarks.large 0.1B 1B`` writes the generated driving transformer at these sizes with its weights beside
the graph (one weight at a time; nothing is held whole), lowers it to each form, compiles it by a recipe of each driver,
and writes its section of ``RESULTS-compiler.md``. The memory of a lowering is the peak of its own process as the kernel
counts it (``ru_maxrss``, which includes the libraries), with a limit of its address space; that of a compilation the
peak of any one tool with all its processes, as the drivers meter them, under the limit that every build has. Needs six
times the model on the disk of ``--folder``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.model_graph import Size, write_graph
from benchmarks.results import write_section
from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import Precision, Quantisation, Recipe
from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import NwmError
from nwmctl.toolchains.files import versions
from nwmctl.toolchains.lowering import GraphFiles, Integers, LoweringOrder
from nwmctl.toolchains.protocol import CompileRequest
from nwmctl.toolchains.registry import registry
from nwmctl.toolchains.surroundings import metered

PATH = Path(__file__).with_name("RESULTS-compiler.md")

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
RECIPES: Final = (
    ("host", Recipe("onnxruntime", Precision.FP32)),
    ("host", Recipe("onnxruntime", Precision.INT8, {"quantisation": "weights"})),
    ("host", Recipe("openvino", Precision.FP32)),
    ("gpu", Recipe("iree", Precision.FP16, {"arch": "sm_87", "fp16_scope": "matmul", "opt_level": "O3"})),
    ("cpu", Recipe("iree", Precision.FP32, {"cpu": "cortex-a78ae", "opt_level": "O1"})),
)
"""A recipe of each driver for each unit."""
_COMPILE_S = 1500.0
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


def compile_measured(files: GraphFiles, scratch: Path, unit: str, recipe: Recipe, memory_bytes: int) -> str:
    """Compile by one recipe; what it took, or why it was refused, in words."""
    scratch.mkdir(parents=True)
    request = CompileRequest(
        files.model, digest_bytes(b""), recipe, unit, "540.4.0", scratch, _COMPILE_S, memory_bytes, 64 << 30,
        files.data, files.calibration,
    )  # fmt: skip
    began = time.perf_counter()
    with metered() as meter:
        try:
            made = compile_build(registry().get(recipe.toolchain), request)
        except NwmError as problem:
            took = time.perf_counter() - began
            return f"refused after {took:.0f} s: {problem.what}: {problem.why}"[:400]
    took = time.perf_counter() - began
    found = f"{made.manifest.found_precision}, payload {made.manifest.size / _MIB:.0f} MiB"
    return f"peak {meter.peak_bytes / _MIB:.0f} MiB, {took:.0f} s ({meter.cpu_s:.0f} CPU s), {found}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What lowering a large model takes.")
    parser.add_argument("sizes", nargs="*", default=["0.1B"], choices=[*SIZES, []])
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--memory", type=float, default=8.0, help="GiB of address space that the lowering may use")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--no-write", action="store_true", help="do not write the results")
    asked = parser.parse_args()
    limit = int(asked.memory * (1 << 30))
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    for name in asked.sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder, prefix="large-") as folder:
            root = Path(folder)
            files = write_large(root / "model", name)
            assert files.data is not None
            say(f"\n**{name}**, {files.data.stat().st_size / _MIB:.0f} MiB of weights beside the graph\n")
            for form in asked.forms:
                try:
                    peak, took = lower_measured(files, root / "s", FORMS[form], limit)
                    written = sum(path.stat().st_size for path in (root / "s").glob("lowered.onnx*")) / _MIB
                    said = f"peak {peak:.0f} MiB, {took:.1f} s, {written:.0f} MiB written"
                except NwmError as problem:
                    said = f"refused: {problem.why}"
                say(f"- lowering to {form}: {said}")
                shutil.rmtree(root / "s")
            for unit, recipe in RECIPES:
                said = compile_measured(files, root / "s", unit, recipe, limit)
                options = " ".join(f"{option}={value}" for option, value in recipe.options.items())
                say(f"- {recipe.toolchain} {recipe.precision} for {unit} {options}".rstrip() + f": {said}")
                shutil.rmtree(root / "s")
    tools = versions("onnx", "onnxruntime", "openvino", "iree-base-compiler")
    say(f"\nLimit {asked.memory:g} GiB. {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {tools},"
        f" {datetime.now(UTC).date()}.")  # fmt: skip
    if not asked.no_write:
        write_section("Large models", "python -m benchmarks.large " + " ".join(asked.sizes), "\n".join(lines), PATH)


if __name__ == "__main__":
    main()
