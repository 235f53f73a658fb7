"""Which keys sign a release, and what people do with key folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.app import keys
from nwmctl.app.keys import Folder, approve_bundle, deployment_keys, make_keys, sign_document
from nwmctl.app.passphrases import passphrase
from nwmctl.app.settings import Settings, load_settings
from nwmctl.errors import (
    FileUnreadableError,
    InputError,
    KeyPassphraseError,
    KeyRingError,
    KeysNeededError,
    KeyThresholdError,
    OutputUnwritableError,
    PassphraseNeededError,
)
from nwmctl.trust.dsse import POLICY_TYPE, verify_dsse
from nwmctl.trust.keys import KeyRing, KeyRole


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return make_keys(tmp_path_factory.mktemp("keys") / "development", development=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENS", "word")
        return make_keys(tmp_path_factory.mktemp("keys") / "real", development=False, passphrase_env="OPENS")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(tmp_path / "w", environment={"HOME": str(tmp_path / "home")})


def test_a_virtual_fleet_gets_development_keys_made_once(settings: Settings) -> None:
    made = deployment_keys(settings, virtual=True)
    assert made.development
    assert made.folder == settings.development_keys
    assert settings.workspace not in made.folder.parents, "keys lie outside every workspace"
    assert deployment_keys(settings, virtual=True).document == made.document


def test_two_commands_at_once_make_development_keys_once(
    settings: Settings, development: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other command is quicker by a moment."""

    def too_late(folder: Path, *, development: bool) -> KeyRing:
        import shutil

        shutil.copytree(ring.folder, folder)
        return original(folder, development=development)

    ring, original = development, keys.make_keys
    monkeypatch.setattr(keys, "make_keys", too_late)
    assert deployment_keys(settings, virtual=True).document == ring.document


def test_a_real_fleet_never_gets_keys_by_itself(settings: Settings) -> None:
    with pytest.raises(KeysNeededError, match="no key folder is named") as caught:
        deployment_keys(settings, virtual=False)
    assert "nwmctl keys init" in caught.value.next
    assert not settings.development_keys.exists()


def test_development_keys_are_refused_for_a_real_fleet(settings: Settings, development: KeyRing) -> None:
    with pytest.raises(KeysNeededError, match="these are development keys"):
        deployment_keys(replace(settings, keys=development.folder), virtual=False)


@pytest.mark.parametrize("virtual", [True, False])
def test_named_keys_are_used(settings: Settings, real: KeyRing, virtual: bool) -> None:
    assert deployment_keys(replace(settings, keys=real.folder), virtual=virtual).folder == real.folder
    assert not settings.development_keys.exists()


def test_a_folder_that_is_no_key_folder_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(KeyRingError):
        deployment_keys(replace(settings, keys=tmp_path), virtual=True)


def test_a_passphrase_comes_from_a_variable_that_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "word")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert passphrase("SECRET") == b"word"
    assert passphrase(None) is None
    with pytest.raises(InputError, match="NOT_SET"):
        passphrase("NOT_SET")


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the variable with the passphrase of ``real``."""
    monkeypatch.setenv("OPENS", "word")
    return "OPENS"


def test_keys_are_encrypted_unless_they_protect_nothing(real: KeyRing, development: KeyRing, tmp_path: Path) -> None:
    for ring, encrypted in ((real, True), (development, False)):
        pems = [path.read_bytes() for path in ring.folder.glob("*.pem")]
        assert len(pems) > len(KeyRole)
        assert {b"BEGIN ENCRYPTED PRIVATE KEY" in pem for pem in pems} == {encrypted}
    with pytest.raises(PassphraseNeededError):
        make_keys(tmp_path / "k", development=False)
    assert not (tmp_path / "k").exists()


def test_a_terminal_is_asked_twice_for_a_new_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["one", "two", "", "same", "same", "same"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda *_: answers.pop(0))
    content = Folder((KeyRole.MODEL,))
    for what in ("differ", "is empty"):
        with pytest.raises(KeyPassphraseError, match=what):
            make_keys(tmp_path / "k", development=False, content=content)
    ring = make_keys(tmp_path / "k", development=False, content=content)
    card = tmp_path / "card.json"
    card.write_bytes(b"{}")
    assert sign_document("model-card", card, ring.folder)[1] == ring.public(KeyRole.MODEL)
    assert answers == []


def test_a_person_has_one_key_of_one_role_and_approves_with_it(tmp_path: Path) -> None:
    person = make_keys(tmp_path / "p", development=True, content=Folder((KeyRole.APPROVER,)))
    assert [entry.role for entry in person.document.keys] == [KeyRole.APPROVER]
    out = tmp_path / "yes.json"
    assert approve_bundle(f"sha256:{'0' * 64}", "", person.folder, out) == person.public(KeyRole.APPROVER)


def test_a_threshold_beyond_the_keys_is_refused(tmp_path: Path) -> None:
    content = Folder((KeyRole.ROOT,), thresholds={KeyRole.ROOT: 2})
    with pytest.raises(KeyThresholdError):
        make_keys(tmp_path / "k", development=True, content=content)
    assert not (tmp_path / "k").exists()


def test_development_keys_of_an_earlier_version_get_what_they_lack(settings: Settings, tmp_path: Path) -> None:
    made = make_keys(settings.development_keys, development=True, content=Folder((KeyRole.MODEL, KeyRole.RELEASE)))
    ring = deployment_keys(settings, virtual=True)
    assert all(ring.has(role) for role in KeyRole)
    assert ring.public(KeyRole.RELEASE) == made.public(KeyRole.RELEASE)


def test_a_policy_is_signed_by_the_safety_role(real: KeyRing, tmp_path: Path, opens: str) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_bytes(b"a policy")
    written, public = sign_document("policy", policy, real.folder, opens)
    assert written == tmp_path / "policy.yaml.sig"
    assert public == real.public(KeyRole.SAFETY)
    assert verify_dsse(written.read_bytes(), POLICY_TYPE, [public]).payload == b"a policy"


def test_a_document_that_is_not_there_is_named(real: KeyRing, tmp_path: Path, opens: str) -> None:
    with pytest.raises(FileUnreadableError, match="nowhere"):
        sign_document("policy", tmp_path / "nowhere.yaml", real.folder, opens)


def test_a_signature_that_cannot_be_written_is_a_refusal(real: KeyRing, tmp_path: Path, opens: str) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_bytes(b"a policy")
    (tmp_path / "policy.yaml.sig").mkdir()
    with pytest.raises(OutputUnwritableError, match="cannot be written"):
        sign_document("policy", policy, real.folder, opens)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing half-written stays"
