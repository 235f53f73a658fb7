"""A tiny real "vendor SDK": a compiler and a runtime, each a program of its own, and a declaration of both.

The compiler checks its arguments, packs the graph into its own format and reports what it did; the runtime unpacks the
payload and executes it with numpy files, as a vendor's would.
"""

from __future__ import annotations

import sys
from pathlib import Path

COMPILER = """#!{python}
import os, pathlib, sys, time
arguments = dict(part.lstrip("-").partition("=")[::2] for part in sys.argv[1:])
if "version" in arguments:
    print("tinycc 4.2 (tiny)")
    sys.exit(0)
mode = arguments.get("mode", "work")
if mode == "hang":
    time.sleep(600)
if mode == "children":
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(arguments["pids"]).write_text(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(600)
if mode == "spam":
    while True:
        print("x" * 9999)
if mode == "memory":
    kept = bytearray(2 << 30)
if mode == "disk":
    with open("filler", "wb") as file:
        while True:
            file.write(b"x" * 65536)
if mode == "signal":
    os.kill(os.getpid(), 11)
if mode == "empty":
    pathlib.Path(arguments["out"]).touch()
    sys.exit(0)
if mode == "copy":
    pathlib.Path(arguments["out"]).write_bytes(pathlib.Path(arguments["model"]).read_bytes())
    sys.exit(0)
if mode == "fail":
    sys.exit("tinycc: fatal: the graph has too many nodes")
if mode == "lie":
    print("[E] could not build the engine")
    sys.exit(0)
graph = pathlib.Path(arguments["model"]).read_bytes()
if mode != "nothing":
    pathlib.Path(arguments["out"]).write_bytes(b"TINY" + bytes([int(arguments["level"])]) + graph)
print("kernel mac=" + ("fp32" if mode == "stay-fp32" else arguments["format"]))
print("kernel mac=" + ("fp32" if mode == "stay-fp32" else arguments["format"]))
"""

RUNTIME = """#!{python}
import pathlib, sys, time
import numpy, onnxruntime
payload = pathlib.Path(sys.argv[1]).read_bytes()
if payload[:4] != b"TINY":
    sys.exit("tinyrun: not a tiny payload")
session = onnxruntime.InferenceSession(payload[5:])
given = {{port.name: numpy.load(f"in{{i}}.npy") for i, port in enumerate(session.get_inputs())}}
begin = time.perf_counter()
for i, values in enumerate(session.run(None, given)):
    numpy.save(f"out{{i}}.npy", values)
print(f"ran {{1e3 * (time.perf_counter() - begin):.6f}} ms")
"""

MEASURER = """#!{python}
import pathlib, sys, time
import numpy, onnxruntime
payload, runs = pathlib.Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
session = onnxruntime.InferenceSession(payload[5:])
given = {{port.name: numpy.load(f"in{{i}}.npy") for i, port in enumerate(session.get_inputs())}}
for _ in range(runs):
    begin = time.perf_counter()
    session.run(None, given)
    print(f"ran {{1e3 * (time.perf_counter() - begin):.6f}} ms")
"""

DECLARATION = """name: tiny
description: a tiny vendor compiler for tests
units: [npu]
precisions: [fp32, fp16]
compile:
  program: {folder}/tinycc
  arguments: ["--model={{{{ model }}}}", "--out={{{{ payload }}}}", "--format={{{{ precision }}}}",
              "--level={{{{ level }}}}", "{{% if mode %}}--mode={{{{ mode }}}}{{% endif %}}",
              "{{% if pids %}}--pids={{{{ pids }}}}{{% endif %}}"]
options: {{level: 3, mode: "", pids: ""}}
version: {{program: {folder}/tinycc, arguments: ["--version"]}}
version_pattern: 'tinycc (\\S+)'
payload: model.tiny
format: tiny
instruction_set: tiny-npu
runtime: tinyrun
install: copy tinycc from the test's folder
error_pattern: '\\[E\\]'
scan_stdout: true
inspect: {{fp16: 'mac=fp16', fp32: 'mac=fp32'}}
run: {{program: {folder}/tinyrun, arguments: ["{{{{ payload }}}}"]}}
run_seconds: 'ran (\\S+) ms'
"""


BENCH = """host: builder
bench: {{chip: tiny-npu, identify: {{program: cat, arguments: [{folder}/chip]}}, pattern: '^tiny-npu$', quick: true}}
"""


MEASURE = """measure:
  command: {{program: {folder}/tinybench, arguments: ["{{{{ payload }}}}", "{{{{ runs + warm_up }}}}"]}}
  samples: 'ran (\\S+) ms'
"""


def install(folder: Path, *, far: bool = False, measures: bool = False) -> Path:
    """Write the SDK and its declaration into ``folder``; returns the folder of declarations. ``far``: it is used on the
    host "builder", which is a bench with a tiny-npu. ``measures``: a program there measures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("tinycc", COMPILER), ("tinyrun", RUNTIME), ("tinybench", MEASURER)):
        (folder / name).write_text(text.format(python=sys.executable))
        (folder / name).chmod(0o755)
    declarations = folder / "toolchains"
    declarations.mkdir(exist_ok=True)
    text = DECLARATION + (BENCH if far else "") + (MEASURE if measures else "")
    (declarations / "tiny.yaml").write_text(text.format(folder=folder))
    (folder / "chip").write_text("tiny-npu\n")
    return declarations
