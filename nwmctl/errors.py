"""The one hierarchy of refusals: what happened, why, and what to do next.

Every error that a user can meet is a subclass of ``NwmError`` and carries three sentences. One class stands
for one distinct refusal, so tests and the agent tell refusals apart by type and never by wording. The exit code
belongs to the family. This module imports nothing of the project.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Documented process exit codes (see docs/exit-codes.md)."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    INPUT = 3
    VERIFICATION = 4
    REFUSED = 5
    TOOLCHAIN = 6
    MISSING = 7
    CONFLICT = 8
    REMOTE = 9
    PERSON = 10
    INTERRUPTED = 130


class NwmError(Exception):
    """Base of all refusals. ``what`` happened, ``why``, and what to do ``next``; each one sentence or two."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, what: str, *, why: str, next: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next

    def __str__(self) -> str:
        return f"{self.what}\n  why:  {self.why}\n  next: {self.next}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and errors cross process borders.
        return (_rebuild, (type(self), self.what, self.why, self.next))


def _rebuild(kind: type[NwmError], what: str, why: str, next: str) -> NwmError:
    return kind(what, why=why, next=next)


# --- families: one exit code each ---------------------------------------------------------------------------------


class InputError(NwmError):
    """A file or an argument of the user is not what it must be."""

    exit_code = ExitCode.INPUT


class VerificationError(NwmError):
    """Bytes are not what somebody signed or promised."""

    exit_code = ExitCode.VERIFICATION


class RefusedError(NwmError):
    """The policy, a check or a gate says no."""

    exit_code = ExitCode.REFUSED


class ToolchainError(NwmError):
    """A compiler or runtime failed."""

    exit_code = ExitCode.TOOLCHAIN


class MissingError(NwmError):
    """Something that must be installed or present is not."""

    exit_code = ExitCode.MISSING


class ConflictError(NwmError):
    """The request contradicts what is already true (a lock, a sequence, a state)."""

    exit_code = ExitCode.CONFLICT


class RemoteError(NwmError):
    """A mirror, a host or a gateway did not do what was asked."""

    exit_code = ExitCode.REMOTE


class PersonNeededError(NwmError):
    """Only a person can decide this; the run stops and can be resumed."""

    exit_code = ExitCode.PERSON


# --- domain and formats -------------------------------------------------------------------------------------------


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


class DescriptionError(VerificationError):
    """A bundle's ``sw-description`` is not one that nwmctl writes."""


class IllegalTransitionError(ConflictError):
    """A campaign, wave or assignment cannot go from its state to the asked one."""


# --- storage ------------------------------------------------------------------------------------------------------


class ContentMissingError(MissingError):
    """A digest is not in the content store."""


class ContentCorruptError(VerificationError):
    """Bytes in the content store no longer have their digest."""


class WorkspaceLockedError(ConflictError):
    """Another nwmctl holds the workspace."""


class LogCorruptError(VerificationError):
    """The middle of an append-only log is damaged (a torn tail is not an error)."""


class DatabaseTooNewError(ConflictError):
    """The database was migrated by a newer nwmctl."""


class DatabaseBusyError(ConflictError):
    """Another process has held the database's write lock for too long."""


class DatabaseUnusableError(InputError):
    """The database file cannot be opened, is damaged, or its disk is full."""


class DatabaseDriverMissingError(MissingError):
    """The database's server needs a package that is not installed."""


class DatabaseFailedError(NwmError):
    """The database refused a statement: a defect of nwmctl."""


class WriterClosedError(ConflictError):
    """The database writer no longer takes work, since the process shuts down."""


# --- sources ------------------------------------------------------------------------------------------------------


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


# --- toolchains and compiler --------------------------------------------------------------------------------------


class UnknownToolchainError(InputError):
    """A recipe names a toolchain that no driver answers for."""


class RecipeOptionError(InputError):
    """A recipe has an option that its toolchain does not know, or a value that it does not take."""


class UnsupportedRecipeError(InputError):
    """A toolchain cannot build this precision for this unit."""


class ToolchainTemplateError(InputError):
    """The declaration of an external toolchain is wrong."""


class TensorMismatchError(InputError):
    """The tensors given to an artifact are not those that it takes."""


class GraphUnreadableError(InputError):
    """A file is not an ONNX graph whose shapes can be known."""


class ToolchainMissingError(MissingError):
    """A compiler or runtime is not installed here."""


class PlaceUnavailableError(MissingError):
    """An artifact cannot execute at the asked place on this machine."""


class CompileFailedError(ToolchainError):
    """A compiler failed, or printed an error although it exited 0."""


