"""`nwmctl keys`: key folders, the signatures that people make, and what must be renewed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.ceremony import group as ceremony
from nwmctl.cli.common import (
    AesKeyOption,
    JsonOption,
    KeysOption,
    PlatformsOption,
    WorkspaceOption,
    emit,
    settings_of,
    talk,
)

if TYPE_CHECKING:
    from nwmctl.app.keychanges import Change
    from nwmctl.trust.keys import KeyRing

group = typer.Typer(help="Keys and signatures.", rich_markup_mode=None, no_args_is_help=True)
group.add_typer(ceremony, name="ceremony")

PassphraseOption = Annotated[
    str | None,
    typer.Option(
        "--passphrase-env", help="Environment variable that holds the keys' passphrase [asked on a terminal]."
    ),
]
ApprovalOption = Annotated[list[Path] | None, typer.Option("--approval", help="A signed approval of a bundle.")]
FolderOption = Annotated[Path, typer.Option("--keys", help="The key folder.")]
CountOption = Annotated[int | None, typer.Option("--count", min=0, help="How many new keys [as many as now].")]
ThresholdOption = Annotated[
    int | None, typer.Option("--threshold", min=1, help="How many of them must sign [as many as now].")
]
HeldOption = Annotated[
    list[str] | None,
    typer.Option("--public", help="A public key (text, .pub or PEM file) that is held elsewhere; repeatable."),
]


class Document(StrEnum):
    """What a person signs."""

    POLICY = "policy"
    MODEL_CARD = "model-card"


class Role(StrEnum):
    """The domain's roles, once more: `--help` imports nothing of the domain."""

    ROOT = "root"
    TARGETS = "targets"
    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"
    DIRECTOR_ROOT = "director-root"
    DIRECTOR = "director"
    SAFETY = "safety"
    APPROVER = "approver"
    RELEASE = "release"
    MODEL = "model"


@group.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, outside every workspace.")],
    development: Annotated[
        bool, typer.Option("--development", help="Plain keys that protect nothing: good for virtual fleets only.")
    ] = False,
    role: Annotated[
        list[Role] | None, typer.Option("--role", help="Only this role, one key: a person's own folder; repeatable.")
    ] = None,
    root_public: Annotated[
        list[str] | None,
        typer.Option("--root-public", help="A root key that somebody else holds (text or .pub file); repeatable."),
    ] = None,
    root_threshold: Annotated[
        int | None, typer.Option("--root-threshold", min=1, help="How many root keys must sign [2 of 3].")
    ] = None,
    director_root_public: Annotated[
        list[str] | None,
        typer.Option("--director-root-public", help="The same for the director's root; repeatable."),
    ] = None,
    safety_public: Annotated[
        list[str] | None,
        typer.Option("--safety-public", help="A safety key held elsewhere, whose policies may count; repeatable."),
    ] = None,
    approver_public: Annotated[
        list[str] | None,
        typer.Option("--approver-public", help="A person's key whose approvals may count; repeatable."),
    ] = None,
    platform: Annotated[
        list[str] | None, typer.Option("--platform", help="A platform whose list has a key of its own [all known].")
    ] = None,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Make a key folder: one key per role, three for each root of which two must sign."""
    from nwmctl.app.keys import Folder, make_keys
    from nwmctl.domain.keys import KeyRole

    held = {
        KeyRole.ROOT: root_public,
        KeyRole.DIRECTOR_ROOT: director_root_public,
        KeyRole.SAFETY: safety_public,
        KeyRole.APPROVER: approver_public,
    }
    named_roots = [KeyRole.ROOT, *([KeyRole.DIRECTOR_ROOT] if director_root_public else [])]
    content = Folder(
        tuple(KeyRole(one.value) for one in role or ()),
        {role: publics for role, publics in held.items() if publics},
        dict.fromkeys(named_roots, root_threshold) if root_threshold else {},
        platform,
    )
    ring = make_keys(folder, development=development, passphrase_env=passphrase_env, content=content)
    _show_made(ring, folder, as_json=json_)


def _show_made(ring: KeyRing, folder: Path, *, as_json: bool) -> None:
    """What a new folder holds, and what its owner does next."""
    from nwmctl.domain.keys import KeyRole

    if as_json:
        emit(
            {
                "folder": str(folder),
                "development": ring.development,
                "keys": {entry.label: entry.public for entry in reversed(ring.document.keys)},
                "root": len(ring.roots()),
            }
        )
        return
    console = talk()
    console.print(f"made {len(ring.document.keys)} keys in {folder} (private parts readable by you alone)")
    for entry in ring.document.keys:
        console.print(f"  {entry.label:18} {entry.public}", soft_wrap=True)
    if ring.roots() and not ring.development:
        console.print("the first root is signed; next: move root-*.pem and director-root-*.pem apart, offline")
    if not ring.roots() and ring.has(KeyRole.ROOT) and ring.has(KeyRole.TARGETS):
        console.print("next: `nwmctl keys ceremony draft`, so that the root's holders can sign it")
    if not ring.roots(KeyRole.DIRECTOR_ROOT) and ring.has(KeyRole.DIRECTOR_ROOT) and ring.has(KeyRole.DIRECTOR):
        console.print("next: `nwmctl keys ceremony draft --director`, so that its holders can sign the director's root")
    console.print("next: put the public keys of 'model' and 'safety' under 'trust:' in your release, and make a backup")


@group.command("list")
def list_(keys: FolderOption, json_: JsonOption = False) -> None:
    """Show roles, thresholds, where each key is, and what expires when."""
    from nwmctl.app.keychanges import list_keys
    from nwmctl.cli.keytables import listing_json, print_listing

    found = list_keys(keys)
    if json_:
        emit(listing_json(found))
        return
    print_listing(found)


@group.command("rotate")
def rotate(
    role: Annotated[Role, typer.Argument(help="Whose keys are replaced.")],
    keys: FolderOption,
    platform: Annotated[str, typer.Option("--platform", help="The platform whose list it is (role targets).")] = "",
    count: CountOption = None,
    threshold: ThresholdOption = None,
    public: HeldOption = None,
    uri: Annotated[
        list[str] | None,
        typer.Option("--uri", help="A signer's URI (hsm:, awskms:, ...) for each --public, in order; repeatable."),
    ] = None,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Replace the keys of a role; the next root is signed by thresholds of the old and the new root keys."""
    from nwmctl.app.keychanges import NewKeys, rotate
    from nwmctl.domain.keys import KeyRole

    new = NewKeys(count, threshold, public or (), uri or ())
    _say(rotate(keys, KeyRole(role.value), platform, new, passphrase_env), json_)


