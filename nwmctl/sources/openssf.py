"""OpenSSF model signatures, judged over the files themselves by the package that defines them (``model-signing``).

The signature and its key have been judged before, from bytes (``trust.model_signature``); this adds the reference's own
word about the whole folder, files that nobody listed included. A part of nwmctl for those who pull such models: the
extra ``signatures``. The package imports ``OpenSSL``, which it does not declare; the extra does. Fetches nothing.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from nwmctl.domain.model import OPENSSF_NAME, ModelOrigin, SignatureMethod
from nwmctl.errors import ModelSignatureError, ModelSignerMissingError
from nwmctl.trust.model_signature import ec_public_key

INSTALL = "pip install 'nwmctl[signatures]'"


def missing_packages() -> tuple[str, ...]:
    """What of the extra is not installed, by module name; nothing is imported."""
    return tuple(name for name in ("model_signing", "OpenSSL") if find_spec(name) is None)


def judge_openssf(folder: Path, origin: ModelOrigin) -> None:
    """Return if the package agrees that ``origin`` signed every file of this folder, and no file is beside them.

    Does nothing for a model that has a signature of nwmctl's own. Raises ModelSignatureError,
    ModelSignerMissingError.
    """
    if origin.method is not SignatureMethod.OPENSSF:
        return
    absent = missing_packages()
    if absent:
        raise ModelSignerMissingError(
            "the model has an OpenSSF signature, and what verifies it is not installed",
            why=f"missing: {', '.join(absent)}",
            next=f"install it: {INSTALL}",
        )
    try:
        _verify(folder, origin.signer)
    except Exception as problem:  # the package raises its own kinds, its dependencies' and ValueError
        raise ModelSignatureError(
            "the model's files are not what its OpenSSF signature covers",
            why=f"{type(problem).__name__}: {str(problem)[:300]}",
            next="have the publisher sign exactly what the package holds: the card and the files that it lists",
        ) from problem


def _verify(folder: Path, signer: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    # By name: the package is not there for everybody, and knows no types.
    verifying, hashing = import_module("model_signing.verifying"), import_module("model_signing.hashing")
    # The signature lies among the files that it covers; nothing else is left out.
    whole = hashing.Config().set_ignored_paths(paths=[folder / OPENSSF_NAME], ignore_git_paths=False)
    pem = ec_public_key(signer).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with tempfile.TemporaryDirectory(prefix="nwmctl-key-") as scratch:
        key = Path(scratch) / "key.pem"
        key.write_bytes(pem)
        judge = verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(whole)
        judge.verify(folder, folder / OPENSSF_NAME)
