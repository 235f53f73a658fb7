"""The static half of the contract check names every mismatch in one refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.artifact import Port
from nwmctl.domain.model import ModelContract, TensorSpec
from nwmctl.errors import ContractBrokenError, ExitCode
from nwmctl.validation.contract import check_graph, check_ports
from tests.validation import plant

EGO, AGENTS, ROUTE = plant.CONTRACT.inputs
CONTROL, OUTLOOK = plant.CONTRACT.outputs


def without_unit(spec: TensorSpec) -> TensorSpec:
    return replace(spec, channels=(replace(spec.channels[0], unit=" "), *spec.channels[1:]))


def limited(spec: TensorSpec, low: float, high: float) -> TensorSpec:
    return replace(spec, channels=(replace(spec.channels[0], low=low, high=high), *spec.channels[1:]))


def refused(tmp_path: Path, graph: ModelContract, contract: ModelContract = plant.CONTRACT) -> str:
    with pytest.raises(ContractBrokenError) as refusal:
        check_graph(plant.write_graph(tmp_path / "model.onnx", graph), contract)
    assert refusal.value.exit_code is ExitCode.INPUT
    assert refusal.value.next
    return str(refusal.value)


def test_a_graph_that_keeps_its_contract_passes(tmp_path: Path) -> None:
    check_graph(plant.write_graph(tmp_path / "model.onnx"), plant.CONTRACT)


def test_a_missing_and_a_surplus_tensor_are_both_named(tmp_path: Path) -> None:
    graph = replace(plant.CONTRACT, inputs=(EGO, AGENTS, replace(ROUTE, name="path")))
    said = refused(tmp_path, graph)
    assert "the model breaks its contract: input 'route' is missing, the graph has agents, ego, path" in said
    assert "input 'path' is in the graph and not in the contract" in said


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            replace(EGO, shape=("B", 5, 6)),
            "input 'ego' is float32[B,5,6] in the graph, the contract says float32[B,4,6]",
        ),
        (replace(EGO, shape=("B", 4)), "input 'ego' is float32[B,4] in the graph"),
        (replace(EGO, shape=(1, 4, 6)), "input 'ego' is float32[1,4,6] in the graph"),
        (replace(EGO, shape=("B", "T", 6)), "input 'ego' is float32[B,T,6] in the graph"),
        (replace(EGO, dtype="float16"), "input 'ego' is float16[B,4,6] in the graph"),
    ],
)
def test_another_shape_or_dtype_is_named_exactly(tmp_path: Path, broken, said: str) -> None:  # type: ignore[no-untyped-def]
    assert said in refused(tmp_path, replace(plant.CONTRACT, inputs=(broken, AGENTS, ROUTE)))


def test_a_missing_output_is_named(tmp_path: Path) -> None:
    assert "output 'outlook' is missing" in refused(tmp_path, replace(plant.CONTRACT, outputs=(CONTROL,)))


def test_another_symbol_for_the_batch_is_the_same_batch(tmp_path: Path) -> None:
    graph = replace(plant.CONTRACT, inputs=(replace(EGO, shape=("batch", 4, 6)), AGENTS, ROUTE))
    check_graph(plant.write_graph(tmp_path / "model.onnx", graph), plant.CONTRACT)


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        (replace(plant.CONTRACT, rate_hz=0.0), "its control rate is 0 Hz"),
        (replace(plant.CONTRACT, control_output="steering"), "control output 'steering' is not among its outputs"),
        (
            replace(plant.CONTRACT, inputs=(replace(EGO, channels=EGO.channels[:2]), AGENTS, ROUTE)),
            "'ego' has 2 channels",
        ),
        (
            replace(plant.CONTRACT, inputs=(replace(EGO, channels=()), AGENTS, ROUTE)),
            "'ego' has 0 channels and the shape [B,4,6]",
        ),
        (
            replace(plant.CONTRACT, inputs=(without_unit(EGO), AGENTS, ROUTE)),
            "channel 'ego.speed' has no unit",
        ),
        (
            replace(plant.CONTRACT, outputs=(without_unit(CONTROL), OUTLOOK)),
            "channel 'control.steer' has no unit",
        ),
        (
            replace(plant.CONTRACT, inputs=(limited(EGO, 3.0, -3.0), AGENTS, ROUTE)),
            "channel 'ego.speed' has the limits 3 to -3 m/s",
        ),
        (replace(plant.CONTRACT, inputs=(EGO, EGO, AGENTS, ROUTE)), "the tensor 'ego' is named twice"),
        (replace(plant.CONTRACT, rate_hz=-5.0), "its control rate is -5 Hz"),
        (replace(plant.CONTRACT, rate_hz=float("nan")), "its control rate is nan Hz"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(tmp_path: Path, contract: ModelContract, said: str) -> None:
    assert said in refused(tmp_path, plant.CONTRACT, contract)


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x08\x07\xff\xff\xff\xff", bytes(range(256)) * 4])
def test_bytes_that_are_no_model_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ContractBrokenError):
        check_graph(path, plant.CONTRACT)


def ports(*specs: TensorSpec, batch: int | str = 1) -> tuple[Port, ...]:
    return tuple(Port(spec.name, spec.dtype, (batch, *spec.shape[1:])) for spec in specs)


@pytest.mark.parametrize("batch", [1, "B"])
def test_an_artifacts_ports_may_fix_the_batch(batch: int | str) -> None:
    inputs, outputs = ports(EGO, AGENTS, ROUTE, batch=batch), ports(CONTROL, OUTLOOK, batch=batch)
    check_ports(plant.manifest(inputs=inputs, outputs=outputs), plant.CONTRACT)
    check_ports(plant.manifest(), plant.CONTRACT)


def test_an_artifact_of_another_graph_is_refused() -> None:
    shorter = replace(CONTROL, shape=("B", 5, 2))
    with pytest.raises(ContractBrokenError) as refusal:
        check_ports(plant.manifest(outputs=ports(shorter, OUTLOOK)), plant.CONTRACT)
    said = "output 'control' is float32[1,5,2] in the artifact, the contract says float32[B,10,2]"
    assert said in str(refusal.value)
