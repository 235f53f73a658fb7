"""Cuts of graphs: where they may be, that both parts together are the whole, and which one is taken."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from benchmarks.calibration_set import INPUT, Block, write_block
from nwmctl.app.split import SplitRequest, split_package
from nwmctl.cli.app import app
from nwmctl.compiler.split import BY_OPERATIONS, BY_TIME, SplitOrder, choose, split_model
from nwmctl.compiler.split_check import composes
from nwmctl.compiler.split_cuts import MOST_TENSORS, Cut, SplitGraph
from nwmctl.domain.artifact import Precision
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.figure import Confidence, Figure
from nwmctl.domain.platform import Chip
from nwmctl.domain.split import SplitPlan
from nwmctl.errors import (
    ChipsTooFewError,
    GraphNotSplittableError,
    GraphUnreadableError,
    OutputUnwritableError,
    PlanError,
)
from nwmctl.formats import documents
from nwmctl.storage.resources import platforms_folder
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder, lower
from nwmctl.toolchains.process import Limits
from tests.compiler.counts import chip, known, recipe
from tests.toolchains.models import write_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "nwm-2.5" / "model"
GPU = chip(200.0, gpu_fp32=5.0, gpu_fp16=40.0)
UNKNOWN = known(None, "GB/s")
LIMITS = Limits(120.0)


def order(link: Figure, one: Chip = GPU, precision: str = "fp32") -> SplitOrder:
    return SplitOrder(digest_bytes(b"model"), one, "gpu", recipe(precision=precision), link, 10.0)


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer, lowered."""
    folder = tmp_path_factory.mktemp("block")
    model = write_block(Block("block", 8, 64, 128, 3), folder).model
    return lower(GraphFiles(model), folder, LoweringOrder(Precision.FP32), LIMITS).path


