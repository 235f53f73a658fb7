"""What an attack is made of: bodies, worlds, acts, and the honest house that it starts from.

A world is everything that a client can see at one moment. A scene is a few worlds in a row and what the client must do
in each. Worlds are values; whoever serves them decides nothing. The keys are a drill's own and sign nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from nwmctl.domain.clock import Clock
from nwmctl.domain.digest import Digest
from nwmctl.domain.drill import Cell, Client, Holds, Outcome, Threat
from nwmctl.errors import NwmError
from nwmctl.trust.keys import KeyRing
from nwmctl.trust.metadata import ListedBundle
from nwmctl.trust.repository import Publication


@dataclass(frozen=True, slots=True)
class Endless:
    """A body that goes on after ``head``: ``most`` bytes are sent in all, far more than any client needs."""

    head: bytes
    most: int


@dataclass(frozen=True, slots=True)
class Drip:
    """A whole body, at ``rate`` bytes per second."""

    data: bytes
    rate: int


Body = bytes | Endless | Drip


@dataclass(frozen=True, slots=True)
class Offer:
    """What the gateway says that the vehicle shall install: a bundle by its name in the repository."""

    name: str
    digest: Digest
    size: int
    sequence: int


@dataclass(frozen=True, slots=True)
class World:
    """What is served: ``image`` by repository path, ``director`` by file name, ``bundle`` behind the offer's link."""

    image: Mapping[str, Body]
    director: Mapping[str, Body]
    offer: Offer
    bundle: Body


class Duty(Enum):
    """What a client must do in a world."""

    ACCEPT = auto()
    REFUSE = auto()
    ANY = auto()
    """The damage is done here; what counts comes after."""


@dataclass(frozen=True, slots=True)
class Act:
    """One world and the duty in it. The client's clock is ``ahead_us`` ahead of the machine's. ``why``: for people,
    what it means if the duty is not done."""

    world: World
    duty: Duty
    why: str
    ahead_us: int = 0


@dataclass(frozen=True, slots=True)
class MadeBundle:
    """A signed bundle whole in memory, and how the repository lists it."""

    listed: ListedBundle
    data: bytes


@dataclass(frozen=True, slots=True)
class House:
    """The honest owner. ``ring`` has every key; ``bundles`` by release sequence, ``foreign`` is for another board.

    ``factory`` lists nothing, ``current`` what every client has accepted before an attack, ``newer`` the release
    after it. ``director`` gives a director's files for a bundle and a version, signed; ``expired_cms`` and
    ``stranger_cms`` sign as a release key whose certificate has ended and as another authority's. ``rotated`` is the
    repository after the online keys were replaced.
    """

    ring: KeyRing
    clock: Clock
    hardware: Mapping[str, str]
    bundles: Mapping[int, MadeBundle]
    foreign: MadeBundle
    factory: Publication
    current: Publication
    newer: Publication
    director: Callable[[MadeBundle, int, Mapping[str, str]], Mapping[str, bytes]]
    expired_cms: Callable[[bytes], bytes]
    stranger_cms: Callable[[bytes], bytes]
    rotated: Callable[[], Publication]
    relist: Callable[[Publication, MadeBundle, int], Publication]

    def world(
        self,
        publication: Publication,
        bundle: MadeBundle,
        version: int,
        *,
        image: Mapping[str, Body] | None = None,
        director: Mapping[str, Body] | None = None,
        served: Body | None = None,
    ) -> World:
        """What is served for a publication and a bundle; the rest replaces parts of it."""
        body = bundle.data if served is None else served
        listed = bundle.listed
        files: dict[str, Body] = {**publication.files, publication.timestamp_path: publication.timestamp}
        files[listed.path] = body
        files.update(image or {})
        return World(
            files,
            {**self.director(bundle, version, self.hardware), **(director or {})},
            Offer(listed.name, listed.digest, listed.length, listed.about.sequence),
            body,
        )


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack that can be staged. ``apart``: why it says nothing about a client that lacks what is attacked."""

    name: str
    title: str
    holds: Holds
    does: str
    stopped_by: str
    harm: str
    refusal: type[NwmError]
    stage: Callable[[House], tuple[Act, ...]]
    apart: Mapping[Client, str] = field(default_factory=dict)

    def not_for(self, client: Client) -> Cell:
        """The cell of a client that lacks what is attacked."""
        return Cell(self.name, client, Outcome.NOT_APPLICABLE, self.apart[client])

    @property
    def threat(self) -> Threat:
        """What the report says about it."""
        return Threat(self.name, self.title, self.holds, self.does, self.stopped_by, self.harm, self.refusal.__name__)
