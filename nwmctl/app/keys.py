"""Key folders for people: make one, sign a document, find the ring that a deployment uses."""

from __future__ import annotations

import os
from pathlib import Path

from nwmctl.app.clock import SystemClock
from nwmctl.app.project import read_file
from nwmctl.app.settings import Settings
from nwmctl.domain.digest import Digest
from nwmctl.domain.signing import Approval
from nwmctl.errors import InputError, KeyRingError, KeyRingExistsError, KeysNeededError, OutputUnwritableError
from nwmctl.formats import documents
from nwmctl.storage.content import write_atomically
from nwmctl.trust.dsse import APPROVAL_TYPE, MODEL_CARD_TYPE, POLICY_TYPE, sign_dsse
from nwmctl.trust.keys import KeyRing, KeyRole, init_keys, load_keyring

_KINDS = {"policy": (POLICY_TYPE, KeyRole.SAFETY), "model-card": (MODEL_CARD_TYPE, KeyRole.MODEL)}


def make_keys(folder: Path, *, development: bool, passphrase_env: str | None = None) -> KeyRing:
    """A new key folder with every role. Raises KeyRingExistsError, KeyRingError."""
    return init_keys(
        folder, SystemClock(), list(KeyRole), development=development, passphrase=passphrase(passphrase_env)
    )


def sign_document(kind: str, path: Path, keys: Path, passphrase_env: str | None = None) -> tuple[Path, str]:
    """Sign a file; gives the signature's path and the public key. Raises InputError subclasses."""
    payload_type, role = _KINDS[kind]
    data = read_file(path, kind)
    signer = load_keyring(keys).signer(role, passphrase(passphrase_env))
    written = path.with_name(path.name + ".sig")
    _write(written, sign_dsse(data, payload_type, signer))
    return written, signer.public


def approve_bundle(bundle: str, note: str, keys: Path, out: Path, passphrase_env: str | None = None) -> str:
    """Sign a person's yes to the bundle with this digest; gives the public key. Raises InputError subclasses."""
    approval = Approval(Digest.parse(bundle), note)
    signer = load_keyring(keys).signer(KeyRole.SAFETY, passphrase(passphrase_env))
    _write(out, sign_dsse(documents.encode(approval), APPROVAL_TYPE, signer))
    return signer.public


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as problem:
        raise OutputUnwritableError(
            f"'{path}' cannot be written", why=problem.strerror or str(problem), next="choose another path"
        ) from problem


def passphrase(variable: str | None) -> bytes | None:
    """A passphrase out of an environment variable. Raises InputError if it is named and not set."""
    if variable is None:
        return None
    value = os.environ.get(variable)
    if not value:
        raise InputError(
            f"the environment variable {variable} is not set",
            why="it should hold the passphrase of the keys",
            next=f"set {variable}, or leave out --passphrase-env for keys without one",
        )
    return value.encode()


def _development_keys(folder: Path) -> KeyRing:
    if folder.exists():
        return load_keyring(folder)
    try:
        return make_keys(folder, development=True)
    except (KeyRingError, KeyRingExistsError):
        # Another command, in another workspace, may have made them in the same moment.
        if not folder.exists():
            raise
        return load_keyring(folder)


def deployment_keys(settings: Settings, *, virtual: bool) -> KeyRing:
    """The ring that signs a release. A virtual fleet without a named folder gets development keys, made once.

    Raises KeysNeededError for a real fleet without keys of its own.
    """
    if settings.keys is not None:
        ring = load_keyring(settings.keys)
    elif virtual:
        folder = settings.development_keys
        ring = _development_keys(folder)
    else:
        raise KeysNeededError(
            "this release goes to a real fleet and no key folder is named",
            why="development keys protect nothing and are used for virtual fleets only",
            next="make one with `nwmctl keys init FOLDER` and name it with --keys or NWMCTL_KEYS",
        )
    if ring.development and not virtual:
        raise KeysNeededError(
            "these are development keys, and the release goes to a real fleet",
            why="development keys were made without protection",
            next="make keys with `nwmctl keys init FOLDER --passphrase-env VARIABLE`",
        )
    return ring
