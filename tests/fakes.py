"""Clocks for tests, and a small plan language for runner tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nwmctl.domain.digest import Digest, digest_bytes, step_key
from nwmctl.domain.event import Event
from nwmctl.domain.step import Outcome
from nwmctl.formats import canonical
from nwmctl.steps.base import load_outcome, save_outcome
from nwmctl.storage.content import ContentStore


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self.time_us = now_us
        self.slept: list[float] = []

    def now_us(self) -> int:
        return self.time_us

    def monotonic(self) -> float:
        return self.time_us / 1e6

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time_us += round(seconds * 1e6)


class Silent:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    def progress(self, step: str, text: str, share: float) -> None:
        return None


@dataclass
class StoreResults:
    """Results of pure steps in a content store."""

    store: ContentStore

    def load(self, key: Digest) -> Outcome | None:
        return load_outcome(self.store, key)

    def save(self, key: Digest, outcome: Outcome) -> None:
        save_outcome(self.store, key, outcome)


@dataclass
class FakeStep:
    """A step whose work is a function of parameters and inputs; counts its runs."""

    name: str
    work: Callable[[object, Mapping[str, Digest]], Outcome]
    pure: bool = True
    runs: list[object] = field(default_factory=list)
    there: Mapping[str, int] = field(default_factory=dict)

    def alternatives(self, parameters: object, inputs: Mapping[str, Digest]) -> Mapping[str, int]:
        return self.there

    def key(self, parameters: object, inputs: Mapping[str, Digest]) -> Digest:
        return step_key(self.name, 1, canonical.encode(parameters), inputs, "")  # type: ignore[arg-type]

    def run(self, parameters: object, inputs: Mapping[str, Digest], progress: Callable[[str, float], None]) -> Outcome:
        self.runs.append(parameters)
        return self.work(parameters, inputs)


def echo(store: ContentStore) -> Callable[[object, Mapping[str, Digest]], Outcome]:
    """Work whose output depends on everything it is given."""

    def work(parameters: object, inputs: Mapping[str, Digest]) -> Outcome:
        text = canonical.encode({"p": parameters, "i": {k: str(v) for k, v in inputs.items()}})  # type: ignore[dict-item]
        return Outcome({"out": store.put_bytes(text)})

    return work


def some_digest(text: str) -> Digest:
    return digest_bytes(text.encode())
