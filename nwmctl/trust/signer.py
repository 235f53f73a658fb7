"""The signing process, and the function that asks it.

Run as ``python -m nwmctl.trust.signer``: one request on stdin, one answer on stdout. It reads the papers from their
files itself, judges them again, and only then opens the release key, which no other process reads. It never sees the
verdict of whoever asks, and whose policy and approvals count is what the key folder says, not the request. It may run
under an account of its own (``SIGNER``), whose key folder nobody else can enter. Diagnostics go to stderr.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import nwmctl
from nwmctl import errors
from nwmctl.domain.signing import SigningRefusal, SigningRequest, SigningResult
from nwmctl.errors import (
    AnchorUnknownError,
    ExitCode,
    NwmError,
    SigningInputError,
    SigningProcessError,
    SigningRefusedError,
)
from nwmctl.formats import documents
from nwmctl.formats.swu import parse_description
from nwmctl.trust.cms import sign_cms, verify_cms
from nwmctl.trust.delta_proof import prove_deltas
from nwmctl.trust.keys import KeyRing, KeyRole, load_keyring
from nwmctl.trust.permission import Papers, permit
from nwmctl.trust.script_proof import packaged_templates, prove_scripts

_MAX_PAPER = 16 << 20
_MAX_REQUEST = 1 << 20
_MODULE = "nwmctl.trust.signer"
SIGNER = "NWMCTL_SIGNER"
"""Variable of whoever asks: the command that starts the process, which gets the module's name as its last word. It is
how the process gets another account (``sudo -n -u ACCOUNT WRAPPER``)."""
SIGNER_KEYS, SIGNER_PASSPHRASE = "NWMCTL_SIGNER_KEYS", "NWMCTL_SIGNER_PASSPHRASE"
"""Variables of the process itself: its key folder and that one's passphrase, in place of what a request names."""
T = TypeVar("T")


def request_signature(request: SigningRequest, *, timeout_s: float = 60.0) -> SigningResult:
    """Ask a process of its own to sign. Raises what it refuses with, or SigningProcessError if it gives no answer."""
    return ask(_MODULE, request, SigningResult, timeout_s)


