"""The contract check: the graph is what the card says, and the artifact's answers stay finite and within limits.

The static half reads an ONNX file and executes nothing; the pull step uses it alone. The dynamic half asks the artifact
one row at a time, as a vehicle does, over golden, random and extreme inputs. It compares with limits, not with a
reference. An artifact that answers otherwise in a batch is no worse for it, but then no batch says anything about it:
from there on every check asks it row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.model import ModelContract, TensorSpec
from nwmctl.errors import CandidateFailedError, ContractBrokenError
from nwmctl.toolchains.protocol import Tensors
from nwmctl.validation.candidate import Candidate
from nwmctl.validation.extremes import named_extremes
from nwmctl.validation.figures import figure
from nwmctl.validation.inputs import CORNERS, Golden, extreme_inputs, random_inputs, take
from nwmctl.validation.subject import Pace

LIMIT_SLACK = 1e-3
"""Share of a channel's range by which a value may pass its limit: what a lower precision rounds, and no more."""
BATCH_SLACK = 1e-3
"""Share of a channel's range by which a row may answer otherwise in a batch: rounding, and no more."""
BATCH_DEVIATION = "batch_deviation"
_Signature = tuple[str, tuple[int | str, ...]]
"""dtype and shape."""
_TINY = 1e-12
_REPAIR = "compile again with a recipe that keeps the model's outputs within their limits"


def check_graph(model_path: Path, contract: ModelContract) -> None:
    """Compare an ONNX file's inputs and outputs with the contract. Raises ContractBrokenError naming every mismatch."""
    problems = _contract_problems(contract)
    graph = _load_graph(model_path)
    held = {value.name for value in graph.initializer}
    given = {value.name: _signature(value) for value in graph.input if value.name not in held}
    outputs = {value.name: _signature(value) for value in graph.output}
    problems += _compare("input", contract.inputs, given, "graph")
    problems += _compare("output", contract.outputs, outputs, "graph")
    if problems:
        raise ContractBrokenError(
            f"the model breaks its contract: {problems[0]}",
            why="; ".join(problems[1:]) or "the graph and the model card must name the same tensors",
            next="export the model again, or correct the contract in its model card and sign the card again",
        )


def check_ports(manifest: ArtifactManifest, contract: ModelContract) -> None:
    """Compare what an artifact takes and gives with the contract; its batch may be fixed. Raises ContractBrokenError.

    A manifest without ports (of an external toolchain) says nothing, and then the dynamic half alone decides.
    """
    said: list[str] = []
    for kind, specs, ports in (
        ("input", contract.inputs, manifest.inputs),
        ("output", contract.outputs, manifest.outputs),
    ):
        found = {port.name: (port.dtype, port.shape) for port in ports}
        if found:
            said += _compare(kind, specs, found, "artifact")
    if said:
        raise ContractBrokenError(
            f"the artifact breaks the model's contract: {said[0]}",
            why="; ".join(said[1:]) or "the artifact and the model card must name the same tensors",
            next=_REPAIR,
        )


