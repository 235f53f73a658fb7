"""What must hold before a model package may be used: the card's digest, its signature, and every file it lists.

Order matters: the digest that the release names comes first, then the signature by a key that the release trusts,
only then is the card read, and only then are its files believed. Reads files for hashing; fetches nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.model import (
    CARD_NAME,
    OPENSSF_NAME,
    SIGNATURE_NAME,
    FileEntry,
    ModelCard,
    ModelOrigin,
    SignatureMethod,
)
from nwmctl.errors import (
    CardContentError,
    DestinationError,
    DigestMismatchError,
    ModelSignatureError,
    SignatureUnknownError,
    SizeMismatchError,
    UntrustedSignatureError,
)
from nwmctl.formats import documents
from nwmctl.trust.model_signature import openssf_files, verify_model_signature

MAX_CARD = 4 << 20
MAX_SIGNATURE = 8 << 20
_NEXT = "ask the model's publisher; do not change the digest in the release unless they confirm the new one"


def verify_card(
    card: bytes, signature: bytes, expected: Digest, trusted: Sequence[str]
) -> tuple[ModelCard, ModelOrigin]:
    """The card and who signed it. ``signature`` is our own or an OpenSSF model signature.

    Raises DigestMismatchError, SignatureUnknownError, SignatureOfOtherCardError, EnvelopeError, PayloadTypeError,
    NotCanonicalError, SchemaError, SchemaVersionError, CardContentError, ModelSignatureError.
    """
    found = digest_bytes(card)
    if found != expected:
        raise DigestMismatchError(
            "the model card is not the one that the release names",
            why=f"it has the digest {found.short}, the release names {expected.short}",
            next=_NEXT,
        )
    try:
        origin = verify_model_signature(card, signature, trusted)
    except UntrustedSignatureError as problem:
        raise SignatureUnknownError(
            "the model card is not signed by a key that the release trusts",
            why=problem.why,
            next="check 'trust: model_keys:' in the release; never add a key that arrived with the model",
        ) from problem
    read = documents.decode(ModelCard, card, CARD_NAME)
    listed = package_files(read)
    if origin.method is SignatureMethod.OPENSSF:
        check_listed(listed, signature, trusted)
    return read, origin


def check_listed(listed: Sequence[FileEntry], signature: bytes, trusted: Sequence[str]) -> None:
    """Return if an OpenSSF signature covers every file of the package just as the card lists it.

    Raises ModelSignatureError and what ``openssf_files`` raises.
    """
    signed, _ = openssf_files(signature, trusted)
    for entry in listed:
        if signed.get(entry.path) != entry.digest:
            what = signed[entry.path].short if entry.path in signed else "nothing"
            raise ModelSignatureError(
                f"the model's signature and its card disagree about '{entry.path}'",
                why=f"the card lists {entry.digest.short}, signed is {what}",
                next=_NEXT,
            )


def package_files(card: ModelCard) -> tuple[FileEntry, ...]:
    """The files of a card, each once, by path. Raises CardContentError for a path that a package cannot have."""
    files: dict[str, FileEntry] = {}
    for entry in card.files.values():
        if files.setdefault(entry.path, entry) != entry:
            raise _bad_path(entry.path, "it is listed twice with different content")
    for path, entry in files.items():
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable():
            raise _bad_path(path, "paths lie inside the package's folder")
        if path in (CARD_NAME, SIGNATURE_NAME, OPENSSF_NAME) or any(
            str(up) in files for up in PurePosixPath(path).parents
        ):
            raise _bad_path(path, "another file of the package is in its place")
        if entry.size < 0:
            raise _bad_path(path, f"its size is {entry.size}")
    return tuple(files[path] for path in sorted(files))


def verify_file(path: Path, entry: FileEntry) -> None:
    """Whether a file has the size and digest that the card lists.

    Raises SizeMismatchError, DigestMismatchError, DestinationError if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size != entry.size:
                raise wrong_size(entry.path, f"it has {size} bytes, the card lists {entry.size}")
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise DestinationError(
            f"'{entry.path}' cannot be read", why=problem.strerror or str(problem), next="check the disk and pull again"
        ) from problem
    if found != entry.digest.hex:
        raise DigestMismatchError(
            f"'{entry.path}' is not the file that the model card lists",
            why=f"it has the digest {found[:12]}, the card lists {entry.digest.short}",
            next="pull again; if it happens again, the source has another file: ask the model's publisher",
        )


def wrong_size(name: str, reason: str) -> SizeMismatchError:
    """The refusal of a file that is longer or shorter than promised."""
    return SizeMismatchError(
        f"'{name}' does not have the promised size",
        why=reason,
        next="pull again; if it happens again, the source has another file: ask the model's publisher",
    )


def _bad_path(path: str, reason: str) -> CardContentError:
    return CardContentError(
        f"the model card lists the file '{path[:120]}'", why=reason, next="have the model's publisher correct the card"
    )