def ask(module: str, request: object, kind: type[T], timeout_s: float) -> T:
    """Have ``module`` answer a request, in a process of its own that alone opens keys. Raises as above."""
    # The child must be this same nwmctl, also where it runs from a checkout that is not installed.
    home = str(Path(nwmctl.__file__).parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
    command = shlex.split(os.environ.get(SIGNER, "")) or [sys.executable, "-m"]
    try:
        done = subprocess.run(
            [*command, module],
            input=documents.encode(request),
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise _no_answer(str(problem)) from problem
    if done.returncode == ExitCode.OK:
        return _answer(kind, done.stdout)
    if done.returncode == ExitCode.REFUSED:
        raise _rebuilt(_answer(SigningRefusal, done.stdout))
    said = done.stderr.decode(errors="replace").strip().splitlines()
    raise _no_answer(f"it ended with {done.returncode}: {said[-1] if said else 'nothing was said'}")


def sign(request: SigningRequest) -> SigningResult:
    """What the process does: judge, prove scripts and deltas, then sign. Raises what ``permit``, ``prove_scripts``,
    ``prove_deltas``, the key ring and the verifier raise."""
    papers = Papers(
        policy=read_paper(request.policy),
        policy_signature=read_paper(request.policy_signature),
        bundle=read_paper(request.bundle),
        description=read_paper(request.description),
        evidence=tuple(read_paper(path) for path in request.evidence),
        artifacts=tuple(read_paper(path) for path in request.artifacts),
        approvals=tuple(read_paper(path) for path in request.approvals),
        envelopes=tuple(read_paper(path) for path in request.envelopes),
    )
    permission = permit(
        papers, request.safety_keys, request.tighten, virtual=request.virtual, approver_keys=request.approver_keys
    )
    description = parse_description(papers.description)
    prove_scripts(description, packaged_templates())
    prove_deltas(description, request.deltas)
    keyring, passphrase = own_keys(request.keys, request.passphrase)
    refuse_development(keyring, virtual_only=permission.virtual_only)
    refuse_strangers(keyring, request.safety_keys, request.approver_keys)
    signature = sign_cms(papers.description, keyring, passphrase)
    # A signature that vehicles would refuse (an expired certificate) is refused here, where somebody can act.
    verify_cms(papers.description, signature, keyring.ca_pem(), request.at_us)
    return SigningResult(
        signature=signature.hex(),
        description=permission.description,
        bundle=permission.bundle,
        policy=permission.policy,
        policy_key=permission.policy_key,
        approved_by=permission.approved_by,
        virtual_only=permission.virtual_only,
        development=keyring.development,
    )


def own_keys(keys: str, passphrase: str | None) -> tuple[KeyRing, bytes | None]:
    """The key ring that this process signs with, and its passphrase: its account's own where it has one, else the
    request's. Raises KeyRingError."""
    own = os.environ.get(SIGNER_KEYS)
    secret = os.environ.get(SIGNER_PASSPHRASE) if own else passphrase
    return load_keyring(Path(own or keys)), None if secret is None else secret.encode()


def refuse_development(keyring: KeyRing, *, virtual_only: bool) -> None:
    """Return if these keys may sign. Raises SigningRefusedError for development keys and a real fleet."""
    if keyring.development and not virtual_only:
        raise SigningRefusedError(
            "a bundle for a real fleet is not signed with development keys",
            why="development keys were made for trying out and are protected by nobody",
            next="make and guard real keys with `nwmctl keys init`, and name their folder",
        )


def refuse_strangers(keyring: KeyRing, safety_keys: Sequence[str], approver_keys: Sequence[str]) -> None:
    """Return if the key folder itself names everybody whose word a request wants to count. Raises AnchorUnknownError.

    Who asks also says whose policy and approvals count; were that believed, whoever takes over the asking side could
    write a policy of its own. Development keys protect nothing and name nobody.
    """
    if keyring.development:
        return
    for role, asked in ((KeyRole.SAFETY, safety_keys), (KeyRole.APPROVER, approver_keys)):
        strangers = sorted(set(asked) - set(keyring.publics(role)))
        if strangers:
            raise AnchorUnknownError(
                f"the key folder knows no {role} key {strangers[0][:80]}",
                why="the release names it under 'trust:', but whose word counts is for the key folder's owner to say",
                next=f"if it is right: `nwmctl keys rotate {role} --public KEY --count 0 --keys FOLDER` on the machine "
                "with the release key; otherwise correct the release",
            )


def main() -> int:
    """Entry of the process: 0 with a SigningResult on stdout, 5 with a SigningRefusal."""
    return serve(lambda data: sign(documents.decode(SigningRequest, data, "signing request")))


def serve(work: Callable[[bytes], object]) -> int:
    """Answer the one request on stdin with what ``work`` gives (a document), or with its refusal."""
    try:
        answer = documents.encode(work(sys.stdin.buffer.read(_MAX_REQUEST + 1)))
        code = ExitCode.OK
    except NwmError as refusal:
        answer = documents.encode(SigningRefusal(type(refusal).__name__, refusal.what, refusal.why, refusal.next))
        code = ExitCode.REFUSED
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return code


def read_paper(path: str) -> bytes:
    """The bytes of a paper. Raises SigningInputError for one that cannot be read or is too large."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_PAPER + 1)
    except OSError as problem:
        raise _unreadable(path, str(problem.strerror or problem)) from problem
    if len(data) > _MAX_PAPER:
        raise _unreadable(path, f"it has more than {_MAX_PAPER} bytes")
    return data


def _unreadable(path: str, reason: str) -> SigningInputError:
    return SigningInputError(
        f"the paper '{Path(path).name}' cannot be read", why=reason, next="run the release again, it writes its papers"
    )


def _answer(kind: type[T], data: bytes) -> T:
    try:
        return documents.decode(kind, data, "answer of the signing process")
    except NwmError as problem:
        raise _no_answer(problem.why) from problem


def _rebuilt(refusal: SigningRefusal) -> NwmError:
    kind = getattr(errors, refusal.error, None)
    if not isinstance(kind, type) or not issubclass(kind, NwmError):
        return _no_answer(f"it refused with the unknown error '{refusal.error}': {refusal.what}")
    return kind(refusal.what, why=refusal.why, next=refusal.next)


def _no_answer(reason: str) -> SigningProcessError:
    return SigningProcessError(
        "the signing process gave no answer", why=reason, next="run the command again; nothing was signed"
    )


if __name__ == "__main__":
    sys.exit(main())
