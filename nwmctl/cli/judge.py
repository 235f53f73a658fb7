"""`nwmctl judge ...`: for those who run an outside judge (docs/judges.md)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nwmctl.cli.common import (
    JsonOption,
    KeysOption,
    PlatformsOption,
    ReleaseArgument,
    WorkspaceOption,
    emit,
    page,
    talk,
)

group = typer.Typer(help="Judges besides nwmctl: questions, signed answers, drive logs.", no_args_is_help=True)


class Word(StrEnum):
    """How figures are obtained, as far as a judge can say."""

    MEASURED = "measured"
    BENCH = "bench"
    EMULATED = "emulated"
    PROXY = "proxy"
    ASSEMBLED = "assembled"
    ESTIMATED = "estimated"


KeyOption = Annotated[Path, typer.Option("--key", help="The judge's private key (ed25519, PKCS8 PEM).")]
NameOption = Annotated[str, typer.Option("--name", help="The name under which policies trust the judge.")]
PassphraseOption = Annotated[
    str | None, typer.Option("--passphrase-env", help="Environment variable that holds the key's passphrase.")
]
PlatformOption = Annotated[
    list[str] | None, typer.Option("--platform", "-p", help="Only this platform (may be repeated).")
]


@group.command("key")
def key(
    path: Annotated[Path, typer.Argument(help="The new key file.")],
    json_: JsonOption = False,
) -> None:
    """Make a key for a judge; its public part goes into the policy."""
    from nwmctl.app.judges import make_judge_key

    public = make_judge_key(path)
    if json_:
        emit({"key": str(path), "public": public})
        return
    talk().print(f"made {path} (readable by you alone), public part {public}", soft_wrap=True)


@group.command("request")
def request(
    release: ReleaseArgument,
    judge: Annotated[str, typer.Option("--judge", help="The judge's name in the release.")],
    out: Annotated[Path, typer.Option("--out", help="One folder for each question is written here.")],
    platform: PlatformOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Compile, and write what a judge is asked: the question and the artifact's files."""
    from nwmctl.app.judges import write_questions
    from nwmctl.app.session import open_session
    from nwmctl.cli.common import settings_of
    from nwmctl.cli.live import LiveView
    from nwmctl.domain.work import StepName

    with open_session(settings_of(workspace, keys, platforms), release, "nwmctl judge request") as session:
        plan = session.plan(StepName.COMPILE, tuple(platform or ()))
        with LiveView(talk(), plan, f"questions to {judge}", 0.0, session.parts.clock) as view:
            written = write_questions(session, view, judge, tuple(platform or ()), out)
    if json_:
        emit({"judge": judge, "questions": [str(path) for path in written]})
        return
    for path in written:
        talk().print(f"wrote {path}", soft_wrap=True)


@group.command("sign")
def sign(
    evidence: Annotated[Path, typer.Argument(help="What the judge found, as JSON or YAML.")],
    key: KeyOption,
    out: Annotated[Path, typer.Option("--out", help="Where the signed envelope is written.")],
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Check a judge's evidence and sign it."""
    from nwmctl.app.judges import sign_answer

    public = sign_answer(evidence, key, out, passphrase_env)
    if json_:
        emit({"envelope": str(out), "key": public})
        return
    talk().print(f"signed {evidence.name} with {public}: {out}", soft_wrap=True)


@group.command("sign-log")
def sign_log(
    log: Annotated[Path, typer.Argument(help="A Parquet drive log; its signature is written beside it.")],
    name: NameOption,
    origin: Annotated[str, typer.Option("--origin", help="Where the drives come from, in a few words.")],
    key: KeyOption,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Vouch for a drive log, so that releases may be judged on it."""
    from nwmctl.app.judges import sign_log as sign_

    written, public = sign_(log, name, origin, key, passphrase_env)
    if json_:
        emit({"signature": str(written), "key": public})
        return
    talk().print(f"signed {log.name} with {public}: {written}", soft_wrap=True)


@group.command("check")
def check(
    envelope: Annotated[Path, typer.Argument(help="A signed answer.")],
    request: Annotated[Path, typer.Option("--request", help="The question (request.json).")],
    public: Annotated[str, typer.Option("--public", help="The judge's public key (ed25519:...).")],
    name: NameOption,
    strongest: Annotated[
        Word, typer.Option("--strongest", help="How far a policy would believe the judge.")
    ] = Word.MEASURED,
    json_: JsonOption = False,
) -> None:
    """What would count of an answer; exit code 5 unless all that was asked has passed."""
    from nwmctl.app.judges import try_answer
    from nwmctl.domain.evidence import Verdict
    from nwmctl.domain.figure import Obtained
    from nwmctl.errors import RefusedError
    from nwmctl.formats.codec import to_plain

    found = try_answer(envelope, request, public, name, Obtained(strongest.value))
    if json_:
        emit({"refused": found.refused, "results": to_plain(list(found.results))})
    else:
        for result in found.results:
            page().print(f"{result.check} {result.verdict} ({result.obtained}): {result.summary}", soft_wrap=True)
    bad = [result for result in found.results if result.verdict is not Verdict.PASSED]
    if bad:
        raise RefusedError(
            f"{len(bad)} of {len(found.results)} checks would not pass",
            why="; ".join(f"{result.check} {result.verdict}" for result in bad),
            next=bad[0].next or "see what the judge says about it",
        )


@group.command("answer")
def answer(
    name: NameOption,
    key: KeyOption,
    folder: Annotated[Path, typer.Option("--folder", help="Where the question and its files lie.")] = Path(),
    log: Annotated[Path | None, typer.Option("--log", help="A Parquet drive log to replay.")] = None,
    scenarios: Annotated[int, typer.Option("--scenarios", min=1, max=100_000, help="For the closed loop.")] = 250,
    obtained: Annotated[Word, typer.Option("--obtained", help="How figures are obtained here.")] = Word.PROXY,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Be a judge: answer a question with nwmctl's own checks on this machine."""
    from nwmctl.app.judges import answer_here
    from nwmctl.domain.figure import Obtained

    written = answer_here(folder, name, key, log, scenarios, Obtained(obtained.value), passphrase_env)
    if json_:
        emit({"envelope": str(written)})
        return
    talk().print(f"wrote {written}", soft_wrap=True)
