"""DDI messages: both directions, what real clients send, and garbage."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.fleet import AssignmentState, SlotFact, SlotFacts, SlotName
from nwmctl.errors import DdiFormatError
from nwmctl.formats import ddi
from nwmctl.formats.untrusted import MAX_BODY

TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40)
IDS = st.integers(0, 10**17)
HREFS = st.sampled_from(["", "http://127.0.0.1:1/x"])
HEX = "0123456789abcdef"
ARTIFACTS = st.builds(
    ddi.DdiArtifact,
    TEXTS,
    st.text(HEX, min_size=40, max_size=40),
    st.text(HEX, min_size=64, max_size=64),
    IDS,
    st.just("http://h/x.swu"),
)
CHUNKS = st.builds(
    ddi.Chunk, TEXTS, TEXTS, TEXTS, st.lists(ARTIFACTS, max_size=2).map(tuple), st.dictionaries(TEXTS, TEXTS)
)
FEEDBACKS = st.builds(
    ddi.Feedback,
    st.none() | IDS,
    st.sampled_from(ddi.Execution),
    st.sampled_from(ddi.Finished),
    st.lists(TEXTS, max_size=3).map(tuple),
    st.none() | st.tuples(IDS, IDS),
)
FACTS = st.builds(SlotFact, st.none() | IDS, st.booleans())


@given(st.builds(ddi.Polling, st.floats(0.001, 1e8), HREFS, HREFS, HREFS))
def test_polling_round_trip(value: ddi.Polling) -> None:
    assert ddi.decode_polling(ddi.encode_polling(value)) == value


@given(st.builds(ddi.Deployment, IDS, st.lists(CHUNKS, max_size=2).map(tuple), st.sampled_from(ddi.Handling)))
def test_deployment_round_trip(value: ddi.Deployment) -> None:
    assert ddi.decode_deployment(ddi.encode_deployment(value)) == value


@given(FEEDBACKS)
def test_feedback_round_trip(value: ddi.Feedback) -> None:
    assert ddi.decode_feedback(ddi.encode_feedback(value)) == value


@given(IDS)
def test_cancel_round_trip(number: int) -> None:
    assert ddi.decode_cancel(ddi.encode_cancel(ddi.Cancel(number))) == ddi.Cancel(number)


@given(st.builds(SlotFacts, st.sampled_from(SlotName), FACTS, FACTS))
def test_slots_round_trip(facts: SlotFacts) -> None:
    body = ddi.encode_config_data(ddi.slot_attributes(facts))
    assert ddi.slot_facts(ddi.decode_config_data(body)) == facts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.05, "00:00:01"), (1, "00:00:01"), (1.2, "00:00:02"), (300, "00:05:00"), (3661, "01:01:01"), (1e9, "99:00:00")],
)
def test_sleep_is_rounded_up(seconds: float, text: str) -> None:
    assert ddi.format_sleep(seconds) == text


def test_an_answer_without_our_key_is_read_too() -> None:
    body = b'{"config":{"polling":{"sleep":"00:10:00"}},"_links":{"deploymentBase":{"href":"u"}},"more":1}'
    assert ddi.decode_polling(body) == ddi.Polling(600.0, deployment="u")


@pytest.mark.parametrize("number", ["17", 17])
def test_an_id_is_a_number_or_a_text(number: object) -> None:
    body = {
        "id": number,
        "time": "20260101T000000",
        "status": {
            "result": {"progress": {"cnt": 1, "of": 2}, "finished": "none", "unknown": 0},
            "execution": "proceeding",
            "details": ["Installing Update Chunk Artifacts."],
        },
    }
    read = ddi.decode_feedback(json.dumps(body).encode())
    assert read.action == 17
    assert read.progress == (1, 2)
    assert read.stage is None


def test_a_stage_is_read_from_a_detail() -> None:
    said = ("something", f"{ddi.STAGE_DETAIL}trial")
    assert ddi.Feedback(1, ddi.Execution.PROCEEDING, ddi.Finished.NONE, said).stage is AssignmentState.TRIAL
    said = (f"{ddi.STAGE_DETAIL}nonsense",)
    assert ddi.Feedback(1, ddi.Execution.PROCEEDING, ddi.Finished.NONE, said).stage is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"status":{}}',
        b'{"status":{"execution":"closed","result":{"finished":"maybe"}}}',
        b'{"status":{"execution":"eaten","result":{"finished":"none"}}}',
        b'{"id":-1,"status":{"execution":"closed","result":{"finished":"none"}}}',
        b'{"id":true,"status":{"execution":"closed","result":{"finished":"none"}}}',
        b'{"id":"\xd9\xa1","status":{"execution":"closed","result":{"finished":"none"}}}',
        b'{"status":{"execution":"closed","result":{"finished":"none"},"details":"x"}}',
        b'{"status":{"execution":"closed","result":{"finished":"none"},"details":[1]}}',
        b'{"status":{"execution":"closed","result":{"finished":"none"},"details":["\\ud800"]}}',
        b'{"status":{"execution":"closed","result":{"finished":"none"},"details":["a\\u0000b"]}}',
        b'{"id":' + b"9" * 5000 + b"}",
        b" " * (MAX_BODY + 1),
    ],
)
def test_garbage_is_refused(body: bytes) -> None:
    with pytest.raises(DdiFormatError):
        ddi.decode_feedback(body)


def test_too_many_attributes() -> None:
    body = ddi.encode_config_data({str(number): "" for number in range(ddi.MAX_ATTRIBUTES + 1)})
    with pytest.raises(DdiFormatError):
        ddi.decode_config_data(body)


DECODERS = [
    ddi.decode_polling,
    ddi.decode_deployment,
    ddi.decode_cancel,
    ddi.decode_feedback,
    lambda body: ddi.slot_facts(ddi.decode_config_data(body)),
]
SEEDS = [
    ddi.encode_polling(ddi.Polling(0.5, "http://a", "http://b", "http://c")),
    ddi.encode_deployment(
        ddi.Deployment(
            5,
            (ddi.Chunk("os", "n", "7", (ddi.DdiArtifact("f", "a" * 40, "b" * 64, 9, "http://x"),), {"k": "v"}),),
        )
    ),
    ddi.encode_cancel(ddi.Cancel(3)),
    ddi.encode_feedback(ddi.Feedback(3, ddi.Execution.CLOSED, ddi.Finished.SUCCESS, ("a",), (1, 2))),
    ddi.encode_config_data(ddi.slot_attributes(SlotFacts(SlotName.A, SlotFact(1, True), SlotFact(None, False)))),
]


@settings(max_examples=300)
@given(st.data())
def test_mutations_are_read_or_refused(data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(SEEDS) - 1))
    body = bytearray(SEEDS[which])
    rng = random.Random(data.draw(st.integers()))
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(body) or 1)
        match rng.randrange(3):
            case 0:
                body[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del body[place : place + rng.randint(1, 9)]
            case _:
                body[place:place] = rng.choice([b"{", b"]", b"null", b'"', b"1e999", b"NaN", b"-5"])
    try:
        DECODERS[which](bytes(body))
    except DdiFormatError:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | IDS | TEXTS, lambda x: st.lists(x) | st.dictionaries(TEXTS, x)
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    for decode in DECODERS:
        for wrapped in (value, {"status": value}, {"data": value}, {"deployment": value}, {"config": value}):
            try:
                decode(json.dumps(wrapped).encode())
            except DdiFormatError:
                continue
