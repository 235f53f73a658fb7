"""All attacks of a drill: what the attacker has and does, what stops it, and what a client suffers that lacks that.

A table and nothing else; ``staging`` builds the scenes.
"""

from __future__ import annotations

from nwmctl import errors
from nwmctl.domain.drill import Client, Holds
from nwmctl.trust.attacks import staging
from nwmctl.trust.attacks.scene import Attack

_FILE_ONLY = "it verifies repository files and never opens a bundle"
_NO_METADATA = "it reads no repository metadata"
_NO_DIRECTOR = "it knows no director"
_TUF_JS, _SWUPDATE = Client.TUF_JS, Client.SWUPDATE
_UNREAD = {_SWUPDATE: _NO_METADATA}
_UNDIRECTED = {_TUF_JS: _NO_DIRECTOR, _SWUPDATE: _NO_METADATA}

REPLAYED_REPORT = Attack(
    "replayed-report", "Replayed report", Holds.NETWORK,
    "sends an older report of a vehicle, genuinely signed by its computers, to the gateway once more",
    "each computer counts its reports; the gateway keeps the highest count and refuses whatever is not above it",
    "is sent the wrong delta or none: its gateway believes that it has what it has long replaced",
    errors.ReportReplayedError, lambda house: (),
    {_TUF_JS: "it sends no report", _SWUPDATE: "it signs no report"},
)  # fmt: skip
"""Told to the gateway, not to a client: staged apart."""

