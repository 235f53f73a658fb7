"""`nwmctl pull|compile|validate|bundle|stage|publish`: the road up to a point, for some platforms if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.common import (
    AesKeyOption,
    JsonOption,
    KeysOption,
    PlatformsOption,
    ReleaseArgument,
    SearchOption,
    WorkspaceOption,
)

if TYPE_CHECKING:
    from nwmctl.cli.common import Effort
    from nwmctl.domain.work import StepName

PlatformOption = Annotated[
    list[str] | None, typer.Option("--platform", "-p", help="Only this platform (may be repeated).")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Copy the signed bundles and their result file here.")]
JunitOption = Annotated[Path | None, typer.Option("--junit", help="Write the checks as JUnit XML.")]
FromOption = Annotated[
    list[Path] | None, typer.Option("--from", help="Folders of bundles built elsewhere (`nwmctl bundle --out`).")
]
ApprovalOption = Annotated[list[Path] | None, typer.Option("--approval", help="A signed approval of a bundle.")]
PassphraseOption = Annotated[
    str | None, typer.Option("--passphrase-env", help="Environment variable that holds the keys' passphrase.")
]


def pull(
    release: ReleaseArgument,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Fetch and verify the release's models."""
    _until("pull", release, workspace, keys, platforms, json_)


def compile_(
    release: ReleaseArgument,
    platform: PlatformOption = None,
    search: SearchOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why each recipe was taken, and what the others would cost.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build each artifact twice, where the policy asks for it, and compare.")
    ] = False,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Compile the models for their platforms."""
    until = "rebuild" if rebuild else "compile"
    _until(until, release, workspace, keys, platforms, json_, platform, search=search, explain=explain)


def validate(
    release: ReleaseArgument,
    platform: PlatformOption = None,
    junit: JunitOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Check every artifact; exit code 5 if the policy would refuse to sign."""
    _until("validate", release, workspace, keys, platforms, json_, platform, junit=junit)


def bundle(
    release: ReleaseArgument,
    platform: PlatformOption = None,
    out: OutOption = None,
    junit: JunitOption = None,
    approval: ApprovalOption = None,
    passphrase_env: PassphraseOption = None,
    aes_key: AesKeyOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Build and sign bundles; in CI one job per platform, each with --out."""
    _until(
        "sign",
        release,
        workspace,
        keys,
        platforms,
        json_,
        platform,
        junit,
        out,
        approval,
        passphrase_env,
        aes_key=aes_key,
    )


def stage(
    release: ReleaseArgument,
    from_: FromOption = None,
    approval: ApprovalOption = None,
    passphrase_env: PassphraseOption = None,
    aes_key: AesKeyOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Bring bundles and metadata to every mirror, and read them back."""
    _until(
        "stage",
        release,
        workspace,
        keys,
        platforms,
        json_,
        None,
        None,
        None,
        approval,
        passphrase_env,
        from_,
        aes_key=aes_key,
    )


def publish(
    release: ReleaseArgument,
    from_: FromOption = None,
    approval: ApprovalOption = None,
    passphrase_env: PassphraseOption = None,
    aes_key: AesKeyOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Make the release exist: for all its platforms, or for none."""
    _until(
        "publish",
        release,
        workspace,
        keys,
        platforms,
        json_,
        None,
        None,
        None,
        approval,
        passphrase_env,
        from_,
        aes_key=aes_key,
    )


def _until(
    word: str,
    release: Path,
    workspace: Path | None,
    keys: Path | None,
    platforms: Path | None,
    as_json: bool,
    only: list[str] | None = None,
    junit: Path | None = None,
    out: Path | None = None,
    approvals: list[Path] | None = None,
    passphrase_env: str | None = None,
    parts: list[Path] | None = None,
    search: Effort | None = None,
    *,
    explain: bool = False,
    aes_key: str | None = None,
) -> None:
    from nwmctl.app.session import open_session
    from nwmctl.cli.common import search_order, settings_of
    from nwmctl.cli.running import RunRequest, run_until
    from nwmctl.domain.work import StepName

    until: StepName = StepName(word)
    settings = settings_of(workspace, keys, platforms, aes_key)
    purpose = f"nwmctl {'bundle' if until is StepName.SIGN else until} {release.name}"
    with open_session(
        settings, release, purpose, approvals=approvals or (), passphrase_env=passphrase_env,
        ask=until in (StepName.SIGN, StepName.STAGE, StepName.PUBLISH), search=search_order(search),
    ) as session:  # fmt: skip
        request = RunRequest(until, tuple(only or ()), junit, out, tuple(parts or ()), purpose, as_json, explain)
        run_until(session, request)
