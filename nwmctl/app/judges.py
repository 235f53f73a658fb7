"""For people who run judges: write questions, sign answers, try answers out, answer with nwmctl's own checks.

Nothing here decides what an answer is worth in a release: the same functions as in validation do, on the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nwmctl.agent.runner import Listener, resolve
from nwmctl.app.passphrases import passphrase
from nwmctl.app.project import read_file
from nwmctl.app.session import Session
from nwmctl.domain.evidence import Check
from nwmctl.domain.figure import Obtained
from nwmctl.domain.judge import Admission, Case, DriveLog, JudgeEvidence, JudgeRequest
from nwmctl.domain.policy import Rule, TrustedJudge
from nwmctl.domain.work import JudgeWork, StepName
from nwmctl.errors import InputError, JudgeUnknownError, KeyRingExistsError, OutputUnwritableError
from nwmctl.formats import documents
from nwmctl.formats.codec import Source, from_plain
from nwmctl.storage.content import write_atomically
from nwmctl.trust.keys import Signer, load_signer

_LOG_SIGNATURE = ".sig"


def write_questions(
    session: Session, listener: Listener, judge: str, platforms: Sequence[str], out: Path
) -> list[Path]:
    """Compile what the release needs and write a folder with question and files for each artifact that ``judge`` is
    asked about. Raises JudgeUnknownError and what compiling raises."""
    from nwmctl.steps.judge import request_of
    from nwmctl.validation.judges.protocol import REQUEST, Material, question

    asked = [
        (step, order)
        for step in session.plan(StepName.VALIDATE, platforms)
        if step.step == StepName.JUDGE
        and (order := from_plain(JudgeWork, step.parameters, Source(step.id))).judge.name == judge
    ]
    if not asked:
        raise JudgeUnknownError(
            f"the release does not ask a judge '{judge}' here",
            why=f"it names {', '.join(source.name for source in session.project.release.judges) or 'none'}",
            next="correct the name or --platform; see the release's 'judges:'",
        )
    report = session.run(session.plan(StepName.COMPILE, platforms), f"nwmctl judge request {judge}", listener)
    report.raise_problem()
    store = session.workspace.store()
    written = []
    for step, order in asked:
        inputs = resolve(step, report.result.outcomes)
        case = Case(inputs["card"], inputs["manifest"], order.platform, order.build)
        folder = out / "-".join((step.id.split("/")[1], order.platform, *order.build.split("/")))
        material = Material(*(store.path(inputs[name]) for name in ("card", "weights", "manifest", "payload")))
        _lay_out(folder, question(request_of(order, case, inputs["payload"])), material.files, REQUEST)
        written.append(folder)
    return written


def _lay_out(folder: Path, request: bytes, files: dict[str, Path], name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each, path in files.items():
            shutil.copyfile(path, folder / each)
        write_atomically(folder / name, request)
    except OSError as problem:
        raise _unwritable(folder, problem) from problem


def make_judge_key(path: Path) -> str:
    """A new ed25519 key in a file that only its owner reads; gives the public part. Raises KeyRingExistsError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from nwmctl.trust.keys import Ed25519Signer

    if path.exists():
        raise KeyRingExistsError(
            f"'{path}' is there already",
            why="keys are never overwritten: whatever they signed could no longer be renewed",
            next="choose another file",
        )
    key = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), 0o600)
    return Ed25519Signer(key).public


def sign_answer(path: Path, key: Path, out: Path, passphrase_env: str | None) -> str:
    """Read evidence that a person or a program wrote (JSON or YAML), and write its envelope; gives the public key.
    Raises SchemaError with file, line and key, and what the key raises."""
    from nwmctl.trust.judgements import sign_evidence

    evidence = documents.decode_yaml(JudgeEvidence, read_file(path, "evidence"), path.name)
    signer = _signer(key, passphrase_env)
    _write(out, sign_evidence(evidence, signer))
    return signer.public


def sign_log(path: Path, name: str, origin: str, key: Path, passphrase_env: str | None) -> tuple[Path, str]:
    """Vouch for a drive log under a judge's name; gives the signature's path and the public key."""
    from nwmctl.toolchains.files import file_digest
    from nwmctl.trust.dsse import sign_dsse
    from nwmctl.trust.judgements import DRIVE_LOG_TYPE

    try:
        digest = file_digest(path)
    except OSError as problem:
        raise InputError(
            f"the drive log '{path}' cannot be read", why=problem.strerror or str(problem), next="correct the path"
        ) from problem
    signer = _signer(key, passphrase_env)
    written = path.with_name(path.name + _LOG_SIGNATURE)
    _write(written, sign_dsse(documents.encode(DriveLog(name, digest, origin)), DRIVE_LOG_TYPE, signer))
    return written, signer.public


def try_answer(envelope: Path, request: Path, key: str, name: str, strongest: Obtained) -> Admission:
    """What would count of an answer if a policy trusted ``key`` under ``name`` with all that was asked."""
    from nwmctl.trust.judgements import MAX_ENVELOPE, weigh_envelope

    asked = documents.decode(JudgeRequest, read_file(request, "request"), request.name)
    judge = TrustedJudge(name, key, asked.checks, strongest)
    rules = {check: Rule(strongest, margins=margins) for check, margins in asked.margins.items()}
    return weigh_envelope(read_file(envelope, "envelope")[: MAX_ENVELOPE + 1], judge, asked.case, asked.checks, rules)


def answer_here(
    folder: Path, name: str, key: Path, log: Path | None, scenarios: int, obtained: Obtained, passphrase_env: str | None
) -> Path:
    """Answer the question in ``folder`` with nwmctl's own checks: the simulator, and a drive log if one is named."""
    import nwmctl
    from nwmctl.app.compose import toolchain_registry
    from nwmctl.toolchains.files import file_digest
    from nwmctl.validation.judges.own import OwnJudge, Run
    from nwmctl.validation.judges.protocol import ANSWER, CARD, MANIFEST, PAYLOAD, REQUEST, WEIGHTS, Material
    from nwmctl.validation.judges.runs import log_run, simulator_run

    request = documents.decode(JudgeRequest, read_file(folder / REQUEST, "request"), REQUEST)
    runs: dict[Check, Run] = {Check.CLOSED_LOOP: simulator_run(scenarios)}
    used = {"scenarios": str(scenarios)}
    if log is not None:
        runs[Check.LOG_REPLAY] = log_run(log, log.stem)
        used["log"] = str(file_digest(log))
    version = f"nwmctl {nwmctl.__version__}"
    judge = OwnJudge(name, version, _signer(key, passphrase_env), toolchain_registry(), obtained, runs, used)
    envelope = judge.ask(request, Material(*(folder / each for each in (CARD, WEIGHTS, MANIFEST, PAYLOAD))))
    _write(folder / ANSWER, envelope)
    return folder / ANSWER


def _signer(key: Path, passphrase_env: str | None) -> Signer:
    return load_signer(f"file:{key}", passphrase(passphrase_env))


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    try:
        write_atomically(path, data, mode)
    except OSError as problem:
        raise _unwritable(path, problem) from problem


def _unwritable(path: Path, problem: OSError) -> OutputUnwritableError:
    return OutputUnwritableError(
        f"'{path}' cannot be written", why=problem.strerror or str(problem), next="choose another path"
    )
