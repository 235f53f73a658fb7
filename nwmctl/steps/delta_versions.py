"""The versions that a platform's vehicles have, read out of the bundles that brought them.

A line of a delta plan is a platform, since a bundle is for a platform; a version of it is the set of artifacts of one
bundle, named by their digests, so that a release and the return bundle of the next one are the same version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from nwmctl.bundling.delta_estimate import estimate_delta
from nwmctl.bundling.delta_roads import Delta
from nwmctl.bundling.read import BundleContents
from nwmctl.bundling.reopen import known_contents, large_names, take_files
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.figure import Obtained
from nwmctl.domain.packing import Base
from nwmctl.formats import canonical
from nwmctl.steps.deltas import kept_delta
from nwmctl.storage.content import ContentStore

DELTA_FRAME = 4096
"""Bytes that bringing a file as a delta adds to a bundle, beside the delta: its script, headers, its lines of the
description."""
ENCODED_PER_CPU_S = 40_000_000
"""Bytes of a new artifact that are encoded in a CPU-second, as plans count; a slow machine's."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A file of a new version and the one that it starts from; ``size`` in bytes."""

    filename: str
    base: Base
    new: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Version:
    """A platform's artifacts by ``variant/build``: their digests, the names under which they are installed, their
    sizes, and by name what they take in a bundle. ``rest``: bytes of a bundle beside them; ``sequences`` under which
    vehicles report it; ``bundles`` that hold it; ``sealed``: they are encrypted in there."""

    platform: str
    name: str
    payloads: Mapping[str, Digest]
    names: Mapping[str, str]
    sizes: Mapping[str, int]
    packed: Mapping[str, int]
    rest: int
    full_bytes: int
    sequences: tuple[int, ...]
    bundles: tuple[Digest, ...]
    sealed: bool

    def pairs(self, old: Version) -> Iterator[Pair]:
        """The files of this version that deltas from ``old`` can bring: every computer that executes one had the same
        file before."""
        builds: dict[str, list[str]] = {}
        for build, name in sorted(self.names.items()):
            builds.setdefault(name, []).append(build)
        for name, own in builds.items():
            bases = {Base(old.names[build], old.payloads[build]) if build in old.payloads else None for build in own}
            base = bases.pop()
            if base is not None and not bases:
                yield Pair(name, base, self.payloads[own[0]], self.sizes[own[0]])

    def whole(self, old: Version) -> int:
        """Bytes of a delta bundle from ``old`` beside its deltas."""
        paired = {pair.filename for pair in self.pairs(old)}
        return self.rest + sum(DELTA_FRAME if name in paired else size for name, size in self.packed.items())


def version_of(bundle: Digest, contents: BundleContents, sequences: Iterable[int]) -> Version:
    """The version that a bundle brings."""
    manifest, large = contents.manifest, large_names(contents.manifest)
    payloads = {f"{each.variant}/{each.build}": each for each in manifest.payloads}
    digests = {build: each.digest for build, each in sorted(payloads.items())}
    names = {build: each.filename for build, each in payloads.items()}
    lying = {file.filename: file.packing for file in contents.description.files}
    packed = {}
    for name in set(names.values()):
        packing = lying[name]
        packed[name] = contents.sizes[name] if packing is None else packing.packed_size
    return Version(
        platform=manifest.platform,
        name=digest_bytes(canonical.encode({build: str(digest) for build, digest in digests.items()})).short,
        payloads=digests,
        names=names,
        sizes={build: each.size for build, each in payloads.items()},
        packed=dict(sorted(packed.items())),
        rest=contents.size - sum(packed.values()),
        full_bytes=contents.size,
        sequences=tuple(sorted(set(sequences))),
        bundles=(bundle,),
        sealed=any(
            file.packing is not None and file.packing.encrypted
            for file in contents.description.files
            if file.filename in large
        ),
    )


def read_versions(store: ContentStore, bundles: Iterable[tuple[Digest, tuple[int, ...]]]) -> dict[str, list[Version]]:
    """The versions of each platform in these bundles of the store, with the sequences of each bundle."""
    found: dict[str, dict[str, Version]] = {}
    for digest, sequences in bundles:
        one = version_of(digest, known_contents(store.path(digest)), sequences)
        own = found.setdefault(one.platform, {})
        if one.name in own:
            before = own[one.name]
            both = tuple(sorted({*before.sequences, *one.sequences}))
            one = replace(
                before, sequences=both, bundles=(*before.bundles, digest), sealed=before.sealed and one.sealed
            )
        own[one.name] = one
    return {platform: list(own.values()) for platform, own in sorted(found.items())}


def bring_out(store: ContentStore, version: Version) -> bool:
    """Have the artifacts of a version as objects of the store; False where they are sealed in their bundles."""
    for bundle in version.bundles:
        missing = {version.names[build]: digest for build, digest in version.payloads.items() if not store.has(digest)}
        if not missing:
            return True

        def keep(digest: Digest, chunks: Iterator[bytes]) -> None:
            with store.scratch() as folder:
                with (folder / digest.hex).open("wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                store.adopt(folder / digest.hex, digest)

        take_files(store.path(bundle), missing, keep)
    return all(store.has(digest) for digest in version.payloads.values())


def exact_delta(store: ContentStore, old: Version, new: Version) -> Delta | None:
    """The delta bundle between two versions if all its deltas are in the store."""
    total = new.whole(old)
    for pair in new.pairs(old):
        found = kept_delta(store, pair.base.digest, pair.new)
        if found is None:
            return None
        total += found.size
    return Delta(new.platform, old.name, new.name, total, obtained=Obtained.MEASURED, built=True)


def predicted_delta(store: ContentStore, old: Version, new: Version) -> Delta:
    """What the delta bundle between two versions would take; both are brought out."""
    total, read = new.whole(old), 0
    for pair in new.pairs(old):
        total += estimate_delta(store.path(pair.base.digest), store.path(pair.new)).bytes
        read += pair.size
    return Delta(new.platform, old.name, new.name, total, read / ENCODED_PER_CPU_S)
