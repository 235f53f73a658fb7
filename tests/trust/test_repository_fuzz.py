"""Mutants of the image repository's metadata: none says what its owner did not, none crashes, none costs much.

Three kinds. Damaged bytes of one file among sound ones. Whole files in another's place: other roles', older ones'.
And what a thief of the keys may sign that no honest owner signs: changed values under good signatures, which reach
the code behind the signatures; those may be believed, but end in nothing else than belief or a refusal of ours.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import MetadataFormatError, NwmError
from nwmctl.trust.client import TrustedState, refresh
from nwmctl.trust.keys import KeyRing, Signer, init_keys
from nwmctl.trust.metadata import ListedBundle, versioned
from nwmctl.trust.repository import Publication, add_targets, create_repository, rotate_keys
from nwmctl.trust.tuf_signer import tuf_key
from tests.mutants import Hunting, Way, json_mutants, mutants
from tests.trust.conftest import FixedClock
from tests.trust.test_repository import ROLES, START, Mirror, bundle

NEW = bundle()
TOP = bundle("nt3.0")
"""Listed by the platform's own role, in a bin of it; and by the top-level one."""
LONG = 2_000
NAMES = ["timestamp", "snapshot", "targets", "platform-nt2.0", "bin-nt2.0", "root"]


@dataclass(frozen=True)
class Served:
    """What a mirror serves, and vehicles that have seen nothing, the publication before, and all of it. ``places``:
    each role's file that the vehicles read; ``signers``: everybody who ever signs for that role."""

    files: Mapping[str, bytes]
    places: Mapping[str, str]
    states: tuple[TrustedState, ...]
    signers: Mapping[str, list[Signer]]


def believe(served: Served, number: int, changed: Mapping[str, bytes]) -> tuple[ListedBundle, ...]:
    """What one of the vehicles takes from a mirror on which some files are others. The one that has seen all reads
    nothing but the timestamp, and takes part only where that is changed."""
    files = {**served.files, **changed}
    readers = served.states if served.places["timestamp"] in changed else served.states[:2]
    found = refresh(readers[number % len(readers)], files.get, START)
    return found.resolve(NEW.name), found.resolve(TOP.name)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    clock, folder = FixedClock(START), tmp_path_factory.mktemp("keys")
    rings = [init_keys(folder / name, clock, ROLES, development=True, platforms=("nt2.0",)) for name in ("old", "new")]
    mirror = Mirror()
    first = create_repository(rings[0], clock)
    many = [bundle(sequence=sequence) for sequence in range(1, 5)]
    second = add_targets(first.state, many, rings[0], clock, bins_from=2)
    mirror.publish(first)
    pinned = TrustedState(first.state.roots[0])
    mirror.publish(second)
    seen = refresh(pinned, mirror.fetch, START)
    seen.resolve(many[0].name)
    mirror.publish(third := rotate_keys(second.state, rings[0], rings[1], clock))
    mirror.publish(last := add_targets(third.state, [NEW, TOP], rings[1], clock, bins_from=2))
    current = refresh(seen.state, mirror.fetch, START)
    current.resolve(NEW.name)
    return Served(mirror.files, _places(last, current.state), (pinned, seen.state, current.state), _signers(rings))


def _places(last: Publication, current: TrustedState) -> dict[str, str]:
    """Paths of the files that a vehicle reads for the two bundles."""
    assert current.timestamp is not None
    assert current.snapshot is not None
    snapshot = json.loads(current.snapshot)["signed"]
    listed = {name.removesuffix(".json"): file["version"] for name, file in snapshot["meta"].items()}
    (bin_role,) = [role for role, data in current.delegated.items() if NEW.name.encode() in data]
    return {
        "timestamp": last.timestamp_path,
        "snapshot": versioned("snapshot", snapshot["version"]),
        "targets": versioned("targets", listed["targets"]),
        "platform-nt2.0": versioned("platform-nt2.0", listed["platform-nt2.0"]),
        "bin-nt2.0": versioned(bin_role, listed[bin_role]),
        "root": versioned("root", 2),
    }


