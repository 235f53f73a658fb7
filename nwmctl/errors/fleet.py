"""Refusals of inventory, campaigns, gateway and vehicles. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import ConflictError, InputError, MissingError, RefusedError, RemoteError, VerificationError


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


class MirrorUnprovenError(ConflictError):
    """No server that vehicles could download from has given the published bytes yet."""


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


class TransferTooSlowError(RemoteError):
    """A server sends too slowly for too long: somebody may want to keep the vehicle waiting."""


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


class RuntimeLackingError(RefusedError):
    """A bundle's payload needs a runtime, or arithmetic, that this vehicle does not have."""


class CarriedRuntimeError(RefusedError):
    """A runtime that came in a bundle is no wheel that this vehicle can unpack."""


class BundleContentsError(VerificationError):
    """What a bundle holds is not what its own signed manifest lists."""


class PayloadChangedError(BundleContentsError):
    """A file in a bundle has another hash than the signed description gives it."""


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


class EcusNotRegisteredError(MissingError):
    """A vehicle has not said which computers it has."""


class EcusTakenError(RefusedError):
    """A vehicle's computers were registered before, with other keys or hardware."""


class DirectorNotReadyError(MissingError):
    """There are no director metadata to serve: no root was made, or nobody may sign."""


class RequirementLackingError(RefusedError):
    """A vehicle has not the runtime, baseline or chassis interface that a bundle requires."""


class MarketNotApprovedError(RefusedError):
    """A campaign would bring a release to vehicles of a market for which it has no approval."""