ATTACKS: tuple[Attack, ...] = (
    Attack(
        "tampered-payload", "Tampered payload", Holds.NETWORK,
        "changes one bit of the weights while the bundle is transferred",
        "the repository's signed list has the bundle's length and hash; a download with another hash is removed",
        "drives with weights that nobody has tested", errors.DownloadDigestError, staging.tampered_payload,
    ),
    Attack(
        "swapped-payload", "Payload swapped by who holds the repositories", Holds.REPOSITORY_KEYS,
        "changes the weights in a signed bundle and lists the changed bundle",
        "the bundle's own description, signed by the release authority, has each file's hash",
        "drives with weights that nobody has tested", errors.PayloadChangedError, staging.payload_swapped_by_insiders,
    ),
    Attack(
        "tampered-description", "Tampered description", Holds.REPOSITORY_KEYS,
        "changes the description in a signed bundle and lists the changed bundle",
        "the release authority's signature is over the description's bytes and is verified before they are read",
        "writes where, and executes what, the attacker says",
        errors.ContentSignatureError, staging.tampered_description,
    ),
    Attack(
        "tampered-metadata", "Tampered metadata", Holds.NETWORK,
        "changes the length of a bundle in the list that a mirror serves",
        "every metadata file is signed; the pinned root says by whom",
        "takes for a release what anybody on a mirror says", errors.MetadataSignatureError, staging.tampered_metadata,
        _UNREAD,
    ),
    Attack(
        "wrong-authority", "Wrong certificate authority", Holds.REPOSITORY_KEYS,
        "signs the bundle as an authority of his own and lists it",
        "the vehicle carries the release authority's certificate and believes no other",
        "installs anybody's bundle", errors.CertificateUntrustedError, staging.wrong_authority,
    ),
    Attack(
        "expired-leaf", "Expired release certificate", Holds.REPOSITORY_KEYS,
        "signs with a release key whose certificate has ended, and lists the bundle",
        "certificates hold from and to a day; the vehicle looks at its clock",
        "believes for ever a key that leaked after its time", errors.CertificateExpiredError, staging.expired_leaf,
    ),
    Attack(
        "freeze", "Freeze", Holds.NETWORK,
        "goes on serving what was newest forty days ago, genuine and whole",
        "the timestamp holds for 30 days; an expired one is refused and reported",
        "never hears of the release that repairs a fault", errors.MetadataFrozenError, staging.freeze,
    ),
    Attack(
        "rollback", "Rollback", Holds.NETWORK,
        "serves genuine metadata, and the bundle, of an earlier day",
        "the vehicle keeps what it has verified and refuses lower versions",
        "brings back faults that were repaired", errors.MetadataRollbackError, staging.rollback,
    ),
    Attack(
        "bundle-rollback", "Rollback with fresh signatures", Holds.REPOSITORY_KEYS,
        "lists an older genuine bundle anew and orders it",
        "the release sequence is in the signed description and never goes below what the vehicle has committed",
        "brings back faults that were repaired", errors.SequenceTooLowError, staging.bundle_rollback,
    ),
    Attack(
        "mix-and-match", "Mix and match", Holds.NETWORK,
        "serves today's timestamp and snapshot with yesterday's lists",
        "the snapshot names the version of every list, and the timestamp the snapshot's",
        "installs parts that were never released together", errors.MetadataMixedError, staging.mix_and_match, _UNREAD,
    ),
    Attack(
        "fast-forward", "Fast-forward", Holds.TIMESTAMP_KEY,
        "signs a timestamp with nearly the highest version that there can be",
        "a leap that no honest repository makes is refused, so the honest next version is still higher",
        "refuses every later honest file: its updates have ended", errors.MetadataFastForwardError,
        staging.fast_forward, _UNREAD,
    ),
    Attack(
        "fast-forward-recovery", "Fast-forward, then the key is replaced", Holds.TIMESTAMP_KEY,
        "signs a version as high as the vehicle goes along with, and after the rotation serves it again",
        "what a replaced key has signed counts no more, neither as a floor nor as news",
        "stays locked out although the owner has replaced the stolen key", errors.MetadataForeignKeyError,
        staging.fast_forward_then_rotation, _UNREAD,
    ),
    Attack(
        "endless-metadata", "Endless metadata", Holds.NETWORK,
        "lets the timestamp go on without end",
        "each kind of file has a most, and reading stops there",
        "runs out of memory or of disk", errors.MetadataTooLongError, staging.endless_metadata, _UNREAD,
    ),
    Attack(
        "endless-bundle", "Endless bundle", Holds.NETWORK,
        "lets the bundle's last file go on without end",
        "the signed length is known before the first byte is asked for, and the download stops there",
        "fills its disk, and somebody pays for the line", errors.DownloadLengthError, staging.endless_bundle,
    ),
    Attack(
        "slow-transfer", "Slow transfer", Holds.NETWORK,
        "sends the bundle a few bytes at a time and never stops",
        "the rate is looked at over whole windows; after a few slow ones the vehicle hangs up and reports it",
        "waits for weeks, and nobody hears why", errors.TransferTooSlowError, staging.slow_transfer,
    ),
    Attack(
        "arbitrary-software", "Arbitrary software", Holds.DIRECTOR_KEY,
        "orders software of his own with the stolen director key",
        "the director must name what the image repository lists, with the same length, hash, sequence and hardware",
        "installs whatever the holder of one online key likes", errors.HashDisagreesError, staging.arbitrary_software,
        {_TUF_JS: _NO_DIRECTOR},
    ),
    Attack(
        "unlisted-release", "A release that was never published", Holds.DIRECTOR_KEY,
        "orders a genuine, signed bundle that the image repository does not list",
        "only what is listed is installed: a bundle exists when it is published, and not when it is signed",
        "drives with a release that was held back, perhaps for a reason", errors.BundleNotListedError,
        staging.unlisted_release,
    ),
    Attack(
        "wrong-hardware", "Wrong hardware", Holds.DIRECTOR_KEY,
        "orders a genuine, listed bundle of another board",
        "image repository, director and the vehicle itself must name the same hardware",
        "installs code for other chips and stands still", errors.HardwareDisagreesError, staging.wrong_hardware,
    ),
    Attack(
        "foreign-vehicle", "Another vehicle's order", Holds.NETWORK,
        "replays the director's genuine answer to another vehicle",
        "the answer names the computers that it is for",
        "gets what was meant for a test vehicle", errors.ForeignEcuError, staging.foreign_vehicle, _UNDIRECTED,
    ),
    Attack(
        "old-order", "An order that was taken back", Holds.NETWORK,
        "replays an older answer of the director to this very vehicle",
        "versions of the director's answers only rise",
        "does what its owner has taken back", errors.OrderRollbackError, staging.old_director, _UNDIRECTED,
    ),
    Attack(
        "expired-role", "Expired role", Holds.NEGLECT,
        "waits until the lists are 400 days old, while timestamp and snapshot are still renewed",
        "every role's file has an end of its own",
        "goes on believing keys that nobody looks after", errors.MetadataExpiredError,
        staging.expired_role, _UNREAD,
    ),
    Attack(
        "zip-slip", "Zip-slip", Holds.REPOSITORY_KEYS,
        "adds a file to the bundle whose name leads out of the folder",
        "names of a bundle are plain; an archive with any other is refused before anything is written",
        "overwrites files outside the slot", errors.ArchiveNameError, staging.zip_slip, {_TUF_JS: _FILE_ONLY},
    ),
    Attack(
        "archive-link", "Link in an archive", Holds.REPOSITORY_KEYS,
        "puts a link in front of a payload of the same name",
        "a bundle holds regular files, and nothing is written before every entry was looked at",
        "writes a payload through the link, outside the slot", errors.ArchiveLinkError, staging.link_in_archive,
        {_TUF_JS: _FILE_ONLY},
    ),
    REPLAYED_REPORT,
)  # fmt: skip
