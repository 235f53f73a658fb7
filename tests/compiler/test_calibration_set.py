"""The calibration set: what it is made of, that it is the same everywhere, and that a budget holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration_set import INPUT, SET, Block, CalibrationGraph, calibrate, write_block
from nwmctl.compiler.graph import GraphCount, Kind, count_graph
from nwmctl.domain.artifact import Recipe
from nwmctl.toolchains.files import file_digest
from tests.compiler.counts import recipe

BLOCK = Block("block", 6, 64, 128, 2)
PRODUCTS = 2 * (4 * 2 * 6 * 64 * 64 + 2 * 2 * 6 * 64 * 128)
ATTENTION = 2 * 2 * (2 * 6 * 6 * 64)


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> GraphCount:
    return count_graph(write_block(BLOCK, tmp_path_factory.mktemp("block")).model)


def test_the_same_block_is_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_block(BLOCK, tmp_path / name) for name in "ab")
    assert file_digest(one.model) == file_digest(two.model)
    assert np.array_equal(one.inputs[INPUT], two.inputs[INPUT])


def test_a_block_is_counted_as_worked_out_by_hand(counted: GraphCount) -> None:
    by_kind = {kind: [node for node in counted.nodes if node.kind is kind] for kind in Kind}
    bias = 2 * (4 * 6 * 64 + 6 * 128 + 6 * 64)
    assert sum(node.flops for node in by_kind[Kind.PRODUCT]) == PRODUCTS + bias
    assert sum(node.flops for node in by_kind[Kind.ATTENTION]) == ATTENTION
    assert {node.rows for node in by_kind[Kind.PRODUCT]} == {6}
    assert len(by_kind[Kind.ROWS]) == 2 * 3  # two normalisations and a softmax
    parts = ("query", "key", "value", "mix", "up", "down")
    assert set(counted.groups) == {f"blocks.{index}.{part}" for index in range(2) for part in parts}


def test_what_a_runtime_fuses_is_marked(counted: GraphCount) -> None:
    plain = [node.operator for node in counted.nodes if node.plain]
    assert sorted(set(plain)) == ["Add", "Erf", "Mul"]  # the Gelu that is written out
    for node in counted.nodes:
        assert not node.plain or node.fusable
        assert node.chained in (0, node.writes)
        assert not node.fusable or node.kind is Kind.ELEMENTS


def test_the_set_has_what_each_constant_shows_in() -> None:
    assert len({block.name for block in SET}) == len(SET)
    rows = [block.tokens for block in SET]
    weights = [block.layers * 2 * block.width * block.hidden for block in SET]
    assert min(rows) < 8
    assert max(rows) > 128
    assert max(weights) * 4 > 32e6  # more than most caches
    assert min(weights) * 4 < 1e6


def test_a_budget_ends_a_calibration_between_two_graphs(tmp_path: Path) -> None:
    clock = iter([0.0, 9.0, 21.0])
    seen: list[str] = []

    def measure(graph: CalibrationGraph, recipes: Sequence[Recipe]) -> dict[int, float]:
        seen.append(graph.block.name)
        return {0: 1.0, 2: 2.0}  # the second recipe cannot be built

    recipes = [recipe("iree"), recipe("iree", "int8", quantisation="dynamic"), recipe("openvino")]
    found = calibrate(recipes, "host", tmp_path, measure, lambda: next(clock), 20.0)
    assert seen == [SET[0].name, SET[1].name]
    assert [(each.model, each.recipe.toolchain, each.ms) for each in found] == [
        (name, toolchain, ms) for name in seen for toolchain, ms in (("iree", 1.0), ("openvino", 2.0))
    ]
