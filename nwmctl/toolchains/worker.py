"""The process in which an artifact executes: ``python -m nwmctl.toolchains.worker RUNTIME PAYLOAD PORTS``.

Reads frames of inputs from stdin, answers frames of outputs on stdout, until stdin ends. One thread. Whatever the
runtime raises becomes an error frame; what it prints goes to stderr, because stdout belongs to the frames. A crash of
the runtime is a crash of this process and of no other.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nwmctl.toolchains.framing import pack, unpack
from nwmctl.toolchains.lowering import ENTRY
from nwmctl.toolchains.protocol import Tensors

Run = Callable[[Tensors], Tensors]


def main(argv: list[str]) -> int:
    """Serve until stdin ends."""
    runtime, payload, ports = argv[0], argv[1], json.loads(argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        run = {"iree": _iree, "onnxruntime": _onnxruntime}[runtime](payload, ports)
    except Exception as problem:  # whatever a runtime says about a payload it does not take
        _answer(answers, {}, f"the payload cannot be loaded: {_said(problem)}")
        return 1
    _answer(answers, {})
    return _serve(run, sys.stdin.buffer, answers)


def _serve(run: Run, asked: BinaryIO, answers: BinaryIO) -> int:
    def exactly(count: int) -> bytes:
        data = asked.read(count)
        if len(data) != count:
            raise EOFError
        return data

    while True:
        try:
            frame = unpack(exactly)
        except EOFError:
            return 0
        try:
            outputs = run(frame.tensors)
        except Exception as problem:  # as above
            _answer(answers, {}, f"the runtime refused the inputs: {_said(problem)}")
            continue
        _answer(answers, outputs)


def _answer(answers: BinaryIO, outputs: Mapping[str, NDArray[np.generic]], error: str = "") -> None:
    answers.write(pack(outputs, error))
    answers.flush()


def _said(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:600]}"


def _iree(payload: str, ports: dict[str, list[str]]) -> Run:
    """Batch-1 modules: the rows go through one after the other."""
    import iree.runtime as runtime

    # Synchronous on this thread: with one thread a task queue only adds waiting.
    module = runtime.load_vm_flatbuffer_file(payload, driver="local-sync")
    function = module[ENTRY]

    def once(inputs: Tensors, row: int) -> list[NDArray[Any]]:
        result = function(*(np.ascontiguousarray(inputs[name][row : row + 1]) for name in ports["inputs"]))
        return [each.to_host() for each in (result if isinstance(result, (tuple, list)) else (result,))]

    def run(inputs: Tensors) -> Tensors:
        rows = [once(inputs, row) for row in range(len(inputs[ports["inputs"][0]]))]
        return {name: np.concatenate([row[i] for row in rows]) for i, name in enumerate(ports["outputs"])}

    return run


def _onnxruntime(payload: str, ports: dict[str, list[str]]) -> Run:
    """Whole batches in one call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])

    def run(inputs: Tensors) -> Tensors:
        return dict(zip(ports["outputs"], session.run(ports["outputs"], inputs), strict=True))

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
