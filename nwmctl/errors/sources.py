"""Refusals on the way to a model package. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, MissingError, RemoteError, VerificationError


class SourceUriError(InputError):
    """A model's URI cannot be understood."""


class SourceUnavailableError(RemoteError):
    """A source has no such file, forbids it, or stopped answering."""


class SourceBackendMissingError(MissingError):
    """A URI's scheme needs a package that is not installed."""


class DigestMismatchError(VerificationError):
    """Fetched bytes do not have the digest that was promised for them."""


class SizeMismatchError(VerificationError):
    """A fetched file is longer or shorter than was promised."""


class SignatureUnknownError(VerificationError):
    """A model card is not signed by a key that the release trusts."""


class SignatureOfOtherCardError(VerificationError):
    """The signature beside a model card was made for another card."""


class CardContentError(InputError):
    """A model card lists files that a package cannot have."""


class DestinationError(InputError):
    """The place where fetched files shall go cannot be written, or holds something else."""
