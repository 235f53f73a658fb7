"""Whether both parts of a split graph, one after the other, give the whole graph's outputs bit for bit.

Executed by onnxruntime on this host, row by row, at batch 1: a proxy for the cut itself, not for the chips' numerics.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nwmctl.compiler.split_cuts import SplitGraph
from nwmctl.toolchains.onnxruntime import open_model
from nwmctl.toolchains.protocol import Session, Tensors

_TIMEOUT_S = 120.0


def composes(whole: Path, parts: tuple[Path, Path], inputs: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether all outputs of all rows are the same bytes. Raises what loading and running raise."""
    graphs = [SplitGraph(path) for path in (whole, *parts)]
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(open_model(path, graph.ports(graph.inputs), graph.ports(graph.outputs), _TIMEOUT_S))
            for path, graph in zip((whole, *parts), graphs, strict=True)
        ]
        rows = len(next(iter(inputs.values())))
        return all(
            _same(graphs, sessions, {name: values[row : row + 1] for name, values in inputs.items()})
            for row in range(rows)
        )


def _same(graphs: list[SplitGraph], sessions: list[Session], row: Tensors) -> bool:
    def run(index: int, given: Tensors) -> Tensors:
        return sessions[index].run({name: given[name] for name in graphs[index].inputs})

    expected, first = run(0, row), run(1, row)
    found = first | run(2, row | first)
    return all(found[name].tobytes() == values.tobytes() for name, values in expected.items())
