"""Refusals of keys, signatures, bundles and metadata. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import (
    ConflictError,
    InputError,
    MissingError,
    NwmError,
    PersonNeededError,
    RefusedError,
    VerificationError,
)


class KeyRingExistsError(ConflictError):
    """A key folder already holds something; keys are never overwritten."""


class KeyRingError(InputError):
    """A key folder or a key file is missing, damaged or readable by others."""


class KeyMissingError(MissingError):
    """The key folder has no key for this role."""


class KeyPassphraseError(InputError):
    """A private key needs a passphrase, or was given a wrong one."""


class SignerUriError(InputError):
    """A signer's URI has a scheme that this nwmctl does not know."""


class PayloadKeyError(InputError):
    """The key that encrypts payloads is missing, damaged, readable by others or inside the workspace."""


class PublicKeyError(InputError):
    """A public key is not written as ``ed25519:`` and 64 hexadecimal digits."""


class EnvelopeError(VerificationError):
    """A DSSE envelope is not what the specification says."""


class PayloadTypeError(VerificationError):
    """A DSSE envelope holds another kind of document than expected."""


class UntrustedSignatureError(VerificationError):
    """No trusted key has signed these bytes."""


class SignatureFormatError(VerificationError):
    """A bundle's signature is not a CMS signature as nwmctl writes it."""


class CertificateUntrustedError(VerificationError):
    """A bundle's certificate was not issued by the authority that is trusted here."""


class CertificateExpiredError(VerificationError):
    """A bundle's certificate, or its authority's, does not hold at this time."""


class CertificatePurposeError(VerificationError):
    """A bundle's certificate may not sign code."""


class ContentSignatureError(VerificationError):
    """A bundle's description is not the one that was signed."""


class ApprovalNeededError(PersonNeededError):
    """The evidence of a bundle is enough, and the persons whom the policy names have not approved it yet."""


class SigningRefusedError(RefusedError):
    """Policy or evidence do not allow the signature; lists every shortfall and what would settle it."""


class SigningInputError(VerificationError):
    """What the signing process was given does not fit together."""


class AnchorUnknownError(SigningRefusedError):
    """A request wants a policy or approvals to count by keys that the key folder does not name."""


class ScriptUnprovenError(SigningRefusedError):
    """A bundle is not signed: a script of it is not the one that the packaged templates give."""


class SigningProcessError(NwmError):
    """The signing process ended without an answer."""


class MetadataFormatError(VerificationError):
    """Repository metadata is damaged, or missing where it must be."""


class MetadataSignatureError(VerificationError):
    """Repository metadata is not signed by the keys that the root names."""


class MetadataForeignKeyError(MetadataSignatureError):
    """Repository metadata is signed, and by none of the keys that the root names: replaced ones, or a stranger's."""


class MetadataRollbackError(VerificationError):
    """Repository metadata is older than what was seen before."""


class OrderRollbackError(MetadataRollbackError):
    """The director's answer to a vehicle is older than one that it has seen."""


class MetadataExpiredError(VerificationError):
    """Repository metadata has expired: somebody may be holding back newer ones."""


class MetadataFrozenError(MetadataExpiredError):
    """The repository's timestamp has expired: somebody holds back the newer one, or nobody has signed one."""


class MetadataMixedError(VerificationError):
    """Repository metadata are each genuine and were not of one moment."""


class MetadataTooLongError(VerificationError):
    """A repository file goes on beyond the most that is read of it."""


class MetadataFastForwardError(VerificationError):
    """The version of repository metadata has jumped so far that later ones could no longer exceed it."""


class MetadataHashError(VerificationError):
    """Repository metadata or a bundle has another length or hash than was promised."""


class BundleNotListedError(MissingError):
    """The repository's signed list has no such bundle."""


class ForeignEcuError(RefusedError):
    """The director's metadata are for a computer that this vehicle does not have, or for none."""


class HardwareDisagreesError(RefusedError):
    """Director, image repository and vehicle do not name the same hardware."""


class LengthDisagreesError(VerificationError):
    """Director and image repository promise different lengths for a file."""


class HashDisagreesError(VerificationError):
    """Director and image repository promise different hashes for a file."""


class SequenceDisagreesError(VerificationError):
    """Director and image repository name different release sequences for a file."""


class NotDirectedError(RefusedError):
    """The director does not tell this vehicle to install that file."""


class ReportUntrustedError(VerificationError):
    """A vehicle's report is not signed by the keys that its computers have registered."""


class ReportReplayedError(VerificationError):
    """A vehicle's report is one that was accepted before, or an older one."""


class ReportImplausibleError(VerificationError):
    """A vehicle's report names metadata versions that this repository cannot have reached."""
