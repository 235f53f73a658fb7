"""Key folders and signers, by the names under which the other rooms know them.

``ring`` reads a folder, ``keyfolder`` makes and changes one, ``signers`` opens private keys, ``publics`` verifies.
"""

from __future__ import annotations

from nwmctl.domain.keys import KeyRole
from nwmctl.trust.keyfolder import init_keys
from nwmctl.trust.publics import verify_ed25519, verify_signature
from nwmctl.trust.ring import KEYRING_NAME, KeyRing, load_keyring
from nwmctl.trust.signers import SCHEMES, Ed25519Signer, RsaSigner, Signer, load_signer

__all__ = [
    "KEYRING_NAME",
    "SCHEMES",
    "Ed25519Signer",
    "KeyRing",
    "KeyRole",
    "RsaSigner",
    "Signer",
    "init_keys",
    "load_keyring",
    "load_signer",
    "verify_ed25519",
    "verify_signature",
]
