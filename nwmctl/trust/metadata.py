"""What the repository's writer and its readers share: names, sizes, states, and python-tuf's refusals as our own.

A repository is two folders, ``metadata/`` and ``targets/``; all paths here are relative to it. Reads no file, knows
no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from nwmctl.domain.bundle import BundleTarget
from nwmctl.domain.digest import Digest
from nwmctl.errors import (
    MetadataExpiredError,
    MetadataFormatError,
    MetadataHashError,
    MetadataRollbackError,
    MetadataSignatureError,
    NwmError,
)
from nwmctl.formats import canonical, documents

TIMESTAMP_PATH = "metadata/timestamp.json"
MAX_ROOT = 512_000
MAX_TIMESTAMP = 16_384
MAX_SNAPSHOT = 2_000_000
MAX_TARGETS = 5_000_000
MAX_ROOTS = 256
"""Root versions that are followed in one go."""

Fetch = Callable[[str], bytes | None]
"""Gives the bytes at a repository path, or None where there is nothing. Raises RemoteError where it cannot say."""


@dataclass(frozen=True, slots=True)
class ListedBundle:
    """A bundle as the repository lists it. ``name`` is its file name."""

    name: str
    length: int
    digest: Digest
    about: BundleTarget

    @property
    def path(self) -> str:
        """Where its bytes are: consistent snapshots put the hash into the name."""
        return f"targets/{self.digest.hex}.{self.name}"

    def check(self, digest: Digest, length: int) -> None:
        """Return if these are the promised bytes. Raises MetadataHashError."""
        if (digest, length) != (self.digest, self.length):
            raise MetadataHashError(
                f"'{self.name}' is not what the repository lists",
                why=f"{length} bytes with {digest}, listed are {self.length} bytes with {self.digest}",
                next="fetch it again; do not install it",
            )


def versioned(role: str, version: int) -> str:
    """Path of a versioned metadata file."""
    return f"metadata/{version}.{role}.json"


def most_bytes(path: str) -> int:
    """How many bytes of the metadata file at ``path`` are read at most."""
    if path == TIMESTAMP_PATH:
        return MAX_TIMESTAMP
    kind = path.removesuffix(".json").rpartition(".")[2]
    return {"root": MAX_ROOT, "snapshot": MAX_SNAPSHOT}.get(kind, MAX_TARGETS)


def next_version(own: int, reported: int) -> int:
    """The version of the next metadata: above the last one that was made and above any that a vehicle has seen, so
    that whoever was restored from a backup is never below its vehicles."""
    return max(own, reported) + 1


def moment(at_us: int) -> datetime:
    """A time in microseconds since 1970 UTC, in whole seconds, as metadata hold it."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC)


def custom_of(about: BundleTarget) -> canonical.Plain:
    """The ``custom`` value of a listed bundle."""
    return canonical.decode(documents.encode(about), "custom")


def listed(name: str, length: int, hashes: dict[str, str], custom: object) -> ListedBundle:
    """A listed bundle from metadata values. Raises MetadataFormatError."""
    try:
        digest = Digest.parse(f"sha256:{hashes.get('sha256', '')}")
        about = documents.decode(BundleTarget, canonical.encode(custom), f"custom of '{name}'")  # type: ignore[arg-type]
    except (NwmError, TypeError, ValueError) as problem:
        raise format_error(f"the entry '{name[:80]}' cannot be read: {problem}") from problem
    return ListedBundle(name, length, digest, about)


@contextmanager
def translated() -> Iterator[None]:
    """Turn python-tuf's refusals into ours."""
    from tuf.api import exceptions
    from tuf.api.serialization import DeserializationError

    try:
        yield
    except exceptions.ExpiredMetadataError as problem:
        raise MetadataExpiredError(
            "the repository's metadata have expired",
            why=f"{problem}; somebody may be holding back newer ones, or nobody has renewed them",
            next="ask another mirror; the repository's owner renews metadata by publishing",
        ) from problem
    except exceptions.BadVersionNumberError as problem:
        raise MetadataRollbackError(
            "the repository's metadata are older than what was seen before",
            why=str(problem),
            next="ask another mirror; this one may be stale or replayed",
        ) from problem
    except exceptions.UnsignedMetadataError as problem:
        raise MetadataSignatureError(
            "the repository's metadata are not signed by the pinned keys",
            why=str(problem),
            next="compare the root metadata with the one that your vehicles carry",
        ) from problem
    except exceptions.LengthOrHashMismatchError as problem:
        raise MetadataHashError(
            "the repository's metadata do not have the promised length or hash",
            why=str(problem),
            next="ask another mirror, or publish again",
        ) from problem
    except (exceptions.RepositoryError, DeserializationError) as problem:
        raise format_error(str(problem)) from problem
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as problem:
        # python-tuf reads what an unknown server sent; whatever trips it there is damage, not a fault of ours.
        raise format_error(f"{type(problem).__name__}: {problem}") from problem


def format_error(why: str) -> MetadataFormatError:
    """A refusal of damaged or missing metadata."""
    return MetadataFormatError(
        "the repository's metadata cannot be used", why=why, next="ask another mirror, or publish again"
    )