class ToolchainTimeoutError(ToolchainError):
    """A compiler or runtime did not end in its time and was killed."""


class InspectionFailedError(ToolchainError):
    """It could not be told what is in an artifact."""


class RuntimeFailedError(ToolchainError):
    """A runtime refused an artifact or its inputs."""


class RuntimeCrashedError(ToolchainError):
    """A runtime's process ended by itself in the middle of its work."""


class EmulationInstallError(ToolchainError):
    """The runtime for emulation could not be fetched or is not what its wheel lists."""


# --- driving and validation ---------------------------------------------------------------------------------------


class PolicyShapeError(InputError):
    """A driving policy returned something that is not a control per lane."""


class UnpairedOutcomesError(InputError):
    """Two closed-loop runs that shall be compared drove different scenarios."""


class ContractBrokenError(InputError):
    """A model file's graph is not what its contract promises."""


class GoldenDataError(InputError):
    """The golden data of a model package cannot be used."""


class CandidateFailedError(RefusedError):
    """An artifact under test crashed, hung or answered in another shape than its contract's."""


# --- trust --------------------------------------------------------------------------------------------------------


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


class SigningProcessError(NwmError):
    """The signing process ended without an answer."""


class MetadataFormatError(VerificationError):
    """Repository metadata is damaged, or missing where it must be."""


class MetadataSignatureError(VerificationError):
    """Repository metadata is not signed by the keys that the root names."""


class MetadataRollbackError(VerificationError):
    """Repository metadata is older than what was seen before."""


class MetadataExpiredError(VerificationError):
    """Repository metadata has expired: somebody may be holding back newer ones."""


class MetadataHashError(VerificationError):
    """Repository metadata or a bundle has another length or hash than was promised."""


class BundleNotListedError(MissingError):
    """The repository's signed list has no such bundle."""


# --- remote -------------------------------------------------------------------------------------------------------


class HostKeyError(VerificationError):
    """A host showed another key than the pinned one, or none is pinned."""


class HostKeyFormatError(InputError):
    """A pinned host key is not written as type and base64."""


class IdentityError(InputError):
    """The private key for a login is missing or cannot be read."""


class LoginRefusedError(RemoteError):
    """A host does not accept the login."""


class HostUnreachableError(RemoteError):
    """A host does not answer, or the connection broke."""


class RemoteFileError(RemoteError):
    """A host answered, but a file operation on it failed."""


# --- bundling and publishing --------------------------------------------------------------------------------------


class BundlePlanError(InputError):
    """A bundle cannot be put together from these artifacts: one is missing, doubled or of another model."""


class ChassisTemplateError(InputError):
    """The chassis template fails, or what it renders is not an adaptation of the vehicle model."""


class BundleFileError(InputError):
    """A bundle's file cannot be read or written."""


class MirrorUriError(InputError):
    """A mirror's address cannot be understood."""


class MirrorNameError(InputError):
    """A name cannot be the name of a file on a mirror."""


class MirrorWriteError(RemoteError):
    """A mirror's folder cannot be written or read."""


class MirrorConflictError(ConflictError):
    """A mirror already has this name with other content, or one name was asked for twice."""


class MirrorReadBackError(VerificationError):
    """What a mirror returns is not what was sent to it."""


class StagedFileChangedError(VerificationError):
    """A local file is no longer what was planned to be staged."""


class TimestampOlderError(ConflictError):
    """A mirror already has a timestamp of the same or a higher version with other content."""


class PublishInterruptedError(RemoteError):
    """Some mirrors have the timestamp and others do not; running again finishes."""


class TrainIncompleteError(RefusedError):
    """A release train lacks a platform or a bundle."""


class TrainMismatchError(RefusedError):
    """The parts of a release train were not built from the same release."""


# --- fleet, gateway, vehicle --------------------------------------------------------------------------------------


class InventoryRowError(InputError):
    """A line of a fleet inventory is not what it must be; names file and line."""


class UnknownVehicleModelError(InputError):
    """An inventory names a vehicle model that the catalogue lacks."""


class DuplicateVinError(InputError):
    """An inventory lists a vehicle twice, or one that belongs to another fleet."""


class FleetKindError(ConflictError):
    """A fleet cannot change between virtual and real."""


class UnknownCampaignError(MissingError):
    """There is no campaign of that name."""


class UnknownVehicleError(MissingError):
    """There is no vehicle with that VIN, or no such action of it."""


class SequenceTakenError(ConflictError):
    """A release sequence already stands for other content."""


class BundleSetIncompleteError(RefusedError):
    """A release lacks the bundle of one of its platforms: all platforms or none."""