@group.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The public key that was lost or stolen (text or .pub file).")],
    keys: FolderOption,
    public: HeldOption = None,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Declare a key lost or stolen: nothing opens it any more, and the next root does not name it."""
    from nwmctl.app.keychanges import revoke

    _say(revoke(keys, key, public or (), passphrase_env), json_)


@group.command("refresh")
def refresh(
    release: Annotated[Path, typer.Argument(help="The release whose mirrors get the renewed metadata.")],
    force: Annotated[bool, typer.Option("--force", help="Sign everything anew, however long it still holds.")] = False,
    passphrase_env: PassphraseOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Renew the repository's metadata before they expire, publish them, and say what else expires."""
    from nwmctl.app.renewal import refresh
    from nwmctl.cli.keytables import print_watched, watched_json

    done = refresh(settings_of(workspace, keys, platforms), release, force=force, passphrase_env=passphrase_env)
    if json_:
        roots = {str(root.view.holders): root.view.version for root in done.roots}
        expiries = watched_json(done.watched)
        emit({"renewed": done.renewed, "mirrors": list(done.mirrors), "roots": roots, "expiries": expiries})
        return
    for root in done.roots:
        talk().print(f"{root.view.holders} would end soon: version {root.view.version} is signed and kept")
    what = "signed anew" if done.renewed else "still good for more than half of their lives"
    talk().print(f"the repository's metadata are {what}; published now on: {', '.join(done.mirrors) or 'no mirror'}")
    print_watched(done.watched)


