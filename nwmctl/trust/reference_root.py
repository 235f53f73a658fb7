"""A root once more in the reference dialect: the text that its holders sign beside the other, and the finished file.

The text is made of the root in the TUF dialect alone: same version, expiry, keys and thresholds. So a holder who signs
a draft signs both, and nobody has to be asked a second time. That dialect knows ed25519 keys only; a root with others
has no such text. A director's root is told from an image repository's by its keys: the director's lists and versions
are signed by the same keys, which no image repository has, because one key never has two roles there. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nwmctl.formats.uptane import Dialect, RoleKeys, expiry_text, key_id, root_text, sealed
from nwmctl.trust.publics import ED25519
from nwmctl.trust.tuf_signer import key_text

if TYPE_CHECKING:
    from tuf.api.metadata import Root

_DIRECTOR = ("root", "targets")
"""The director's roles in this dialect; the other two have the director's keys in TUF and no file."""


def is_director(root: Root) -> bool:
    """Whether this is a director's root."""
    return set(root.roles["targets"].keyids) == set(root.roles["snapshot"].keyids)


def role_keys(root: Root, name: str) -> RoleKeys:
    """The keys of a role."""
    role = root.roles[name]
    return RoleKeys(tuple(key_text(root.keys[keyid]) for keyid in role.keyids), role.threshold)


def reference_text(root: Root) -> str | None:
    """The text to sign; None where a key is of a kind that the dialect does not know."""
    director = is_director(root)
    roles = {name: role_keys(root, name) for name in (_DIRECTOR if director else sorted(root.roles))}
    if not all(public.startswith(f"{ED25519}:") for role in roles.values() for public in role.keys):
        return None
    expires = expiry_text(round(root.expires.timestamp() * 1_000_000))
    return root_text(root.version, expires, roles, consistent=not director)


def reference_file(root: Root, good: Mapping[str, bytes], demanded: Sequence[RoleKeys]) -> bytes:
    """The finished file, of verified signatures by public key; empty where ``demanded`` thresholds are not reached."""
    text = reference_text(root)
    if text is None or any(sum(key in good for key in role.keys) < role.threshold for role in demanded):
        return b""
    rows = [(key_id(Dialect.REFERENCE, public), good[public]) for public in sorted(good)]
    return sealed(Dialect.REFERENCE, text, rows).encode()