def run(path: Path, given: dict[str, NDArray[Any]], *, optimised: bool) -> dict[str, NDArray[Any]]:
    """One execution by onnxruntime, here."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    wanted = {each.name: given[each.name] for each in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def together(graph: SplitGraph, cut: Cut, folder: Path, given: dict[str, NDArray[Any]], *, optimised: bool) -> Any:
    paths = (folder / "one.onnx", folder / "two.onnx")
    graph.write(cut, paths)
    first = run(paths[0], given, optimised=optimised)
    return first | run(paths[1], given | first, optimised=optimised)


@pytest.mark.parametrize("optimised", [True, False])
def test_every_valid_cut_of_a_small_graph_gives_the_whole_bit_for_bit(
    block: Path, tmp_path: Path, optimised: bool
) -> None:
    graph = SplitGraph(block)
    given = {INPUT: np.random.default_rng(1).normal(size=(1, 8, 64)).astype(np.float32)}
    whole = run(block, given, optimised=optimised)
    cuts = graph.cuts()
    assert len(cuts) >= 9  # around each of the parts of three blocks
    for cut in cuts:
        found = together(graph, cut, tmp_path, given, optimised=optimised)
        assert all(found[name].tobytes() == values.tobytes() for name, values in whole.items()), cut


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 6), st.sampled_from([32, 64]), st.integers(1, 2), st.booleans(), st.integers(0, 2**32 - 1),
    st.data(),
)  # fmt: skip
def test_any_valid_cut_of_any_block(
    tmp_path_factory: pytest.TempPathFactory,
    tokens: int,
    width: int,
    layers: int,
    attention: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    """Not lowered: the graph as it was exported, with a fixed batch, has other operators and names."""
    import onnx

    folder = tmp_path_factory.mktemp("any")
    path = write_block(Block("any", tokens, width, 2 * width, layers, attention), folder).model
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), str(path))
    graph = SplitGraph(path)
    cut = data.draw(st.sampled_from(graph.cuts()))
    given_ = {INPUT: np.random.default_rng(seed).normal(size=(1, tokens, width)).astype(np.float32)}
    whole = run(path, given_, optimised=True)
    found = together(graph, cut, folder, given_, optimised=True)
    assert all(found[name].tobytes() == values.tobytes() for name, values in whole.items())


def test_few_tensors_cross_and_their_bytes_are_counted(block: Path) -> None:
    for cut in SplitGraph(block).cuts():
        assert 1 <= len(cut.crossings) <= MOST_TENSORS
        for each in cut.crossings:
            assert each.tensor.shape[0] == 1
            assert each.bytes == 4 * np.prod([int(size) for size in each.tensor.shape])
        assert cut.bytes == sum(each.bytes for each in cut.crossings)


def test_no_cut_goes_through_a_kernel_of_the_runtime(block: Path) -> None:
    graph = SplitGraph(block)
    inside = {("Erf", "Add"), ("Div", "Erf"), ("Add", "Mul"), ("Add", "LayerNormalization")}
    for cut in graph.cuts():
        before, after = graph.nodes[cut.position - 1], graph.nodes[cut.position]
        single = len(cut.crossings) == 1 and sum(before.output[0] in node.input for node in graph.nodes) == 1
        assert not (single and (before.op_type, after.op_type) in inside)


def test_the_parts_are_the_same_bytes_again(block: Path, tmp_path: Path) -> None:
    cut = SplitGraph(block).cuts()[3]
    files = [(tmp_path / f"{name}1.onnx", tmp_path / f"{name}2.onnx") for name in "ab"]
    for pair in files:
        SplitGraph(block).write(cut, pair)
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_both_parts_together_do_the_work_of_the_whole(block: Path, tmp_path: Path) -> None:
    made = split_model(GraphFiles(block), order(known(10.0, "GB/s")), LIMITS, tmp_path)
    plan = made.plan
    flops = [stage.flops for stage in plan.stages]
    whole = split_model(GraphFiles(block), order(UNKNOWN), LIMITS, tmp_path).plan
    assert sum(flops) == sum(stage.flops for stage in whole.stages)
    assert plan.bytes_per_frame == sum(each.bytes for each in plan.crossings)
    assert plan.gb_per_s == pytest.approx(plan.bytes_per_frame * 10.0 / 1e9)
    one, two = (stage.ms or 0.0 for stage in plan.stages)
    assert plan.transfer_ms == pytest.approx(1e3 * plan.bytes_per_frame / 10e9)
    assert plan.latency_ms == pytest.approx(one + (plan.transfer_ms or 0.0) + two)
    assert plan.throughput_hz == pytest.approx(1e3 / max(one + (plan.transfer_ms or 0.0), two))
    assert plan.latency_ms is not None
    assert plan.whole_ms is not None
    assert plan.latency_ms > plan.whole_ms  # two chips make no single step faster
    assert plan.throughput_hz is not None
    assert 1e3 / plan.whole_ms < plan.throughput_hz < 2e3 / plan.whole_ms


def test_an_unknown_link_leaves_times_open_and_says_so(block: Path, tmp_path: Path) -> None:
    plan = split_model(GraphFiles(block), order(UNKNOWN), LIMITS, tmp_path).plan
    assert (plan.transfer_ms, plan.latency_ms, plan.throughput_hz) == (None, None, None)
    assert plan.balanced_by == BY_TIME
    assert plan.why == ("not known: the bandwidth of the link between two chip",)
    assert documents.decode(SplitPlan, documents.encode(plan), "plan") == plan


def test_an_unknown_peak_balances_by_operations(block: Path, tmp_path: Path) -> None:
    plan = split_model(
        GraphFiles(block), order(known(1.0, "GB/s"), chip(200.0, gpu_fp32=5.0), "fp16"), LIMITS, tmp_path
    ).plan
    assert plan.balanced_by == BY_OPERATIONS
    assert [stage.ms for stage in plan.stages] == [None, None]
    assert "peak of gpu in fp16 of chip" in plan.why[0]
    one, two = (stage.flops for stage in plan.stages)
    assert 0.3 < one / (one + two) < 0.7


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 10**6)), min_size=1, max_size=20),
    st.one_of(st.none(), st.floats(0.001, 100)),
)
def test_the_slower_stage_is_as_fast_as_it_can_be(pieces: list[tuple[float, int]], link: float | None) -> None:
    total = sum(ms for ms, _ in pieces) + 1.0
    before = [sum(ms for ms, _ in pieces[: index + 1]) for index in range(len(pieces))]
    after = [total - ms for ms in before]
    traffic = [count for _, count in pieces]
    chosen = choose(before, after, traffic, link)
    slower = [
        max(one + (count / link / 1e6 if link else 0.0), two)
        for one, two, count in zip(before, after, traffic, strict=True)
    ]
    assert slower[chosen] <= min(slower) * (1.0 + 1e-9 if link else 1.0500001)
    if link is None:
        as_good = [count for count, value in zip(traffic, slower, strict=True) if value <= 1.05 * min(slower)]
        assert traffic[chosen] == min(as_good)


def test_a_slow_link_moves_the_cut_to_where_less_crosses() -> None:
    before, after, traffic = [2.0, 3.0, 4.0], [4.0, 3.0, 2.0], [10_000, 1_000_000, 10_000]
    assert choose(before, after, traffic, 1000.0) == 1
    assert choose(before, after, traffic, 0.1) == 0


def test_a_graph_without_a_valid_cut_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "one", ends[:1], ends[1:])
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    with pytest.raises(GraphNotSplittableError):
        split_model(GraphFiles(path), order(UNKNOWN), LIMITS, tmp_path)


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(GraphUnreadableError):
        SplitGraph(tmp_path / "m.onnx")


def test_cuts_are_in_the_order_of_the_graph(block: Path) -> None:
    positions = [cut.position for cut in SplitGraph(block).cuts()]
    assert all(one < two for one, two in pairwise(positions))


def test_a_difference_between_parts_and_whole_is_seen(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    made = split_model(GraphFiles(model), order(UNKNOWN), LIMITS, tmp_path)
    dice = np.random.default_rng(0)
    given_ = {
        "tokens": dice.normal(size=(2, 16, 32)).astype(np.float32),
        "gain": dice.uniform(0.5, 2.0, size=(2, 1)).astype(np.float32),
    }
    assert composes(made.whole, made.parts, given_)
    import onnx
    from onnx import numpy_helper

    broken = onnx.load(str(made.parts[0]))
    held = next(each for each in broken.graph.initializer if numpy_helper.to_array(each).dtype == np.float32)
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held) * np.float32(1.0001), held.name))
    onnx.save(broken, str(made.parts[0]))
    assert not composes(made.whole, made.parts, given_)


def request(out: Path, **changed: Any) -> SplitRequest:
    values = {"platform": "nt2.0", "variant": "quad-orin", "build": "gpu"} | changed
    return SplitRequest(EXAMPLE, out=out, platforms=platforms_folder(), timeout_s=300.0, **values)


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"platform": "nt9"}, PlanError),
        ({"variant": "dual"}, PlanError),
        ({"build": "npu"}, PlanError),
        ({"platform": "nt2.5", "variant": "nx9031-single", "build": "cpu"}, ChipsTooFewError),
    ],
)
def test_what_cannot_be_split_is_refused_at_once(tmp_path: Path, changed: dict[str, str], refusal: type) -> None:
    with pytest.raises(refusal):
        split_package(request(tmp_path / "out", **changed))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritableError):
        split_package(request(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_example_over_two_orins(tmp_path: Path) -> None:
    """Both parts compiled for the GPU; the files are what the plan says."""
    out = tmp_path / "split"
    arguments = ["split", str(EXAMPLE), "--platform", "nt2.0", "--variant", "quad-orin", "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--link", "8", "--json"])
    assert done.exit_code == 0, done.output
    plan = documents.decode(SplitPlan, (out / "split.json").read_bytes(), "split.json")
    shown = json.loads(done.stdout)
    assert shown["bytes_per_frame"] == plan.bytes_per_frame
    assert plan.identical
    assert plan.link.confidence is Confidence.ASSUMED
    assert plan.latency_ms is not None
    for number, stage in enumerate(plan.stages, start=1):
        assert digest_bytes((out / f"stage-{number}.onnx").read_bytes()) == stage.graph
        assert digest_bytes((out / f"stage-{number}.iree-vmfb").read_bytes()) == stage.payload
        manifest = json.loads((out / f"stage-{number}.manifest.json").read_bytes())
        assert manifest["instruction_set"].startswith("sm_87")
        assert any("mma" in name.lower() for name in manifest["found"]), "tensor-core instructions"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.long
def test_the_generated_transformer_is_split_bit_for_bit(tmp_path: Path) -> None:
    from benchmarks.models import driving_transformer, observations

    made = driving_transformer(tmp_path / "model", width=128, layers=4, tokens=112, rows=(2, 2))
    split = split_model(GraphFiles(made.model), order(known(10.0, "GB/s")), LIMITS, tmp_path)
    assert composes(split.whole, split.parts, observations(2, 5))
    one, two = (stage.flops for stage in split.plan.stages)
    assert 0.3 < one / (one + two) < 0.7


def test_the_table_says_what_is_not_known(block: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nwmctl.cli.split import _print

    plan = split_model(GraphFiles(block), order(UNKNOWN), LIMITS, tmp_path).plan
    _print(plan, tmp_path)
    shown = capsys.readouterr().out
    assert "not known over two chips" in shown
    assert "bandwidth of the link between two chip" in shown
    assert "(assumed)" in shown
    assert "not compared" in shown
