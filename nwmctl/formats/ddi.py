"""The hawkBit DDI messages, as bytes and as values, for both ends of the wire.

Written strictly, read with the tolerance that real clients need: an id is a number from one client and a string from
another, unknown keys are ignored, several fields may be absent. Everything else that is not as it must be raises
DdiFormatError, so that nothing of a garbled message is ever stored. No I/O.

Two things are nwmctl's own, and a client that does not know them loses nothing: ``nwm:poll_s`` beside the polling
time (seconds as a float: the protocol's own field knows whole seconds only), and details that start with
``nwm.stage=``, which say more exactly how far a vehicle is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nwmctl.domain.fleet import AssignmentState, SlotFact, SlotFacts, SlotName
from nwmctl.domain.requires import Reported
from nwmctl.formats.untrusted import (
    as_hex,
    as_list,
    as_number,
    as_object,
    as_text,
    as_word,
    garbage,
    parse,
)

MAX_ATTRIBUTES = 256

PART_BUNDLE = "os"
"""A chunk that carries a .swu bundle."""
PART_SLOT = "nwm-slot"
"""A chunk without artifacts: run the slot that holds the sequence given in ``META_SEQUENCE``."""

META_SEQUENCE = "nwm.sequence"
META_RELEASE = "nwm.release"
META_KIND = "nwm.kind"
META_TUF_NAME = "nwm.tuf_name"
META_GENERATION = "nwm.generation"

SLOT_ACTIVE = "nwm.slot.active"
SLOT_A_SEQUENCE = "nwm.slot.a.sequence"
SLOT_A_INTACT = "nwm.slot.a.intact"
SLOT_B_SEQUENCE = "nwm.slot.b.sequence"
SLOT_B_INTACT = "nwm.slot.b.intact"
COMPUTERS = "nwm.computers"
"""The names of a vehicle's computers, with spaces between."""
RUNTIME = "nwm.runtime."
"""Before a runtime's name; the value is its version."""
CARRIED = "nwm.carried."
"""Before the name of a runtime that came in the bundle which the vehicle runs; it is good for that bundle alone."""
COMPONENT = "nwm.component."
"""Before the name of another component, such as ``gpu-driver``; the value is its version."""
BASELINE = "nwm.baseline"
BASELINE_VERSION = "nwm.baseline.version"
CHASSIS_INTERFACES = "nwm.chassis_interface"
"""Versions of the universal control interface, with spaces between."""
STAGE_DETAIL = "nwm.stage="

_POLL_S = "nwm:poll_s"
# Made once: nearly every request of a gateway is answered through it.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_SLEEP = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d)\Z", re.ASCII)


class Execution(StrEnum):
    """What a client says it is doing with an action."""

    CLOSED = "closed"
    PROCEEDING = "proceeding"
    CANCELED = "canceled"
    SCHEDULED = "scheduled"
    REJECTED = "rejected"
    RESUMED = "resumed"
    DOWNLOAD = "download"
    DOWNLOADED = "downloaded"


class Finished(StrEnum):
    """The result that a client gives with a feedback."""

    NONE = "none"
    SUCCESS = "success"
    FAILURE = "failure"


class Handling(StrEnum):
    """How pressing a download or an update is."""

    SKIP = "skip"
    ATTEMPT = "attempt"
    FORCED = "forced"


@dataclass(frozen=True, slots=True)
class Polling:
    """The answer to a poll. ``poll_s`` seconds until the next one; links are absolute, empty where absent."""

    poll_s: float
    config_data: str = ""
    deployment: str = ""
    cancel: str = ""


@dataclass(frozen=True, slots=True)
class DdiArtifact:
    """A file to download: hashes as hexadecimal digits, ``size`` in bytes, ``href`` an absolute URL."""

    filename: str
    sha1: str
    sha256: str
    size: int
    href: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a deployment."""

    part: str
    name: str
    version: str
    artifacts: tuple[DdiArtifact, ...]
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What to install, under an action id."""

    action: int
    chunks: tuple[Chunk, ...]
    handling: Handling = Handling.FORCED


@dataclass(frozen=True, slots=True)
class Cancel:
    """The wish to stop action ``action``."""

    action: int


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a client says about an action. ``action`` is None where the body leaves it out; ``progress`` is
    (done, of)."""

    action: int | None
    execution: Execution
    finished: Finished
    details: tuple[str, ...] = ()
    progress: tuple[int, int] | None = None

    @property
    def stage(self) -> AssignmentState | None:
        """The stage that our own client names in a detail; None from any other client."""
        for detail in self.details:
            if detail.startswith(STAGE_DETAIL):
                name = detail.removeprefix(STAGE_DETAIL).strip()
                return AssignmentState(name) if name in set(AssignmentState) else None
        return None


# --- from the gateway ---------------------------------------------------------------------------------------------


def encode_polling(value: Polling) -> bytes:
    """The bytes of a poll's answer; a poll time below a second is rounded up to one for other clients."""
    links = {"configData": value.config_data, "deploymentBase": value.deployment, "cancelAction": value.cancel}
    return _bytes(
        {
            "config": {"polling": {"sleep": format_sleep(value.poll_s), _POLL_S: value.poll_s}},
            "_links": {name: {"href": href} for name, href in links.items() if href},
        }
    )