def check_contract(candidate: Candidate, golden: Golden, random_rows: int, seed: int) -> CheckResult:
    """Ask the artifact at batch 1 and look at every number that comes back; then once more in batches."""
    contract, obtained = candidate.contract, candidate.obtained
    crawl = candidate.way.pace is Pace.CRAWL
    extreme = extreme_inputs(contract, golden)
    groups = {"golden": golden.inputs, "extreme": take(extreme, slice(0, CORNERS)) if crawl else extreme}
    named: tuple[str, ...] = ()
    if not crawl:
        named, groups["single extreme"] = named_extremes(contract, golden)
        groups["random"] = random_inputs(contract, golden, random_rows, seed)
    groups = {name: rows for name, rows in groups.items() if len(next(iter(rows.values())))}
    counts = {name: len(next(iter(rows.values()))) for name, rows in groups.items()}
    try:
        answers = {name: candidate.run_rows(rows) for name, rows in groups.items()}
        batched = _batched(candidate, groups, answers) if candidate.way.pace is Pace.BATCH else None
    except CandidateFailedError as problem:
        return CheckResult(Check.CONTRACT, Verdict.FAILED, obtained, f"{problem.what}: {problem.why}", (), problem.next)
    faults = [fault for name, outputs in answers.items() for fault in _faults(contract, outputs, name)]
    endless = sum(int((~np.isfinite(values)).sum()) for outputs in answers.values() for values in _floats(outputs))
    asked = " + ".join(f"{count} {name}" for name, count in counts.items())
    figures = (
        figure("inputs", sum(counts.values()), "", obtained),
        figure("values_not_finite", endless, "", obtained, 0.0),
        figure("channels_out_of_limits", len(faults), "", obtained, 0.0),
        *(() if batched is None else (figure(BATCH_DEVIATION, batched, "", obtained),)),
    )
    seeds = () if crawl else (seed,)
    if endless or faults:
        found = [f"{endless} output values are not finite{_where(answers, named)}"] if endless else []
        summary = "; ".join((found + faults)[:4]) + f" ({asked} inputs at batch 1)"
        return CheckResult(Check.CONTRACT, Verdict.FAILED, obtained, summary, figures, _REPAIR, seeds)
    summary = f"names, shapes and dtypes match; finite and within limits over {asked} inputs at batch 1"
    if batched is not None and batched > BATCH_SLACK:
        candidate.ask_alone()
        summary += f"; it answers otherwise in a batch (by {batched:.2g} of a channel's range), so no check batches it"
    return CheckResult(Check.CONTRACT, Verdict.PASSED, obtained, summary, figures, "", seeds)


def _batched(candidate: Candidate, groups: Mapping[str, Tensors], answers: Mapping[str, Tensors]) -> float:
    """Largest difference between a row in a batch, in either order, and the row alone, as a share of its channel's
    range (or of the channel's largest value). What is not finite is somebody else's finding."""
    worst = 0.0
    rows = {name: np.concatenate([group[name] for group in groups.values()]) for name in next(iter(groups.values()))}
    alone = {name: np.concatenate([group[name] for group in answers.values()]) for name in next(iter(answers.values()))}
    for turn in (1, -1):
        together = candidate.run({name: np.ascontiguousarray(values[::turn]) for name, values in rows.items()})
        for spec in candidate.contract.outputs:
            one, other = alone[spec.name].astype(np.float64), together[spec.name][::turn].astype(np.float64)
            known = np.isfinite(one) & np.isfinite(other)
            one, other = np.where(known, one, 0.0), np.where(known, other, 0.0)
            worst = max(worst, float((np.abs(one - other) / _ranges(spec, one)).max(initial=0.0)))
    return worst


