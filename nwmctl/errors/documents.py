"""Refusals of the domain and of file formats. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import ConflictError, InputError, RefusedError, VerificationError


class DigestFormatError(InputError):
    """A digest is not written as ``sha256:`` and 64 hexadecimal digits."""


class SchemaError(InputError):
    """A document has an unknown key, a missing key or a value of the wrong kind; names file, line and key."""


class SchemaVersionError(InputError):
    """A document was written by a newer nwmctl than this one."""


class NotCanonicalError(VerificationError):
    """Bytes that must be canonical JSON are not."""


class PolicyLoosenedError(RefusedError):
    """A release tries to weaken a rule of the signed policy."""


class ArchiveError(VerificationError):
    """A bundle's archive is truncated, has trailing bytes, or holds what a bundle never holds."""


class ArchiveNameError(ArchiveError):
    """An archive holds a name that is no plain file name: it could lead out of the folder."""


class ArchiveLinkError(ArchiveError):
    """An archive holds a link, a folder or a device where only regular files belong."""


class ArchiveCutOffError(ArchiveError):
    """A bundle's archive ends too early."""


class ArchiveTwiceError(ArchiveError):
    """A name occurs twice in a bundle's archive."""


class ArchiveSizeError(ArchiveError):
    """A file in a bundle's archive, or the whole, is larger than allowed, or has another size than promised."""


class PackedDataError(VerificationError):
    """A file of a bundle cannot be decompressed or decrypted."""


class PackedSizeError(VerificationError):
    """A file of a bundle unpacks to more or fewer bytes than its signed description says."""


class DescriptionError(VerificationError):
    """A bundle's ``sw-description`` is not one that nwmctl writes."""


class IllegalTransitionError(ConflictError):
    """A campaign, wave or assignment cannot go from its state to the asked one."""
