"""What a step's key depends on: everything that decides its result, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.agent.runner import resolve
from nwmctl.app.compose import build_steps
from nwmctl.domain.digest import Digest, digest_bytes, step_key
from nwmctl.domain.step import Outcome, PlannedStep
from nwmctl.domain.work import BundleWork, PullWork, StepName
from nwmctl.errors import SchemaError
from nwmctl.formats import canonical
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Progress, Step, load_outcome, save_outcome
from nwmctl.storage.content import ContentStore
from tests.fakes import some_digest
from tests.steps.conftest import Road, quiet
from tests.steps.papers import WORK

words = st.text("ab:/", max_size=4)
inputs_ = st.dictionaries(words, st.sampled_from([some_digest(name) for name in "xyz"]), max_size=3)
requests = st.tuples(words, st.integers(1, 3), words.map(str.encode), inputs_, words)


@given(requests, requests)
def test_two_requests_have_one_key_exactly_if_they_are_the_same(one: tuple, other: tuple) -> None:  # type: ignore[type-arg]
    assert (step_key(*one) == step_key(*other)) == (one == other)


def work(order: PullWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
    return Outcome({}, {"uri": order.uri})


STEP = Step(StepName.PULL, 1, True, PullWork, work, lambda order: f"tool for {order.uri}")
ORDER = {"uri": "model", "trusted_keys": ["ed25519:1"]}
INPUTS = {"model": some_digest("model")}


def test_the_same_request_written_otherwise_has_the_same_key() -> None:
    assert STEP.key(dict(reversed(ORDER.items())), INPUTS) == STEP.key(ORDER, INPUTS)


@pytest.mark.parametrize(
    ("step", "order", "inputs"),
    [
        (replace(STEP, version=2), ORDER, INPUTS),
        (replace(STEP, name=StepName.SIGN), ORDER, INPUTS),
        (replace(STEP, fingerprint=lambda _: "another tool"), ORDER, INPUTS),
        (STEP, {**ORDER, "uri": "elsewhere"}, INPUTS),
        (STEP, {**ORDER, "trusted_keys": []}, INPUTS),
        (STEP, ORDER, {"model": some_digest("another")}),
        (STEP, ORDER, {"models": INPUTS["model"]}),
        (STEP, ORDER, {**INPUTS, "more": INPUTS["model"]}),
    ],
)
def test_whatever_decides_the_result_changes_the_key(
    step: Step[PullWork], order: object, inputs: dict[str, Digest]
) -> None:
    assert step.key(order, inputs) != STEP.key(ORDER, INPUTS)


@pytest.mark.parametrize("order", [{"uri": "model"}, {**ORDER, "colour": "red"}, {**ORDER, "uri": 3}, [], None])
def test_a_malformed_work_order_is_refused(order: object) -> None:
    with pytest.raises(SchemaError, match="work order of step 'pull'"):
        STEP.key(order, INPUTS)
    with pytest.raises(SchemaError):
        STEP.run(order, INPUTS, quiet)


def test_a_work_order_survives_its_way_through_the_plan() -> None:
    step = Step(StepName.BUNDLE, 1, True, BundleWork, lambda order, inputs, progress: Outcome({}, {"it": str(order)}))
    assert step.run(to_plain(WORK), {}, quiet).summary == {"it": str(WORK)}


# --- results in the store -----------------------------------------------------------------------------------------


def test_a_result_is_found_again(store: ContentStore) -> None:
    outcome = Outcome({"out": store.put_bytes(b"x")}, {"size": 1, "share": 0.5, "good": True, "name": "n"}, "a concern")
    save_outcome(store, some_digest("key"), outcome)
    assert load_outcome(store, some_digest("key")) == outcome
    assert load_outcome(store, some_digest("other")) is None


def test_a_result_that_lost_an_object_is_forgotten(store: ContentStore) -> None:
    outcome = Outcome({"out": store.put_bytes(b"x")})
    save_outcome(store, some_digest("key"), outcome)
    store.path(outcome.outputs["out"]).unlink()
    assert load_outcome(store, some_digest("key")) is None
    assert store.result(some_digest("key")) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not json",
        canonical.encode({"schema": "nwmctl.step-result/1"}),
        canonical.encode({"schema": "nwmctl.step-result/2", "outputs": {}}),
        canonical.encode({"schema": "nwmctl.step-result/1", "outputs": {"out": "sha256:zz"}}),
        canonical.encode(["outputs"]),
    ],
)
def test_a_damaged_result_is_forgotten_and_never_believed(store: ContentStore, data: bytes) -> None:
    store.set_result(some_digest("key"), data)
    assert load_outcome(store, some_digest("key")) is None
    assert store.result(some_digest("key")) is None


# --- the real steps -----------------------------------------------------------------------------------------------


def test_every_input_of_every_step_counts(walked: Road) -> None:
    """Whatever digest an input has, another one is another key: no step ignores what it is given."""
    with walked.session() as session:
        steps = build_steps(session.parts)
        for planned in session.plan():
            code, inputs = steps[planned.step], resolve(planned, walked.outcomes)
            key = code.key(planned.parameters, inputs)
            for name in inputs:
                changed = {**inputs, name: digest_bytes(name.encode())}
                assert code.key(planned.parameters, changed) != key


def lasting(outcome: Outcome) -> Outcome:
    """What a step left, without what compilers took for it."""
    summary = {name: value for name, value in outcome.summary.items() if name not in ("peak_mb", "cpu_s")}
    return replace(outcome, summary=summary)


def test_walking_again_gives_the_same_keys_and_the_same_bytes(walked: Road, road: Road) -> None:
    """Every pure step, run a second time in another workspace, leaves the very same digests."""
    with walked.session() as first:
        keys = {step.id: walked.key(first, step) for step in first.plan()}
    with road.session() as session:
        for step in session.plan():
            if step.step in (StepName.STAGE, StepName.PUBLISH, StepName.ROLLOUT, StepName.VALIDATE):
                continue
            assert road.key(session, step) == keys[step.id]
            assert lasting(road.run(session, step)) == lasting(walked.outcomes[step.id])


def test_what_is_not_pure_is_said_to_be(walked: Road) -> None:
    with walked.session() as session:
        steps = build_steps(session.parts)
    assert {name for name, step in steps.items() if not step.pure} == {"stage", "publish", "rollout"}


def test_the_inputs_that_steps_read_are_those_that_the_plan_gives(walked: Road) -> None:
    """No input is missing at the end of the road, apart from the twins that onnxruntime does not build, and from
    weights in a file of their own, which small models do not have."""
    with walked.session() as session:
        plan: tuple[PlannedStep, ...] = session.plan()
    for step in plan:
        absent = step.inputs.keys() - resolve(step, walked.outcomes).keys()
        assert absent <= {"twin_payload", "twin_manifest", "weights_data", "released_weights_data"}