class VirtualOnlyError(RefusedError):
    """A bundle whose evidence is enough only for a virtual fleet was meant for a real one."""


class NoVehicleError(RefusedError):
    """No vehicle of the fleet needs the release."""


class CampaignChangedError(ConflictError):
    """Somebody else changed the campaign in between."""


class NewerCampaignError(ConflictError):
    """A campaign cannot be rolled back, since a newer one has reached its fleet."""


class AuditBrokenError(VerificationError):
    """The chain of events in the database has been altered."""


class DdiFormatError(InputError):
    """A message of the update protocol is garbage."""


class GatewayConfigError(InputError):
    """The gateway cannot start as configured."""


class VehicleDiskError(RemoteError):
    """A vehicle cannot read or write its own disk."""


class NoSpaceError(VehicleDiskError):
    """A vehicle's disk is full."""


class VehicleStateError(VerificationError):
    """A file that a vehicle keeps about itself is damaged or missing."""


class SlotRuleError(ConflictError):
    """A slot cannot do what was asked in the state it is in."""


class SlotBrokenError(VerificationError):
    """A slot's bytes are not those that were installed."""


class DownloadLengthError(VerificationError):
    """A download is longer or shorter than its signed length."""


class DownloadDigestError(VerificationError):
    """A download has not the digest that was signed for it."""


class DownloadBrokenError(RemoteError):
    """A download broke off more often than the vehicle tries."""


class GatewayUnreachableError(RemoteError):
    """The gateway does not answer, or answers with an error."""


class GatewayAnswerError(RemoteError):
    """The gateway's answer is not what the protocol says."""


class WrongHardwareError(RefusedError):
    """A bundle is for another board or hardware revision than this vehicle's."""


class WrongPlatformError(RefusedError):
    """A bundle is for another platform than this vehicle's."""


class SequenceTooLowError(RefusedError):
    """A bundle's release sequence lies below the highest that this vehicle has committed."""


class NotForThisVehicleError(RefusedError):
    """A bundle holds nothing for this vehicle's compute variant or vehicle model."""


class BundleContentsError(VerificationError):
    """What a bundle holds is not what its own signed manifest lists."""


class NoSlotToReturnToError(RefusedError):
    """The inactive slot is not intact, or has another sequence than the one asked for."""


class HealthCheckFailedError(RefusedError):
    """The slot on trial did not prove itself."""


class TrialNotFinishedError(RefusedError):
    """The slot on trial started too often without being committed."""


class DeliveryError(InputError):
    """A vehicle cannot leave the factory as it is described."""


class FaultPlanError(InputError):
    """A fault plan is not written as it must be."""


# --- agent and steps ----------------------------------------------------------------------------------------------


class InternalError(NwmError):
    """A defect of nwmctl itself, caught at the border of a step."""


class StepFailedError(NwmError):
    """A run ended because a step failed and no remedy was left; carries the step's own exit code."""


class RunUnknownError(InputError):
    """No run of that name is in this workspace."""


class RunMismatchError(ConflictError):
    """A run cannot be resumed with another release, policy or profile than it was started with."""


class ModelIncompleteError(InputError):
    """A model package lacks a file that the road needs."""


class PlanError(InputError):
    """What is asked for cannot be planned (an unknown platform, nothing to do)."""


# --- app ----------------------------------------------------------------------------------------------------------


class FileUnreadableError(InputError):
    """A file that the user named cannot be read."""


class PolicySignatureError(VerificationError):
    """The policy is not what the safety role signed."""


class DiskFullError(MissingError):
    """The workspace's disk has too little room for a run, or became full during one."""


class OutputUnwritableError(InputError):
    """A file that the user asked for cannot be written."""


class ChecksRefusedError(RefusedError):
    """The policy would refuse to sign what was checked."""


class KeysNeededError(MissingError):
    """A real fleet needs a key folder that the user made."""


class ProcessDiedError(NwmError):
    """A process that nwmctl started (gateway, vehicles) ended by itself."""


class CommandLineError(NwmError):
    """A command, option or argument that nwmctl does not have, or one that is missing."""

    exit_code = ExitCode.USAGE


class NoCampaignError(InputError):
    """A command about a campaign, in a workspace that has none."""


class CampaignOverError(ConflictError):
    """A release is to be rolled out again whose campaign has been aborted or rolled back."""


class CampaignStoppedError(RefusedError):
    """A campaign that is being followed was paused or aborted, by a gate or by a person."""


class InterruptedByUserError(NwmError):
    """Somebody pressed Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class NoLocalFleetError(InputError):
    """A virtual fleet cannot be driven from this workspace."""