def _ranges(spec: TensorSpec, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per channel the width of its limits, or the largest absolute value where it has none; never zero."""
    width = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0, initial=0.0)
    for index, channel in enumerate(spec.channels):
        if channel.low is not None and channel.high is not None:
            width[index] = channel.high - channel.low
    return np.asarray(np.maximum(width, _TINY))


def _where(answers: Mapping[str, Tensors], named: tuple[str, ...]) -> str:
    """The first named case that is not answered in finite numbers, if any is."""
    bad = np.zeros(len(named), np.bool_)
    for values in _floats(answers.get("single extreme", {})):
        bad |= ~np.isfinite(values).reshape(len(named), -1).all(axis=1)
    cases = [name for name, wrong in zip(named, bad, strict=True) if wrong]
    return f" (first where {cases[0]}, {len(cases)} such cases)" if cases else ""


def _faults(contract: ModelContract, outputs: Tensors, group: str) -> list[str]:
    """One sentence per output channel that leaves its limits."""
    said: list[str] = []
    for spec in contract.outputs:
        values = outputs[spec.name]
        for index, channel in enumerate(spec.channels):
            part = values[..., index].astype(np.float64)
            part = part[np.isfinite(part)]
            low = -np.inf if channel.low is None else channel.low
            high = np.inf if channel.high is None else channel.high
            slack = LIMIT_SLACK * (high - low) if np.isfinite(high - low) else 0.0
            outside = part[(part < low - slack) | (part > high + slack)]
            if outside.size:
                worst = outside[np.argmax(np.abs(outside))]
                said.append(
                    f"{spec.name}.{channel.name} reaches {worst:.4g} {channel.unit} on {group} inputs, "
                    f"limits are {low:g} to {high:g}"
                )
    return said


def _floats(outputs: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    return [values for values in outputs.values() if values.dtype.kind == "f"]


# --- the static half ----------------------------------------------------------------------------------------------


def _contract_problems(contract: ModelContract) -> list[str]:
    """What is wrong with the contract itself."""
    said = [] if contract.rate_hz > 0 else [f"its control rate is {contract.rate_hz:g} Hz, it must be positive"]
    if contract.control_output not in {spec.name for spec in contract.outputs}:
        said.append(f"its control output '{contract.control_output}' is not among its outputs")
    for spec in (*contract.inputs, *contract.outputs):
        if not spec.shape or not spec.channels or spec.shape[-1] != len(spec.channels):
            said.append(f"'{spec.name}' has {len(spec.channels)} channels and the shape {_shown(spec.shape)}")
        for channel in spec.channels:
            if not channel.unit.strip():
                said.append(f"channel '{spec.name}.{channel.name}' has no unit (a number without one has the unit '1')")
            if channel.low is not None and channel.high is not None and channel.low >= channel.high:
                limits = f"{channel.low:g} to {channel.high:g} {channel.unit}"
                said.append(f"channel '{spec.name}.{channel.name}' has the limits {limits}")
    for side in (contract.inputs, contract.outputs):
        names = [spec.name for spec in side]
        said += [f"the tensor '{name}' is named twice" for name in sorted(set(names)) if names.count(name) > 1]
    return said


def _load_graph(path: Path) -> Any:
    import onnx

    try:
        # External data could name any file of this machine; a package's weights are inside the one file it lists.
        return onnx.load(str(path), load_external_data=False).graph
    except Exception as problem:  # protobuf's errors are not of one family
        raise ContractBrokenError(
            "the model file cannot be read as ONNX",
            why=f"{type(problem).__name__} while reading '{path.name}'",
            next="export the model again as one ONNX file",
        ) from problem


def _compare(kind: str, specs: tuple[TensorSpec, ...], found: Mapping[str, _Signature], holder: str) -> list[str]:
    said = [
        f"{kind} '{spec.name}' is missing, the {holder} has {', '.join(sorted(found)) or 'none'}"
        for spec in specs
        if spec.name not in found
    ]
    said += [
        f"{kind} '{name}' is in the {holder} and not in the contract"
        for name in sorted(found)
        if name not in {spec.name for spec in specs}
    ]
    for spec in specs:
        if spec.name in found:
            dtype, shape = found[spec.name]
            # An artifact is built for batch 1; everything else is as the contract says.
            same = spec.shape[1:] == shape[1:] if holder == "artifact" else _same_shape(spec.shape, shape)
            if dtype != spec.dtype or not same:
                said.append(
                    f"{kind} '{spec.name}' is {dtype}{_shown(shape)} in the {holder}, "
                    f"the contract says {spec.dtype}{_shown(spec.shape)}"
                )
    return said


def _signature(value: Any) -> _Signature:
    """dtype and shape of a graph input or output; a dimension is a number or a symbol."""
    import onnx

    tensor = value.type.tensor_type
    try:
        dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    except (KeyError, TypeError, ValueError):
        dtype = f"type {tensor.elem_type}"
    dims = tensor.shape.dim
    return dtype, tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


def _same_shape(promised: tuple[int | str, ...], found: tuple[int | str, ...]) -> bool:
    """A symbol of the contract wants any symbol; a number wants that number."""
    return len(promised) == len(found) and all(
        isinstance(b, str) if isinstance(a, str) else a == b for a, b in zip(promised, found, strict=True)
    )


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"[{','.join(str(dim) for dim in shape)}]"