@group.command("resign")
def resign(
    release: Annotated[Path, typer.Argument(help="The release file; its sequence is raised.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also where the published signatures still hold for long.")
    ] = False,
    approval: ApprovalOption = None,
    passphrase_env: PassphraseOption = None,
    aes_key: AesKeyOption = None,
    workspace: WorkspaceOption = None,
    keys: KeysOption = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Publish a release again, under a certificate that holds for longer and the next free sequence.

    Artifacts and evidence come out of the store; vehicles that run the release already need nothing.
    """
    from nwmctl.app.resign import prepare
    from nwmctl.app.session import open_session
    from nwmctl.cli.keytables import day
    from nwmctl.cli.running import RunRequest, run_until
    from nwmctl.domain.work import StepName

    settings = settings_of(workspace, keys, platforms, aes_key)
    done = prepare(settings, release, force=force, passphrase_env=passphrase_env)
    if not done.needed:
        if json_:
            emit({"needed": False, "sequence": done.sequence, "ends": day(done.ends_us)})
        talk().print(f"the signatures of sequence {done.sequence} hold until {day(done.ends_us)}: nothing was done")
        return
    if done.renewed:
        talk().print(f"the release certificate is renewed, until {day(done.ends_us)}")
    talk().print(f"sequence {done.before} is published again as {done.sequence}, written into {release.name}")
    purpose = f"nwmctl keys resign {release.name}"
    with open_session(
        settings, release, purpose, approvals=approval or (), passphrase_env=passphrase_env, ask=True
    ) as session:
        run_until(session, RunRequest(StepName.PUBLISH, purpose, json_))
    talk().print("next: `nwmctl rollout start RELEASE` offers them to vehicles; end the campaigns of the old ones")


@group.command("sign")
def sign(
    document: Annotated[Document, typer.Argument(help="What kind of document it is.")],
    path: Annotated[Path, typer.Argument(help="The document; its signature is written beside it as NAME.sig.")],
    keys: Annotated[Path, typer.Option("--keys", help="The key folder with the role's key.")],
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Sign a policy (role safety) or a model card (role model)."""
    from nwmctl.app.keys import sign_document

    written, public = sign_document(document.value, path, keys, passphrase_env)
    if json_:
        emit({"signature": str(written), "key": public})
        return
    talk().print(f"signed {path.name} with {public}: {written}")


@group.command("payload")
def payload(
    out: Annotated[Path, typer.Argument(help="The file to make, outside every workspace.", show_default=False)],
    json_: JsonOption = False,
) -> None:
    """Make a key that encrypts payloads (AES-256), as a file that `swupdate -K` takes."""
    from nwmctl.trust.payload_key import create_payload_key

    key = create_payload_key(out)
    if json_:
        emit({"key": str(out), "name": key.name})
    else:
        talk().print(f"payload key {key.name} is in {out}; vehicles need it, and nwmctl with --aes-key file:{out}")


@group.command("approve")
def approve(
    bundle: Annotated[str, typer.Argument(help="The bundle's digest, as the waiting run names it (sha256:...).")],
    keys: Annotated[Path, typer.Option("--keys", help="Your key folder, with an approver or a safety key.")],
    out: Annotated[Path, typer.Option("--out", help="Where the approval is written.")],
    note: Annotated[str, typer.Option("--note", help="What you looked at, in your words.")] = "",
    role: Annotated[
        Role | None, typer.Option("--role", help="Sign as this role [approver; safety where there is no such key].")
    ] = None,
    passphrase_env: PassphraseOption = None,
    json_: JsonOption = False,
) -> None:
    """Approve one bundle as a person whom the release trusts to approve."""
    from nwmctl.app.keys import approve_bundle
    from nwmctl.domain.keys import KeyRole

    as_role = KeyRole(role.value) if role else None
    public = approve_bundle(bundle, note, keys, out, passphrase_env, as_role)
    if json_:
        emit({"approval": str(out), "bundle": bundle, "key": public})
        return
    talk().print(f"approved {bundle} with {public}: {out}", soft_wrap=True)


def _say(change: Change, json_: bool) -> None:
    if json_:
        emit(
            {
                "new": {entry.public: entry.label for entry in change.new},
                "roots": {
                    str(root.view.holders): {
                        "version": root.view.version,
                        "finished": root.finished,
                        "path": str(root.path),
                    }
                    for root in change.roots
                },
                "todo": list(change.todo),
            }
        )
        return
    console = talk()
    for entry in change.new:
        console.print(f"new key of {entry.label}: {entry.public}", soft_wrap=True)
    for root in change.roots:
        state = "is signed and kept" if root.finished else "waits for its holders"
        console.print(f"{root.view.holders} version {root.view.version} {state}: {root.path}", soft_wrap=True)
    for line in change.todo:
        console.print(f"next: {line}", soft_wrap=True)
