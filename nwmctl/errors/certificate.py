"""Refusals of release certificates, dossiers and foreign model signatures. See ``base``."""

from __future__ import annotations

from nwmctl.errors.base import InputError, MissingError, RefusedError, VerificationError


class SealError(VerificationError):
    """An envelope is not a DSSE envelope with one signature of a release key and its certificate."""


class DossierFormatError(VerificationError):
    """A dossier is damaged, too large, or says one thing twice."""


class LeafUnprovenError(VerificationError):
    """A leaf and what should join it to the root of the certificate do not lead there."""


class LeafMissingError(VerificationError):
    """The certificate says nothing about a thing that it must cover."""


class PaperAlteredError(VerificationError):
    """A paper of a dossier does not have the digest under which it stands."""


class OtherReleaseError(VerificationError):
    """A certificate or a paper belongs to another release."""


class DossierMismatchError(VerificationError):
    """A dossier that holds is not the one that these bundles and this release file lead to."""


class ChainBrokenError(VerificationError):
    """Two links of the chain from the car to the trained weights contradict each other."""


class CertificationRefusedError(RefusedError):
    """A release is not certified: its bundles, papers and order do not belong together."""


class ChainOpenError(MissingError):
    """A whole chain was asked for, and something of it could not be established."""


class DossierMissingError(InputError):
    """What was named is no bundle, no dossier and no release with one."""


class ModelSignerMissingError(MissingError):
    """A model has an OpenSSF signature, and what verifies it is not installed."""


class ModelSignatureError(VerificationError):
    """An OpenSSF model signature does not hold for these files and the keys that the release trusts."""
