"""Refusals of deltas: encoding and applying. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import ConflictError, InputError, RefusedError, VerificationError


class DeltaFileError(InputError):
    """A file of a delta (old, new, the delta itself) cannot be read or written."""


class DeltaInputChangedError(ConflictError):
    """The old or the new file changed while the delta between them was made."""


class DeltaVersionError(InputError):
    """The delta was written in a newer version of the format than this applier reads."""


class DeltaFormatError(VerificationError):
    """The bytes are not a delta, or break one of the format's rules."""


class DeltaTruncatedError(VerificationError):
    """The delta ends too early."""


class DeltaDamagedError(VerificationError):
    """A checksum inside the delta does not match: bytes were flipped."""


class DeltaOrderError(VerificationError):
    """The delta's chunks are not in their order: one is missing, doubled or moved."""


class DeltaLimitError(VerificationError):
    """The delta claims more than the format or the caller allows."""


class DeltaBaseError(VerificationError):
    """The old file is not the one that the delta was made against."""


class DeltaResultError(VerificationError):
    """The new file does not have the digest that the delta promises."""


class DeltaUnprovenError(RefusedError):
    """A bundle with deltas is not signed: they were not shown to make the files that were checked."""


class DeltasSealedError(RefusedError):
    """A release whose payloads are encrypted asks for deltas, which would bring their contents in the clear."""


class DeltasElsewhereError(RefusedError):
    """A release with deltas is to be published with a dossier that was drawn up elsewhere."""


class DeltaBaseLackingError(RefusedError):
    """A bundle brings a payload as a delta from a file that this vehicle does not run."""
