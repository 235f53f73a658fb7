"""The process in which an artifact executes: ``python -m nwmctl.toolchains.worker ORDER``, ORDER as JSON.

Reads frames of inputs from stdin, answers frames of outputs on stdout, until stdin ends. One thread. Whatever the
runtime raises becomes an error frame; what it prints goes to stderr, because stdout belongs to the frames. A crash of
the runtime is a crash of this process and of no other. Each answer says what its executions took in the runtime; the
pipe is not in that time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nwmctl.toolchains.framing import pack, unpack
from nwmctl.toolchains.runtimes import LOADERS, Loaded, Order


def main(argv: list[str], loaders: Mapping[str, Callable[[Order], Loaded]] | None = None) -> int:
    """Serve until stdin ends, with the runtimes of ``runtimes`` or with ``loaders``."""
    order = Order.read(json.loads(argv[0]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        loaded = (loaders or LOADERS)[order.runtime](order)
    except Exception as problem:  # whatever a runtime says about a payload it does not take
        _answer(answers, {}, f"the payload cannot be loaded: {_said(problem)}")
        return 1
    _answer(answers, {})
    return _serve(loaded, sys.stdin.buffer, answers)


def _serve(loaded: Loaded, asked: BinaryIO, answers: BinaryIO) -> int:
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
            outputs, seconds = loaded(frame.tensors)
        except Exception as problem:  # as above
            _answer(answers, {}, f"the runtime refused the inputs: {_said(problem)}")
            continue
        _answer(answers, outputs, seconds=seconds)


def _answer(
    answers: BinaryIO, outputs: Mapping[str, NDArray[np.generic]], error: str = "", seconds: Sequence[float] = ()
) -> None:
    answers.write(pack(outputs, error, seconds))
    answers.flush()


def _said(problem: Exception) -> str:
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:600]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