def decode_polling(body: bytes) -> Polling:
    """Read a poll's answer. Raises DdiFormatError."""
    root = as_object(parse(body), "the answer")
    polling = as_object(as_object(root.get("config", {}), "config").get("polling", {}), "polling")
    exact = polling.get(_POLL_S)
    if exact is None:
        poll_s = parse_sleep(as_text(polling.get("sleep", "00:05:00"), "sleep"))
    elif isinstance(exact, (int, float)) and not isinstance(exact, bool) and 0 < exact < 1e9:
        poll_s = float(exact)
    else:
        raise garbage(f"{_POLL_S} is not a positive number")
    links = as_object(root.get("_links", {}), "_links")
    return Polling(poll_s, *(_href(links, name) for name in ("configData", "deploymentBase", "cancelAction")))


def format_sleep(poll_s: float) -> str:
    """Seconds as HH:MM:SS, rounded up, at least one and at most 99 hours."""
    seconds = min(max(1, math.ceil(poll_s)), 99 * 3600)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def parse_sleep(text: str) -> float:
    """Read HH:MM:SS as seconds. Raises DdiFormatError."""
    found = _SLEEP.match(text)
    if not found:
        raise garbage("a polling time is written HH:MM:SS")
    hours, minutes, seconds = (int(part) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def encode_deployment(value: Deployment) -> bytes:
    """The bytes of a deployment."""
    chunks = [
        {
            "part": chunk.part,
            "name": chunk.name,
            "version": chunk.version,
            "metadata": [{"key": key, "value": text} for key, text in sorted(chunk.metadata.items())],
            "artifacts": [_artifact(artifact) for artifact in chunk.artifacts],
        }
        for chunk in value.chunks
    ]
    handling = value.handling.value
    return _bytes(
        {
            "id": str(value.action),
            "deployment": {"download": handling, "update": handling, "chunks": chunks},
        }
    )


def decode_deployment(body: bytes) -> Deployment:
    """Read a deployment. Raises DdiFormatError."""
    root = as_object(parse(body), "the answer")
    deployment = as_object(root.get("deployment"), "deployment")
    handling = as_word(Handling, deployment.get("update", "forced"), "update")
    chunks = tuple(_read_chunk(as_object(item, "chunk")) for item in as_list(deployment.get("chunks"), "chunks"))
    return Deployment(as_number(root.get("id"), "id"), chunks, handling)


def _artifact(value: DdiArtifact) -> dict[str, Any]:
    # Clients differ in which of the two links they follow; over plain HTTP one wants download-http.
    links = {"download-http": {"href": value.href}, "download": {"href": value.href}}
    return {
        "filename": value.filename,
        "hashes": {"sha1": value.sha1, "sha256": value.sha256},
        "size": value.size,
        "_links": links,
    }


def _read_chunk(item: dict[str, Any]) -> Chunk:
    artifacts = []
    for raw in as_list(item.get("artifacts", []), "artifacts"):
        entry = as_object(raw, "artifact")
        hashes = as_object(entry.get("hashes"), "hashes")
        links = as_object(entry.get("_links"), "_links")
        artifacts.append(
            DdiArtifact(
                as_text(entry.get("filename"), "filename"),
                as_hex(hashes.get("sha1"), 40, "sha1"),
                as_hex(hashes.get("sha256"), 64, "sha256"),
                as_number(entry.get("size"), "size"),
                _href(links, "download-http") or _href(links, "download"),
            )
        )
    pairs = [as_object(raw, "metadata") for raw in as_list(item.get("metadata", []), "metadata")]
    metadata = {as_text(pair.get("key"), "key"): as_text(pair.get("value"), "value") for pair in pairs}
    part, name, version = (as_text(item.get(key), key) for key in ("part", "name", "version"))
    return Chunk(part, name, version, tuple(artifacts), metadata)


def encode_cancel(value: Cancel) -> bytes:
    """The bytes of a cancel action."""
    return _bytes({"id": str(value.action), "cancelAction": {"stopId": str(value.action)}})


def decode_cancel(body: bytes) -> Cancel:
    """Read a cancel action. Raises DdiFormatError."""
    root = as_object(parse(body), "the answer")
    return Cancel(as_number(as_object(root.get("cancelAction"), "cancelAction").get("stopId"), "stopId"))


# --- from the vehicle ---------------------------------------------------------------------------------------------


def encode_feedback(value: Feedback) -> bytes:
    """The bytes of a feedback."""
    result: dict[str, Any] = {"finished": value.finished.value}
    if value.progress:
        result["progress"] = {"cnt": value.progress[0], "of": value.progress[1]}
    body: dict[str, Any] = {
        "status": {"execution": value.execution.value, "result": result, "details": list(value.details)}
    }
    if value.action is not None:
        body["id"] = str(value.action)
    return _bytes(body)


def decode_feedback(body: bytes) -> Feedback:
    """Read a feedback. Raises DdiFormatError."""
    root = as_object(parse(body), "the body")
    status = as_object(root.get("status"), "status")
    result = as_object(status.get("result"), "result")
    progress = result.get("progress")
    details = status.get("details")
    return Feedback(
        as_number(root["id"], "id") if root.get("id") is not None else None,
        as_word(Execution, status.get("execution"), "execution"),
        as_word(Finished, result.get("finished"), "finished"),
        tuple(as_text(item, "detail") for item in as_list([] if details is None else details, "details")),
        _read_progress(as_object(progress, "progress")) if progress is not None else None,
    )


def _read_progress(item: dict[str, Any]) -> tuple[int, int] | None:
    if item.get("cnt") is None or item.get("of") is None:
        return None
    return as_number(item["cnt"], "cnt"), as_number(item["of"], "of")


def encode_config_data(data: Mapping[str, str]) -> bytes:
    """The bytes of a vehicle's attributes."""
    return _bytes({"mode": "merge", "data": dict(data)})


def decode_config_data(body: bytes) -> dict[str, str]:
    """Read a vehicle's attributes. Raises DdiFormatError."""
    data = as_object(as_object(parse(body), "the body").get("data"), "data")
    if len(data) > MAX_ATTRIBUTES:
        raise garbage(f"{len(data)} attributes are more than {MAX_ATTRIBUTES}")
    return {as_text(key, "an attribute's name"): as_text(value, f"attribute {key[:40]}") for key, value in data.items()}


def slot_attributes(facts: SlotFacts) -> dict[str, str]:
    """The attributes that say what is in the slots."""
    names = {SLOT_ACTIVE: facts.active.value}
    for fact, sequence, intact in (
        (facts.a, SLOT_A_SEQUENCE, SLOT_A_INTACT),
        (facts.b, SLOT_B_SEQUENCE, SLOT_B_INTACT),
    ):
        names[sequence] = "" if fact.sequence is None else str(fact.sequence)
        names[intact] = "true" if fact.intact else "false"
    return names


def slot_facts(attributes: Mapping[str, str]) -> SlotFacts | None:
    """What the attributes say about the slots; None from a client that says nothing. Raises DdiFormatError."""
    if SLOT_ACTIVE not in attributes:
        return None
    return SlotFacts(
        as_word(SlotName, attributes[SLOT_ACTIVE], SLOT_ACTIVE),
        _slot(attributes, SLOT_A_SEQUENCE, SLOT_A_INTACT),
        _slot(attributes, SLOT_B_SEQUENCE, SLOT_B_INTACT),
    )


def reported_attributes(reported: Reported) -> dict[str, str]:
    """The attributes that say what a vehicle has."""
    return {
        **{f"{RUNTIME}{name}": version for name, version in sorted(reported.runtimes.items())},
        **{f"{COMPONENT}{name}": version for name, version in sorted(reported.components.items())},
        BASELINE: reported.baseline,
        BASELINE_VERSION: reported.baseline_version,
        CHASSIS_INTERFACES: " ".join(str(number) for number in reported.chassis_interfaces),
    }


def reported(attributes: Mapping[str, str]) -> Reported:
    """What the attributes of a vehicle say that it has. What is no number among the interfaces says nothing."""
    spoken = attributes.get(CHASSIS_INTERFACES, "").split()
    return Reported(
        _named(attributes, RUNTIME),
        attributes.get(BASELINE, ""),
        attributes.get(BASELINE_VERSION, ""),
        tuple(int(word) for word in spoken if word.isascii() and word.isdigit() and len(word) < 6),
        _named(attributes, COMPONENT),
    )


def _named(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    """What stands behind a prefix, with its value; an empty value says that it is no longer there."""
    return {key.removeprefix(prefix): text for key, text in attributes.items() if key.startswith(prefix) and text}


def _slot(attributes: Mapping[str, str], sequence: str, intact: str) -> SlotFact:
    number = attributes.get(sequence, "")
    proven = attributes.get(intact, "false")
    if proven not in ("true", "false"):
        raise garbage(f"{intact} is neither true nor false")
    return SlotFact(as_number(number, sequence) if number else None, proven == "true")


def _bytes(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()


def _href(links: dict[str, Any], name: str) -> str:
    if name not in links:
        return ""
    return as_text(as_object(links[name], name).get("href"), f"the link {name}")
