"""What a search keeps in the content store: each finding about a candidate under a key of its own, and earlier winners.

A kill costs the finding that was being made and nothing else; a search that is asked again finds every one of them. A
finding is keyed by what decides it (payload, rules, rows, runtimes), never by the search, so variants that share an
artifact share what is known of it. Does not decide what to keep.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from nwmctl.domain.artifact import Recipe
from nwmctl.domain.digest import Digest, step_key
from nwmctl.domain.step import Outcome
from nwmctl.errors import ContentCorruptError, ContentMissingError, DiskFullError
from nwmctl.formats import canonical
from nwmctl.formats.codec import Source, from_plain, to_plain
from nwmctl.steps.base import load_outcome, save_outcome
from nwmctl.storage.content import ContentStore

T = TypeVar("T")

VERSION = 1
"""Raised when what is found changes its meaning."""
EARLIER = 4
"""How many earlier searches of one kind are remembered."""
ENDINGS = (DiskFullError, ContentMissingError, ContentCorruptError)
"""Refusals that are no candidate's fault: they end the search."""
_FOUND = "found"
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Question:
    """What decides a finding: its kind, everything asked (a dataclass), the digests it is about, what executes it."""

    kind: str
    asked: object
    inputs: Mapping[str, Digest]
    fingerprint: str = ""

    @property
    def key(self) -> Digest:
        """The key under which the answer is kept."""
        asked = canonical.encode(to_plain(self.asked))
        return step_key(f"search/{self.kind}", VERSION, asked, self.inputs, self.fingerprint)


def kept(
    store: ContentStore, question: Question, kind: type[T], find: Callable[[], T], keep: Callable[[T], bool] = bool
) -> T:
    """The answer from the store, or found now and kept where ``keep`` says so."""
    outcome = load_outcome(store, question.key)
    if outcome is not None:
        plain = canonical.decode(store.read(outcome.outputs[_FOUND]), f"kept {question.kind}")
        return from_plain(kind, plain, Source(f"kept {question.kind}"))
    found = find()
    if keep(found):
        _save(store, question.key, found)
    return found


def look(store: ContentStore, question: Question, kind: type[T]) -> T | None:
    """The kept answer, if there is one."""
    outcome = load_outcome(store, question.key)
    if outcome is None:
        return None
    plain = canonical.decode(store.read(outcome.outputs[_FOUND]), f"kept {question.kind}")
    return from_plain(kind, plain, Source(f"kept {question.kind}"))


def _save(store: ContentStore, key: Digest, found: object) -> None:
    data = canonical.encode(to_plain(found))
    save_outcome(store, key, Outcome({_FOUND: store.put_bytes(data)}))


# --- earlier searches ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """For what winners are remembered: a unit of a chip, the driver that finishes its artifacts, and for a host the
    machine."""

    chip: str
    unit: str
    driver: str
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one recipe took for one model, in ms, as it was measured."""

    recipe: Recipe
    ms: float


@dataclass(frozen=True, slots=True)
class Earlier:
    """How the search for one model (``weights``: its graph) ended: the recipes that passed, the best first, and what
    was measured."""

    weights: Digest
    recipes: tuple[Recipe, ...]
    measured: tuple[Timing, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """Earlier searches for one place, the newest first."""

    searches: tuple[Earlier, ...] = ()


def recall(store: ContentStore, place: Place) -> Memory:
    """What is remembered for a place; nothing where nothing is."""
    return look(store, Question("earlier", place, {}), Memory) or Memory()


def remember(store: ContentStore, place: Place, search: Earlier) -> None:
    """Put the newest search in front, in place of an older one for the same model."""
    question = Question("earlier", place, {})
    with _lock:
        others = [each for each in recall(store, place).searches if each.weights != search.weights]
        _save(store, question.key, Memory((search, *others)[:EARLIER]))
