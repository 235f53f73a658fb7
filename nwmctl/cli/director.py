"""`nwmctl director`: who says what each vehicle should install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.common import JsonOption, KeysOption, WorkspaceOption, emit, page, settings_of, talk

if TYPE_CHECKING:
    from nwmctl.app.settings import Settings
    from nwmctl.trust.keys import KeyRing

group = typer.Typer(
    help="The Uptane director: signed metadata for each vehicle.", rich_markup_mode=None, no_args_is_help=True
)
PassphraseOption = Annotated[
    str | None,
    typer.Option(
        "--passphrase-env", help="Environment variable that holds the keys' passphrase [asked on a terminal]."
    ),
]


@group.command("root")
def root(
    finished: Annotated[
        Path | None, typer.Option("--finished", help="A root that its holders signed together, instead of these keys.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the root metadata, for vehicles to be pinned.")
    ] = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Make the director's root metadata, or the next version where its keys have changed."""
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.director import ensure_root
    from nwmctl.app.passphrases import unlock
    from nwmctl.storage.content import write_atomically

    settings = settings_of(workspace, keys)
    ring = _ring(settings)
    made, new = ensure_root(settings.open(), ring, SystemClock(), unlock(ring, passphrase_env), finished)
    if out is not None:
        write_atomically(out, made.tuf)
    if json_:
        emit({"version": made.version, "new": new, "reference_dialect": bool(made.reference)})
        return
    reference = "both dialects" if made.reference else "the TUF dialect only (the root keys are elsewhere)"
    talk().print(f"director's root version {made.version}, {'made now' if new else 'unchanged'}, in {reference}")


@group.command("sign")
def sign(
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes that sign.")] = 2,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Sign for every registered vehicle whose direction has changed or whose metadata grow old."""
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.director import sign_fleet
    from nwmctl.app.passphrases import unlock
    from nwmctl.trust.director import DirectorKeys

    settings = settings_of(workspace, keys)
    ring = _ring(settings)
    folder = DirectorKeys(ring.folder, unlock(ring, passphrase_env))
    done = sign_fleet(settings.open(), folder, SystemClock(), workers)
    if json_:
        emit({"signed": done.files, "registered": done.registered})
        return
    talk().print(f"signed for {done.files} of {done.registered} registered vehicles; the others' metadata still hold")


@group.command("status")
def status(
    vin: Annotated[str | None, typer.Argument(help="What one vehicle's computers run.", show_default=False)] = None,
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Show what is signed and reported; or what one vehicle's computers run, by its last verified report."""
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.director import director_status, installed_on
    from nwmctl.formats.codec import to_plain

    place = settings_of(workspace).open()
    if vin is not None:
        found = installed_on(place, vin)
        if json_:
            emit({"vin": vin, "installed": to_plain(found)})
            return
        for serial, image in found.items():
            page().print(f"{serial}  {image.name}  sha256:{image.sha256[:12]}", soft_wrap=True)
        if not found:
            talk().print(f"{vin} has registered its computers and not reported yet")
        return
    now = director_status(place, SystemClock())
    if json_:
        plain = to_plain(now)
        assert isinstance(plain, dict)
        emit(plain)
        return
    console = page()
    console.print(f"root version         {now.root_version or 'none yet'}")
    console.print(f"registered vehicles  {now.registered}")
    console.print(f"with signed metadata {now.signed} ({now.expired} expired)")
    console.print(f"with verified report {now.reported}")
    seen = ", ".join(f"{role} {version}" for role, version in sorted(now.highest.items()))
    console.print(f"versions seen        {seen or 'none reported'}")


@group.command("forget")
def forget(
    vin: Annotated[str, typer.Argument(help="The vehicle.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the audit trail.")],
    workspace: WorkspaceOption = None,
    json_: JsonOption = False,
) -> None:
    """Let a vehicle register its computers again, after one was replaced."""
    from nwmctl.app.clock import SystemClock
    from nwmctl.app.director import forget_computers

    forget_computers(settings_of(workspace).open(), vin, reason, SystemClock())
    if json_:
        emit({"vin": vin, "forgotten": True})
        return
    talk().print(f"{vin} may register its computers again")


def _ring(settings: Settings) -> KeyRing:
    """The named key folder; development keys where the workspace holds virtual fleets only."""
    from nwmctl.app.fleets import fleet_database
    from nwmctl.app.keys import deployment_keys

    with fleet_database(settings.open()) as database:
        real = database.reader.one("SELECT 1 FROM fleet WHERE is_virtual = 0")
    return deployment_keys(settings, virtual=real is None)
