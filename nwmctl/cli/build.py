"""`nwmctl pull|compile|validate|bundle|certify|stage|publish`: the road up to a point, for some platforms if wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

PlatformOption = Annotated[
    list[str] | None, typer.Option("--platform", "-p", help="Only this platform (may be repeated).")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Copy the signed bundles and their result file here.")]
JunitOption = Annotated[Path | None, typer.Option("--junit", help="Write the checks as JUnit XML.")]
FromOption = Annotated[
    list[Path] | None, typer.Option("--from", help="Folders of bundles built elsewhere (`nwmctl bundle --out`).")
]
DossierOption = Annotated[
    Path | None,
    typer.Option("--dossier", help="The dossier, or its folder, that `nwmctl certify --out` has written elsewhere."),
]
ApprovalOption = Annotated[list[Path] | None, typer.Option("--approval", help="A signed approval of a bundle.")]
PassphraseOption = Annotated[
    str | None, typer.Option("--passphrase-env", help="Environment variable that holds the keys' passphrase.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """A command line, read: how far to go with a release, where, and with what."""

    until: str
    release: Path
    workspace: Path | None
    keys: Path | None
    platforms: Path | None
    as_json: bool
    only: list[str] | None = None
    junit: Path | None = None
    out: Path | None = None
    approvals: list[Path] | None = None
    passphrase_env: str | None = None
    parts: list[Path] | None = None
    dossier: Path | None = None
    search: Effort | None = None
    explain: bool = False
    aes_key: str | None = None


def pull(
    release: ReleaseArgument,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Fetch and verify the release's models."""
    _run(_Order(until="pull", release=release, workspace=workspace, keys=keys, platforms=platforms, as_json=json_))


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
    _run(
        _Order(
            until=until, release=release, workspace=workspace, keys=keys, platforms=platforms, as_json=json_,
            only=platform, search=search, explain=explain,
        )
    )  # fmt: skip


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
    _run(
        _Order(
            until="validate", release=release, workspace=workspace, keys=keys, platforms=platforms, as_json=json_,
            only=platform, junit=junit,
        )
    )  # fmt: skip


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
    _run(
        _Order(
            until="sign", release=release, workspace=workspace, keys=keys, platforms=platforms, as_json=json_,
            only=platform, out=out, junit=junit, approvals=approval, passphrase_env=passphrase_env, aes_key=aes_key,
        )
    )  # fmt: skip


def certify(
    release: ReleaseArgument,
    from_: FromOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the release's dossier into this folder.")] = None,
    approval: ApprovalOption = None,
    passphrase_env: PassphraseOption = None,
    aes_key: AesKeyOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Certify the whole release; in CI a job of its own with the release key, between building and publishing."""
    _run(
        _Order(
            until="certify", release=release, workspace=workspace, keys=keys, platforms=platforms, as_json=json_,
            parts=from_, out=out, approvals=approval, passphrase_env=passphrase_env, aes_key=aes_key,
        )
    )  # fmt: skip


def _of_the_train(until: str, told: str) -> Callable[..., None]:
    """A command that takes the whole train on: with bundles and a dossier from elsewhere, or all made here."""

    def command(
        release: ReleaseArgument,
        from_: FromOption = None,
        dossier: DossierOption = None,
        approval: ApprovalOption = None,
        passphrase_env: PassphraseOption = None,
        aes_key: AesKeyOption = None,
        workspace: WorkspaceOption = None,
        keys: KeysOption = None,
        platforms: PlatformsOption = None,
        json_: JsonOption = False,
    ) -> None:
        _run(
            _Order(
                until=until, release=release, workspace=workspace, keys=keys, platforms=platforms, as_json=json_,
                parts=from_, dossier=dossier, approvals=approval, passphrase_env=passphrase_env, aes_key=aes_key,
            )
        )  # fmt: skip

    command.__doc__ = told
    return command


stage = _of_the_train("stage", "Bring bundles and metadata to every mirror, and read them back.")
publish = _of_the_train("publish", "Make the release exist: for all its platforms, or for none.")


def _run(order: _Order) -> None:
    from nwmctl.app.session import open_session
    from nwmctl.cli.common import search_order, settings_of
    from nwmctl.cli.running import RunRequest, run_until
    from nwmctl.domain.work import StepName

    until = StepName(order.until)
    settings = settings_of(order.workspace, order.keys, order.platforms, order.aes_key)
    purpose = f"nwmctl {'bundle' if until is StepName.SIGN else until} {order.release.name}"
    with open_session(
        settings, order.release, purpose, approvals=order.approvals or (), passphrase_env=order.passphrase_env,
        ask=until in (StepName.SIGN, StepName.CERTIFY, StepName.STAGE, StepName.PUBLISH),
        search=search_order(order.search),
    ) as session:  # fmt: skip
        request = RunRequest(
            until, purpose, order.as_json, tuple(order.only or ()), order.junit, order.out, tuple(order.parts or ()),
            order.dossier, order.explain,
        )  # fmt: skip
        run_until(session, request)
