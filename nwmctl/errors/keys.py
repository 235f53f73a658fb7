"""Refusals of key rings, thresholds and ceremonies. One class per distinct refusal; see ``base``."""

from __future__ import annotations

from nwmctl.errors.base import ConflictError, InputError, MissingError, RemoteError, VerificationError


class KeyFolderOpenError(InputError):
    """A key folder may be entered or changed by others than its owner."""


class KeyTwoRolesError(InputError):
    """A key that has a role already was given another one."""


class KeyRevokedError(VerificationError):
    """A key that was declared lost or stolen is needed, or offered, as a signature."""


class KeyThresholdError(MissingError):
    """Fewer keys, or fewer signatures, than the role's threshold."""


class KeyElsewhereError(MissingError):
    """The private part of a key is not in this folder: another person holds it."""


class KeyUnknownError(InputError):
    """No key of the ring is the one that was named."""


class ClockBehindError(InputError):
    """This machine's clock shows a time before the keys were made: what it signs would have expired already."""


class PassphraseNeededError(InputError):
    """New keys are to be encrypted, and no passphrase was given."""


class SignerFailedError(RemoteError):
    """A signer behind a URI (hardware module, cloud service) did not sign, or signed with another key."""


class RootDraftError(InputError):
    """A root draft, or a signature of one, is damaged or belongs to another draft."""


class RootChainError(ConflictError):
    """A root does not follow the one before it."""


class DelegationScopeError(VerificationError):
    """A delegated list names a bundle that its keys may not speak for."""


class RepositoryEmptyError(MissingError):
    """Nothing was published from this workspace yet, so there is nothing to renew."""
