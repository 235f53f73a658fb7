"""What every step is: a name, a code version, a key, and a function from digests to digests.

A pure step's result is stored under its key and never computed twice. An idempotent step (stage, publish, rollout)
touches the world; its key only tells whether a resumed run already did it. ``version`` must rise with every change
of a step's code that can change its output; a replay test watches that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from nwmctl.domain.digest import Digest, step_key
from nwmctl.domain.step import Json, Outcome
from nwmctl.domain.work import StepName
from nwmctl.formats import canonical
from nwmctl.formats.canonical import Plain
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.storage.content import ContentStore
from nwmctl.storage.full import refuse_full_disk

Progress = Callable[[str, float], None]
"""Told what is being done and how much of it (0..1, negative where unknown)."""

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)

_RESULT_TAG = "nwmctl.step-result/1"


class Work(Protocol[W_contra]):
    """The function of a step."""

    def __call__(self, work: W_contra, inputs: Mapping[str, Digest], progress: Progress) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Step(Generic[W]):
    """A step as the runner sees it. ``order`` is the dataclass of its work order; ``fingerprint`` names the
    toolchain that a work order would use (empty where none does)."""

    name: StepName
    version: int
    pure: bool
    order: type[W]
    work: Work[W]
    fingerprint: Callable[[W], str] = lambda _: ""
    resolve: Callable[[W, Mapping[str, Digest]], tuple[W, Mapping[str, Digest]]] = lambda order, inputs: (order, inputs)
    """Puts what an input only points at into the order, so that two ways of asking for the same have one key."""
    at_hand: Callable[[W, Mapping[str, Digest]], Mapping[str, int]] = lambda order, inputs: {}
    """Of a declared alternative, how many there are with these inputs; those that it does not name are all there."""

    def key(self, parameters: Json, inputs: Mapping[str, Digest]) -> Digest:
        """The key of this step for these parameters and inputs. Raises SchemaError for a malformed work order."""
        order, inputs = self.resolve(self._order(parameters), inputs)
        return step_key(self.name, self.version, canonical.encode(to_plain(order)), inputs, self.fingerprint(order))

    def run(self, parameters: Json, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        """Do the work. Raises NwmError subclasses."""
        order, inputs = self.resolve(self._order(parameters), inputs)
        try:
            return self.work(order, inputs, progress)
        except OSError as problem:
            refusal = refuse_full_disk(problem, self.name)
            if refusal is None:
                raise
            raise refusal from problem

    def alternatives(self, parameters: Json, inputs: Mapping[str, Digest]) -> Mapping[str, int]:
        """How many of a declared alternative there are with these inputs, where that is fewer than were declared."""
        return self.at_hand(self._order(parameters), inputs)

    def _order(self, parameters: Json) -> W:
        return from_plain(self.order, parameters, Source(f"work order of step '{self.name}'"))


def load_outcome(store: ContentStore, key: Digest) -> Outcome | None:
    """A stored result whose objects are all here and whole; a result that has lost objects is forgotten."""
    from nwmctl.errors import ContentCorruptError, ContentMissingError, NotCanonicalError, SchemaError

    data = store.result(key)
    if data is None:
        return None
    try:
        plain = canonical.decode(data, "step result")
        table = dict(plain) if isinstance(plain, dict) else {}
        if table.pop("schema", None) != _RESULT_TAG:
            raise NotCanonicalError("step result of another kind", why="its schema differs", next="it runs again")
        outcome = from_plain(Outcome, table, Source("step result"))
        for digest in outcome.outputs.values():
            store.path(digest)
    except (ContentMissingError, ContentCorruptError, NotCanonicalError, SchemaError):
        # Nothing is lost: the step is a pure function and runs again.
        store.forget_result(key)
        return None
    return outcome


def save_outcome(store: ContentStore, key: Digest, outcome: Outcome) -> None:
    """Store a pure step's result under its key."""
    plain = to_plain(outcome)
    assert isinstance(plain, dict)
    tagged: dict[str, Plain] = {**plain, "schema": _RESULT_TAG}
    store.set_result(key, canonical.encode(tagged))
