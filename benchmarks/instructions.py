"""Executed instructions of one transformer block on Arm cores: ``python -m benchmarks.instructions``.

A count under emulation, never a time. One block (384 wide, 8 heads, 1,536 in the feed-forward part, 128 tokens, batch
1) with seeded weights is compiled by the IREE driver for each recipe below, executed once under QEMU, and what its
kernels execute is counted; loading, and laying weights out anew while loading, is not in the count. Each artifact's
numbers are held against the fp32 reference in numpy. Exits 1 if a goal is missed. ``--tokens`` changes the block.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import write_section
from nwmctl.compiler.build import compile_build
from nwmctl.domain.artifact import Option, Precision, Recipe
from nwmctl.toolchains.counting import Executed, count_executed
from nwmctl.toolchains.files import file_digest, versions
from nwmctl.toolchains.iree import Iree
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Place

RESULTS = Path(__file__).with_name("RESULTS-compiler.md")
TITLE = "Executed instructions (emulated, a count)"
V9 = "+v9a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml"
A78AE, ARMV9 = "cortex-a78ae", "Armv9 with i8mm and bf16"
Floats = NDArray[np.float32]
_CORES: Mapping[str, dict[str, Option]] = {A78AE: {"cpu": "cortex-a78ae"}, ARMV9: {"cpu": "generic", "features": V9}}
_TILED: dict[str, Option] = {"opt_level": "O1", "data_tiling": True}
_RECIPES: tuple[tuple[str, str, Precision, dict[str, Option]], ...] = (
    (A78AE, "fp32, O1", Precision.FP32, {"opt_level": "O1"}),
    (A78AE, "fp32, O3", Precision.FP32, {"opt_level": "O3"}),
    (A78AE, "fp32, tiled", Precision.FP32, _TILED),
    (A78AE, "fp16 products", Precision.FP16, {"opt_level": "O1"}),
    (A78AE, "int8 weights", Precision.INT8, {"opt_level": "O1", "quantisation": "weights"}),
    (A78AE, "int8", Precision.INT8, {"opt_level": "O1"}),
    (A78AE, "int8, microkernels", Precision.INT8, {"opt_level": "O1", "microkernels": True}),
    (ARMV9, "fp32, O1", Precision.FP32, {"opt_level": "O1"}),
    (ARMV9, "bf16, tiled", Precision.BF16, _TILED),
    (ARMV9, "int8", Precision.INT8, {"opt_level": "O1"}),
    (ARMV9, "int8, bf16 rest", Precision.INT8, {"opt_level": "O1", "rest": "bf16"}),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A transformer block: sizes and seeded weights."""

    tokens: int = 128
    width: int = 384
    heads: int = 8
    hidden: int = 1536

    def weights(self) -> dict[str, Floats]:
        """The same for the same sizes: columns of about unit length, small biases."""
        dice, width, hidden = np.random.default_rng(11), self.width, self.hidden
        shapes = dict.fromkeys(("query", "key", "value", "out"), (width, width))
        shapes |= {"up": (width, hidden), "down": (hidden, width)}
        found = {f"{n}.weight": dice.normal(size=shape) / np.sqrt(shape[0]) for n, shape in shapes.items()}
        found |= {f"{n}.bias": dice.normal(size=shape[1]) / 50 for n, shape in shapes.items()}
        return {name: values.astype(np.float32) for name, values in found.items()}

    def row(self, seed: int) -> Floats:
        """One input [1, tokens, width]."""
        return np.random.default_rng(seed).normal(size=(1, self.tokens, self.width)).astype(np.float32)

    def reference(self, x: Floats) -> Floats:
        """What the block computes, in double precision."""
        w = {name: values.astype(np.float64) for name, values in self.weights().items()}

        def norm(v: NDArray[np.float64]) -> NDArray[np.float64]:
            centred = v - v.mean(-1, keepdims=True)
            return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))

        def dense(v: NDArray[np.float64], name: str) -> NDArray[np.float64]:
            return np.asarray(v @ w[f"{name}.weight"] + w[f"{name}.bias"])

        def split(v: NDArray[np.float64]) -> NDArray[np.float64]:
            return v.reshape(1, self.tokens, self.heads, -1).transpose(0, 2, 1, 3)

        given = x.astype(np.float64)
        query, key, value = (split(dense(norm(given), name)) for name in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(self.width / self.heads)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ value
        middle = given + dense(mixed.transpose(0, 2, 1, 3).reshape(given.shape), "out")
        up = dense(norm(middle), "up")
        gelu = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        result: Floats = (middle + dense(gelu, "down")).astype(np.float32)
        return result

    def write(self, path: Path) -> Path:
        """The block as an ONNX file, x [B, tokens, width] -> y of the same shape."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        nodes: list[Any] = []
        held: dict[str, NDArray[Any]] = {
            "heads": np.array([-1, self.tokens, self.heads, self.width // self.heads], np.int64),
            "flat": np.array([-1, self.tokens, self.width], np.int64),
            "scale": np.array(np.sqrt(self.heads / self.width), np.float32),
            "ones": np.ones(self.width, np.float32),
            **self.weights(),
        }

        def add(operator: str, inputs: list[str], out: str, **attributes: Any) -> str:
            nodes.append(helper.make_node(operator, inputs, [out], f"/block/{out}/{operator}", **attributes))
            return out

        def dense(source: str, name: str) -> str:
            return add("Add", [add("MatMul", [source, f"{name}.weight"], f"{name}.product"), f"{name}.bias"], name)

        def heads(name: str, perm: list[int]) -> str:
            return add("Transpose", [add("Reshape", [name, "heads"], f"{name}.heads")], f"{name}.turned", perm=perm)

        first = add("LayerNormalization", ["x", "ones"], "norm1", axis=-1, epsilon=1e-5)
        query, value = (heads(dense(first, name), [0, 2, 1, 3]) for name in ("query", "value"))
        key = heads(dense(first, "key"), [0, 2, 3, 1])
        scores = add("Mul", [add("MatMul", [query, key], "scores"), "scale"], "scaled")
        mixed = add("MatMul", [add("Softmax", [scores], "shares", axis=-1), value], "mixed")
        flat = add("Reshape", [add("Transpose", [mixed], "mixed.turned", perm=[0, 2, 1, 3]), "flat"], "mixed.flat")
        middle = add("Add", ["x", dense(flat, "out")], "middle")
        second = add("LayerNormalization", [middle, "ones"], "norm2", axis=-1, epsilon=1e-5)
        add("Add", [middle, dense(add("Gelu", [dense(second, "up")], "gelu", approximate="tanh"), "down")], "y")
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", self.tokens, self.width]) for n in "xy"]
        tensors = [numpy_helper.from_array(values, name) for name, values in held.items()]
        graph = helper.make_graph(nodes, "block", ports[:1], ports[1:], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())
        return path


@dataclass(frozen=True, slots=True)
class Line:
    """One recipe's outcome. ``error``: the emulated output's largest difference from the reference, relative to the
    reference's range."""

    core: str
    name: str
    executed: Executed
    size: int
    error: float


def build(block: Block, core: str, precision: Precision, options: Mapping[str, Option], folder: Path) -> Compiled:
    """Compile the block for a core, in a folder of its own below ``folder``."""
    model, calibration = folder / "block.onnx", folder / "calibration.npz"
    if not model.exists():
        block.write(model)
        np.savez(calibration, x=np.concatenate([block.row(seed) for seed in range(8)]))
    scratch = Path(tempfile.mkdtemp(dir=folder))
    recipe = Recipe("iree", precision, {**_CORES[core], **options})
    ask = CompileRequest(model, file_digest(model), recipe, "cpu", "", scratch, calibration=calibration)
    return compile_build(Iree(), ask)


def look(block: Block, core: str, name: str, compiled: Compiled) -> Line:
    """Count one decision, and compare its numbers with the reference."""
    x = block.row(99)
    executed = count_executed(compiled.payload, compiled.manifest, {"x": x})
    with Iree().open(compiled.payload, compiled.manifest, Place.EMULATED, 600.0) as session:
        got, wanted = np.asarray(session.run({"x": x})["y"], np.float64), block.reference(x)
    error = float(np.abs(got - wanted).max() / (wanted.max() - wanted.min()))
    return Line(core, name, executed, compiled.manifest.size, error)


def missed(lines: list[Line]) -> list[str]:
    """The goals that were not reached; the rival is always the fewest of its kind."""

    def fewest(core: str, kind: str) -> int:
        return min(line.executed.kernels for line in lines if line.core == core and line.name.startswith(kind))

    # Weights alone being int8 is no int8 arithmetic.
    whole = [line for line in lines if line.name != "int8 weights"]
    orin = min(line.executed.kernels for line in whole if (line.core, line.name[:4]) == (A78AE, "int8"))
    nx = fewest(ARMV9, "int8")
    said = []
    if 2 * orin > fewest(A78AE, "fp32"):
        said.append(f"int8 executes {orin / fewest(A78AE, 'fp32'):.3f} of fp32 on {A78AE}; at most half is the goal")
    if nx >= orin:
        said.append("int8 executes no less with Armv9's matrix instructions")
    wrong = [f"{line.core}, {line.name}" for line in lines if line.error > 0.02]
    return said + [f"the numbers of {name} are not the block's" for name in wrong]


def report(block: Block, lines: list[Line], said: list[str]) -> str:
    """The section of the results."""
    rival = {core: min(x.executed.kernels for x in lines if x.core == core and x.name[:4] == "fp32") for core in _CORES}
    products = block.tokens * (4 * block.width**2 + 2 * block.width * block.hidden + 2 * block.tokens * block.width)
    intro = (
        f"One transformer block: {block.width} wide, {block.heads} heads, {block.hidden} hidden, {block.tokens} "
        f"tokens, batch 1, {products / 1e6:.0f} million multiplications in products; counts are in millions. "
        "**Executed instructions of the artifact's kernels for one execution, counted under QEMU's user emulation: a "
        "count and never a time.** "
        "Loading (laying weights out anew) is not in it. Share: of the fewest that any fp32 recipe executes on that "
        "core. Error: largest difference of the emulated output from numpy in double precision, relative to the "
        "output's range.\n"
    )
    kinds = ("matrix products", "float products", "loads and stores", "branches", "other")
    head = ("core", "recipe", "kernels, M", "share of fp32", *kinds, "runtime", "loading", "size, MB", "error")
    text = [intro, f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for line in lines:
        done = line.executed
        cells = [f"{done.kinds.get(kind, 0) / 1e6:.2f}" for kind in kinds]
        cells += [
            f"{done.runtime / 1e6:.2f}",
            f"{done.loading / 1e6:.2f}",
            f"{line.size / 1e6:.2f}",
            f"{line.error:.1e}",
        ]
        share = f"{done.kernels / rival[line.core]:.3f}"
        text.append(f"| {line.core} | {line.name} | {done.kernels / 1e6:.2f} | {share} | {' | '.join(cells)} |")
    multiplied = [f"{line.core}, {line.name}: {_named(line.executed.products)}" for line in lines]
    text += ["", "What multiplies: " + "; ".join(multiplied) + ".", ""]
    text.append("Goals (int8 at most half of the fewest fp32 on cortex-a78ae; less again on Armv9): ")
    text[-1] += "**reached**." if not said else f"**missed**: {'; '.join(said)}."
    return "\n".join(text)


def _named(products: Mapping[str, int]) -> str:
    return ", ".join(f"{count / 1e6:.2f} M {name}" for name, count in list(products.items())[:3])


def _versions() -> str:
    said = subprocess.run(["qemu-aarch64-static", "--version"], capture_output=True, text=True, check=True).stdout
    names = ("iree-base-compiler", "iree-base-runtime", "onnxruntime", "onnx", "numpy")
    return f"{said.splitlines()[0]}; {versions(*names)}; Python {platform.python_version()}"


def main() -> int:
    """Count, print, write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=128)
    chosen = parser.parse_args()
    block, lines = Block(tokens=chosen.tokens), []
    with tempfile.TemporaryDirectory(prefix="nwmctl-instructions-") as name:
        for core, recipe, precision, options in _RECIPES:
            compiled = build(block, core, precision, options, Path(name))
            lines.append(look(block, core, recipe, compiled))
            print(
                f"{core}, {recipe}: {lines[-1].executed.kernels / 1e6:.2f} million, error {lines[-1].error:.1e}",
                flush=True,
            )
    said = missed(lines)
    when = datetime.datetime.now(datetime.UTC).date()
    text = f"{report(block, lines, said)}\n\n{when}, emulated; {_versions()}."
    print(text)
    if chosen.tokens == Block().tokens:
        write_section(TITLE, "python -m benchmarks.instructions", text, RESULTS)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
