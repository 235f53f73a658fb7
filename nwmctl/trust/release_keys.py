"""Release keys: made in a key folder or reached by a URI, each with a certificate of the folder's own authority.

The authority is made with the first release key and kept, because vehicles carry its certificate; it can lie elsewhere
between two uses. A certificate is written before its key, so a crash leaves nothing that signs. Names nobody in the key
ring: the caller does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nwmctl.domain.keys import KeyEntry, KeyRole
from nwmctl.errors import KeyRingError, PublicKeyError
from nwmctl.trust.keyfiles import free_name, write_new
from nwmctl.trust.signers import read_small

if TYPE_CHECKING:
    from nwmctl.trust.authority import ReleaseKey


def make_release_key(folder: Path, now_us: int, passphrase: bytes | None) -> KeyEntry:
    """A new RSA key in the folder. Raises KeyRingError, KeyPassphraseError."""
    from nwmctl.trust.authority import new_rsa_key, pem_private

    key, name = new_rsa_key(), free_name(folder, "release", numbered=False)
    entry = _certified(folder, f"file:{name}.pem", key.public_key(), name, now_us, passphrase)
    write_new(folder / f"{name}.pem", pem_private(key, passphrase), 0o600)
    return entry


def reach_release_key(folder: Path, uri: str, pem: str, now_us: int, passphrase: bytes | None) -> KeyEntry:
    """A key behind ``uri`` with this public part. Raises PublicKeyError, KeyRingError, KeyPassphraseError."""
    from nwmctl.trust.authority import release_key

    public = release_key(pem.encode())
    return _certified(folder, uri, public, free_name(folder, "release", numbered=False), now_us, passphrase)


def certified_key(pem: bytes) -> ReleaseKey:
    """The public key of a release certificate. Raises KeyRingError."""
    from cryptography import x509

    from nwmctl.trust.authority import fit_release_key

    try:
        return fit_release_key(x509.load_pem_x509_certificate(pem).public_key())
    except (ValueError, PublicKeyError) as problem:
        raise KeyRingError(
            "the release certificate cannot be renewed",
            why=getattr(problem, "why", str(problem)),
            next="restore the key folder from its backup, or make a new key: `nwmctl keys rotate release`",
        ) from problem


def certify_again(folder: Path, entry: KeyEntry, now_us: int, passphrase: bytes | None) -> KeyEntry:
    """The same key under a certificate that begins now. Raises KeyRingError, KeyPassphraseError."""
    public = certified_key(read_small(folder / entry.certificate))
    made = _certified(folder, entry.uri, public, free_name(folder, "release", numbered=False), now_us, passphrase)
    return replace(entry, certificate=made.certificate)


def release_text(pem: str) -> str:
    """The public key in a PEM file as a key ring names it. Raises PublicKeyError."""
    from nwmctl.trust.authority import release_key, release_public

    return release_public(release_key(pem.encode()))


def _certified(
    folder: Path, uri: str, public: ReleaseKey, name: str, now_us: int, passphrase: bytes | None
) -> KeyEntry:
    """A certificate for a release key by the folder's authority, which the first one makes."""
    from nwmctl.trust.authority import issue_leaf, make_ca, pem_private, release_public
    from nwmctl.trust.signers import RsaSigner, load_signer

    if not (folder / "release-ca.crt").exists():
        ca_key, ca_pem = make_ca(now_us)
        write_new(folder / "release-ca.pem", pem_private(ca_key, passphrase), 0o600)
        write_new(folder / "release-ca.crt", ca_pem, 0o644)
    else:
        authority = load_signer("file:release-ca.pem", passphrase, base=folder)
        if not isinstance(authority, RsaSigner):
            raise KeyRingError(
                "the release authority's key is no RSA key",
                why="'release-ca.pem' holds a key of another kind",
                next="restore the key folder from its backup",
            )
        ca_key, ca_pem = authority.key, (folder / "release-ca.crt").read_bytes()
    text = release_public(public)
    write_new(folder / f"{name}.crt", issue_leaf(ca_key, ca_pem, public, now_us), 0o644)
    write_new(folder / f"{name}.pub", f"{text}\n".encode(), 0o644)
    return KeyEntry(KeyRole.RELEASE, uri, text, f"{name}.crt", "release-ca.crt")
