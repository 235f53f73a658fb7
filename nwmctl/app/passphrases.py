"""Passphrases of key folders: out of an environment variable, or asked on the terminal. Keeps none."""

from __future__ import annotations

import getpass
import os
import sys

from nwmctl.domain.keys import KeyRole, KeyState
from nwmctl.errors import InputError, KeyPassphraseError, NwmError, PassphraseNeededError
from nwmctl.trust.keys import KeyRing

_MARK = b"BEGIN ENCRYPTED PRIVATE KEY"


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


def unlock(ring: KeyRing, variable: str | None) -> bytes | None:
    """The passphrase of a ring: from the variable, or from the person at the terminal if its keys are encrypted.

    None for keys without one, and where there is nobody to ask: opening an encrypted key then says what to do.
    """
    if variable is not None or not is_encrypted(ring) or not sys.stdin.isatty():
        return passphrase(variable)
    return _ask(f"passphrase of the keys in {ring.folder}: ")


def prove(ring: KeyRing, secret: bytes | None) -> None:
    """Open one of the keys that publishing opens anyway: a wrong passphrase is told before anything is built.

    Raises KeyPassphraseError. What else is wrong with a key is told by whoever needs it.
    """
    for role in (KeyRole.TIMESTAMP, KeyRole.SNAPSHOT, KeyRole.TARGETS):
        for entry in ring.document.active(role):
            if not entry.uri.startswith("file:"):
                continue
            try:
                ring.open(entry, secret)
            except KeyPassphraseError:
                raise
            except NwmError:
                continue  # not about the passphrase: whoever needs this key says what is wrong with it
            return


def new_passphrase(variable: str | None) -> bytes:
    """The passphrase of keys that are being made. Raises PassphraseNeededError where there is nobody to ask."""
    if variable is not None:
        return passphrase(variable) or b""
    if not sys.stdin.isatty():
        raise PassphraseNeededError(
            "new keys need a passphrase",
            why="private keys are encrypted, and there is no terminal to ask at",
            next="name a variable that holds one with --passphrase-env, or make --development keys",
        )
    first = _ask("passphrase for the new keys: ")
    if not first or first != _ask("the same again: "):
        raise KeyPassphraseError(
            "the passphrases differ" if first else "the passphrase is empty",
            why="keys that nobody can open are worth nothing, and keys that everybody can open neither",
            next="run the command again",
        )
    return first


def is_encrypted(ring: KeyRing) -> bool:
    """Whether a private key of the folder needs a passphrase."""
    for entry in ring.document.keys:
        scheme, _, name = entry.uri.partition(":")
        if scheme != "file" or entry.state is KeyState.REVOKED:
            continue
        try:
            with (ring.folder / name).open("rb") as file:
                return _MARK in file.read(200)
        except OSError:
            continue  # opening the key says what is wrong with it
    return False


def _ask(question: str) -> bytes:
    return getpass.getpass(question, sys.stderr).encode()
