"""A release train: the bundles of all platforms, built apart, published together or not at all.

``check_train`` is the only place that decides whether the parts belong together. Does not read files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.digest import Digest
from nwmctl.domain.release import RETURN_OFFSET, Release
from nwmctl.errors import TrainIncompleteError, TrainMismatchError

BUNDLE_RESULT_NAME = "bundle-result.json"
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\Z")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A signed bundle. ``manifest`` is the digest of its bundle manifest, ``model`` the model that it carries,
    ``papers`` what it was judged by, in a file beside it (None where a bundle is described that left no folder)."""

    kind: BundleKind
    filename: str
    digest: Digest
    size: int
    sequence: int
    manifest: Digest
    model: Digest
    papers: Digest | None = None

    def __post_init__(self) -> None:
        if not _FILENAME.match(self.filename):
            raise ValueError(f"'{self.filename[:80]}' is not the name of a file in this folder")
        if self.size < 0:
            raise ValueError(f"size is {self.size}, it cannot be negative")


def papers_name(filename: str) -> str:
    """The file beside a bundle that holds what it was judged by."""
    return f"{filename}.papers.json"


@dataclass(frozen=True, slots=True)
class BundleResult:
    """What one platform's job leaves beside its bundles, as ``bundle-result.json``.

    ``evidence`` are the digests of all evidence that the signing judged, ``policy`` the policy it judged by.
    """

    release: str
    sequence: int
    platform: str
    model: Digest
    previous: Digest
    policy: Digest
    evidence: tuple[Digest, ...]
    bundles: tuple[BundleFile, ...]

    def bundle(self, kind: BundleKind) -> BundleFile | None:
        """The bundle of one kind."""
        return next((bundle for bundle in self.bundles if bundle.kind is kind), None)


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """What every part of the train must agree with."""

    release: str
    sequence: int
    platforms: tuple[str, ...]
    model: Digest
    previous: Digest
    policy: Digest

    @classmethod
    def of(cls, release: Release, policy: Digest) -> TrainSpec:
        """What a release file demands; ``policy`` is the digest of the policy file's bytes."""
        return cls(
            release.name,
            release.sequence,
            release.platforms,
            release.model.digest,
            release.previous.digest,
            policy,
        )


def check_train(spec: TrainSpec, results: Iterable[BundleResult]) -> Mapping[str, BundleResult]:
    """The parts by platform, in the release's order.

    Raises TrainMismatchError (built from something else, or twice with different content, or for a platform that the
    release does not have) and TrainIncompleteError (a platform or one of its two bundles is missing).
    """
    parts: dict[str, BundleResult] = {}
    for result in results:
        _same_release(spec, result)
        if parts.setdefault(result.platform, result) != result:
            raise _mismatch(result.platform, "two different results for this platform were collected")
    missing = [platform for platform in spec.platforms if platform not in parts]
    if missing:
        raise TrainIncompleteError(
            f"release {spec.release} lacks {', '.join(missing)}",
            why=f"collected were {', '.join(sorted(parts)) or 'no platforms'}; a release exists for all or for none",
            next=f"build what is missing, e.g. `nwmctl bundle RELEASE --platform {missing[0]} --out DIR`",
        )
    for platform in spec.platforms:
        _both_bundles(spec, parts[platform])
    return {platform: parts[platform] for platform in spec.platforms}


def _same_release(spec: TrainSpec, result: BundleResult) -> None:
    compared: Sequence[tuple[str, object, object]] = (
        ("release", result.release, spec.release),
        ("sequence", result.sequence, spec.sequence),
        ("model", result.model, spec.model),
        ("previous model", result.previous, spec.previous),
        ("policy", result.policy, spec.policy),
    )
    for what, found, expected in compared:
        if found != expected:
            raise _mismatch(result.platform, f"its {what} is {_short(found)}, the release says {_short(expected)}")
    if result.platform not in spec.platforms:
        raise _mismatch(result.platform, f"the release is for {', '.join(spec.platforms)} only")


def _both_bundles(spec: TrainSpec, result: BundleResult) -> None:
    for kind, model, sequence in (
        (BundleKind.RELEASE, spec.model, spec.sequence),
        (BundleKind.RETURN, spec.previous, spec.sequence + RETURN_OFFSET),
    ):
        found = [bundle for bundle in result.bundles if bundle.kind is kind]
        if not found:
            raise TrainIncompleteError(
                f"release {spec.release} lacks the {kind} bundle of {result.platform}",
                why="every platform needs the bundle and the one that brings the previous model back",
                next=f"build it again with `nwmctl bundle RELEASE --platform {result.platform} --out DIR`",
            )
        if len(found) > 1 or (found[0].model, found[0].sequence) != (model, sequence):
            raise _mismatch(result.platform, f"its {kind} bundle does not carry {_short(model)} at {sequence}")
    if not result.evidence:
        raise _mismatch(result.platform, "it names no evidence")


def _short(value: object) -> str:
    return value.short if isinstance(value, Digest) else f"'{value}'"


def _mismatch(platform: str, reason: str) -> TrainMismatchError:
    return TrainMismatchError(
        f"the part for {platform} does not belong to this train",
        why=reason,
        next=f"build {platform} again from this very release file, or remove its folder from --from",
    )
