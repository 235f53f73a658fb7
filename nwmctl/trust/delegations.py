"""Lists of bundles that are delegated: one per platform with keys of its own, in hash bins where it has many entries.

The top-level targets delegate to one role per platform, which may list names of that platform and no others. A role
with many entries hands them on to bins by the hash of their names (TUF's succinct form), under the same keys, so that
a vehicle fetches a sixteenth of the list. What was listed once stays where it is, or moves down. Works on python-tuf's
objects in memory; signs nothing, reads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import MetadataSignatureError
from nwmctl.trust.metadata import format_error
from nwmctl.trust.ring import KeyRing

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, TargetFile, Targets

    Lists = dict[str, Metadata[Targets]]

PREFIX = "platform-"
BIN_PREFIX = "bin-"
BIN_BITS = 4
"""Sixteen bins. The number never changes: clients refuse metadata files that vanish."""
BINS_FROM = 128
"""Entries from which on a platform's list is kept in bins."""
ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
"""Names of delegated roles that are fetched: they become part of a path."""


def role_name(platform: str) -> str:
    """The delegated role of a platform."""
    return f"{PREFIX}{platform}"


def pattern(platform: str) -> str:
    """The names that a platform's role may list: a bundle's name holds its platform between dashes."""
    return f"*-{platform}-*"


def platform_of(role: str) -> str | None:
    """Whose bundles a delegated role may list; None for the top-level one, which may list all."""
    if role.startswith(PREFIX):
        return role.removeprefix(PREFIX)
    if role.startswith(BIN_PREFIX):
        return role.removeprefix(BIN_PREFIX).rpartition("-")[0]
    return None


def delegate(top: Metadata[Targets], lists: Lists, keyring: KeyRing) -> set[str]:
    """Let the top-level targets delegate to the ring's platforms, under its active keys; new lists are empty.

    Returns the names of the roles that must be signed again. Raises MetadataSignatureError for a platform that has a
    list already and no key in this ring.
    """
    from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, Targets

    from nwmctl.trust.tuf_signer import tuf_key

    before = dict(top.signed.delegations.roles or {}) if top.signed.delegations else {}
    missing = sorted(before.keys() - {role_name(platform) for platform in keyring.document.platforms})
    if missing:
        raise MetadataSignatureError(
            f"the key ring has no key for the list of '{platform_of(missing[0])}'",
            why=f"the repository delegates to '{missing[0]}', and vehicles would lose what it lists",
            next="use the key folder that this repository was made with, or add a key with `nwmctl keys rotate`",
        )
    changed: set[str] = set()
    keys: dict[str, Key] = {}
    roles: dict[str, DelegatedRole] = {}
    for platform in keyring.document.platforms:
        name = role_name(platform)
        own = [tuf_key(public) for public in keyring.publics(KeyRole.TARGETS, platform)]
        keys.update({key.keyid: key for key in own})
        threshold = keyring.threshold(KeyRole.TARGETS, platform)
        roles[name] = DelegatedRole(name, [key.keyid for key in own], threshold, False, [pattern(platform)])
        if before.get(name) != roles[name]:
            changed |= {name, *_bins(lists.get(name))}
        if name not in lists:
            lists[name] = Metadata(Targets())
            lists[name].signed.version = 0  # it is raised when it is signed
    if roles:
        top.signed.delegations = Delegations(keys, roles)
    for name in changed & roles.keys():
        _hand_on_keys(lists[name], top, name)
    return changed


def home_of(name: str, platform: str, top: Metadata[Targets], lists: Lists) -> str:
    """The role that lists a bundle of this name and platform."""
    delegations = top.signed.delegations
    role = (delegations.roles or {}).get(role_name(platform)) if delegations else None
    if role is None or not role.is_delegated_path(name):
        return "targets"
    return _bin_for(lists[role.name], name) or role.name


def entries(top: Metadata[Targets], lists: Lists) -> Iterator[tuple[str, TargetFile]]:
    """Every listed file with the role that lists it. Raises MetadataFormatError for a name that is listed twice."""
    seen: set[str] = set()
    for role, metadata in {"targets": top, **lists}.items():
        for name, file in metadata.signed.targets.items():
            if name in seen:
                raise format_error(f"'{name[:80]}' is listed twice")
            seen.add(name)
            yield role, file


def split(lists: Lists, most: int = BINS_FROM) -> set[str]:
    """Move the entries of every platform's role that has more than ``most`` into bins; returns the changed roles."""
    from tuf.api.metadata import Delegations, Metadata, SuccinctRoles, Targets

    changed: set[str] = set()
    for name in [name for name in lists if name.startswith(PREFIX)]:
        signed = lists[name].signed
        if len(signed.targets) <= most or signed.delegations is not None:
            continue
        platform = name.removeprefix(PREFIX)
        # The keys are filled in below, as they are whenever the platform's keys change.
        succinct = SuccinctRoles([], 1, BIN_BITS, f"{BIN_PREFIX}{platform}")
        signed.delegations = Delegations({}, succinct_roles=succinct)
        for bin_name in succinct.get_roles():
            lists[bin_name] = Metadata(Targets())
            lists[bin_name].signed.version = 0
            changed.add(bin_name)
        for path, file in signed.targets.items():
            lists[succinct.get_role_for_target(path)].signed.targets[path] = file
        signed.targets = {}
        changed.add(name)
    return changed


def hand_on(top: Metadata[Targets], lists: Lists, roles: set[str]) -> None:
    """Give the bins of these platform roles the keys of their role."""
    for name in roles:
        if name.startswith(PREFIX):
            _hand_on_keys(lists[name], top, name)


def signing_keys(role: str, top: Metadata[Targets], lists: Lists) -> tuple[list[str], int]:
    """Key ids and threshold of a delegated role. Raises MetadataFormatError for one that nobody delegates to."""
    platform = platform_of(role)
    delegations = top.signed.delegations
    found = (delegations.roles or {}).get(role_name(platform)) if delegations and platform else None
    if found is None or role not in {found.name, *_bins(lists.get(found.name))}:
        raise format_error(f"nothing delegates to '{role[:80]}'")
    return list(found.keyids), found.threshold


def verify(top: Metadata[Targets], lists: Mapping[str, Metadata[Targets]]) -> None:
    """Return if every list is signed as its delegation demands. Raises what python-tuf and ``signing_keys`` raise."""
    for role, metadata in lists.items():
        signing_keys(role, top, dict(lists))
        parent = top if role.startswith(PREFIX) else lists[role_name(platform_of(role) or "")]
        parent.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)


def _hand_on_keys(metadata: Metadata[Targets], top: Metadata[Targets], name: str) -> None:
    delegations = metadata.signed.delegations
    above = top.signed.delegations
    if delegations is None or delegations.succinct_roles is None or above is None or above.roles is None:
        return
    role = above.roles[name]
    delegations.succinct_roles.keyids = list(role.keyids)
    delegations.succinct_roles.threshold = role.threshold
    delegations.keys = {keyid: above.keys[keyid] for keyid in role.keyids}


def _bins(metadata: Metadata[Targets] | None) -> list[str]:
    if metadata is None or metadata.signed.delegations is None or metadata.signed.delegations.succinct_roles is None:
        return []
    return list(metadata.signed.delegations.succinct_roles.get_roles())


def _bin_for(metadata: Metadata[Targets], name: str) -> str | None:
    delegations = metadata.signed.delegations
    if delegations is None or delegations.succinct_roles is None:
        return None
    return delegations.succinct_roles.get_role_for_target(name)