def _signers(rings: list[KeyRing]) -> dict[str, list[Signer]]:
    roles = {"timestamp": KeyRole.TIMESTAMP, "snapshot": KeyRole.SNAPSHOT, "root": KeyRole.ROOT}
    found = {name: [one for ring in rings for one in ring.signers(role)] for name, role in roles.items()}
    lists = {"targets": "", "platform-nt2.0": "nt2.0", "bin-nt2.0": "nt2.0"}
    for name, platform in lists.items():
        found[name] = [ring.signer(KeyRole.TARGETS, platform=platform) for ring in rings]
    return found


def signed(data: bytes, signers: list[Signer]) -> bytes:
    """The same under good signatures, as far as it is metadata at all."""
    from tuf.api.metadata import Metadata
    from tuf.api.serialization import DeserializationError, SerializationError

    try:
        body = json.loads(data)
        text = Metadata.from_bytes(data).signed_bytes
    except (ValueError, TypeError, DeserializationError, SerializationError):
        return data
    body["signatures"] = [{"keyid": tuf_key(one.public).keyid, "sig": one.sign(text).hex()} for one in signers]
    return json.dumps(body).encode()


def damaged(served: Served, hunting: Hunting, role: str, count: int) -> None:
    """One file's bytes: half of them damaged anywhere, half changed in a value, under the old signatures."""
    path, meant = served.places[role], (NEW, TOP)
    with hunting(f"metadata '{role}'") as hunt:
        data = served.files[path]
        made = itertools.chain(mutants(data, hunt.seed, count // 2), json_mutants(data, hunt.seed, count // 2))
        for number, (way, bad) in enumerate(made):
            hunt.show(way, lambda n=number, bad=bad: believe(served, n, {path: bad}), meant)
        assert hunt.refused.total() > count / 2, "the file is read by hardly anybody"


def insiders(served: Served, hunting: Hunting, role: str, count: int) -> None:
    """Changed values under good signatures: belief or a refusal."""
    path = served.places[role]

    def shown(number: int, bad: bytes) -> None:
        believe(served, number, {path: signed(bad, served.signers[role])})

    with hunting(f"signed metadata '{role}'") as hunt:
        for number, (way, bad) in enumerate(json_mutants(served.files[path], hunt.seed, count)):
            hunt.show(way, lambda n=number, bad=bad: shown(n, bad), None)
        assert hunt.same or count < LONG, "no change was ever believed: the signatures are not good"


@pytest.mark.parametrize("role", NAMES)
def test_a_sample_of_mutants(served: Served, hunting: Hunting, role: str) -> None:
    damaged(served, hunting, role, 40)
    insiders(served, hunting, role, 40)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", NAMES)
def test_forty_thousand_mutants(served: Served, hunting: Hunting, role: str) -> None:
    damaged(served, hunting, role, 5_000)
    insiders(served, hunting, role, LONG)


@pytest.mark.parametrize("name", [1, None, "", "../up", {}, "x" * 200])
def test_a_signed_list_that_calls_its_child_anything(served: Served, name: object) -> None:
    path = served.places["targets"]
    whole = json.loads(served.files[path])
    (child,) = whole["signed"]["delegations"]["roles"]
    child["name"] = name
    bad = signed(json.dumps(whole).encode(), served.signers["targets"])
    with pytest.raises(MetadataFormatError):
        believe(served, 0, {path: bad})


def test_whole_files_in_each_other_s_place(served: Served, hunting: Hunting) -> None:
    """Every two that a vehicle reads, exchanged; and every older file of a role in the place of the newest."""
    files, places = served.files, served.places
    changes = [{one: files[two], two: files[one]} for one, two in itertools.combinations(places.values(), 2)]
    for path in places.values():
        role = path.split(".", 1)[1]
        changes += [{path: data} for other, data in files.items() if other.split(".", 1)[1] == role and other != path]
    with hunting("metadata files exchanged") as hunt:
        for number, changed in enumerate(changes):
            hunt.show(Way.EXCHANGED, lambda n=number, changed=changed: believe(served, n, changed), (NEW, TOP))
        # A platform's list and its bins have the same keys: one may stand for another and lists what it lists.
        assert hunt.same < 5
        assert len(hunt.refused) > 2


@pytest.mark.parametrize("role", NAMES)
def test_a_missing_file_is_refused(served: Served, role: str) -> None:
    files = {path: data for path, data in served.files.items() if path != served.places[role]}
    with pytest.raises(NwmError):
        refresh(served.states[0], files.get, START).resolve(NEW.name)
