"""Loading a release with all it names: what is read, what is refused, and that reading changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nwmctl.app.compose import release_content
from nwmctl.app.project import Project, load_project
from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import FileUnreadableError, NwmError, PolicyLoosenedError, PolicySignatureError, SchemaError
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import example_release, platforms_folder
from tests.e2e.command import tree
from tests.project import STRANGER, Network, ProjectFiles, write_project


@pytest.fixture
def files(tmp_path: Path) -> ProjectFiles:
    return write_project(tmp_path / "release")


def load(files: ProjectFiles) -> Project:
    return load_project(files.release, files.platforms if files.platforms.exists() else platforms_folder())


def test_a_project_is_read_whole_and_nothing_is_written(files: ProjectFiles) -> None:
    before = tree(files.folder)
    project = load(files)
    assert project.base == files.folder.resolve()
    assert set(project.profiles) == {"virtual"}
    assert project.policy.name == "test"
    assert project.rules == project.policy.virtual
    assert tree(files.folder) == before


def test_the_embedded_example_is_a_project() -> None:
    project = load_project(example_release(), platforms_folder())
    assert tuple(project.profiles) == project.release.platforms


def test_the_file_may_be_laid_out_otherwise_and_is_the_same_release(files: ProjectFiles) -> None:
    before = load(files)
    files.release.write_text("# a comment\n" + files.release.read_text() + "\n\n")
    assert load(files).digest == before.digest


def test_the_files_that_a_plan_reads_are_put_into_the_store(files: ProjectFiles, tmp_path: Path) -> None:
    project = load(files)
    store = ContentStore(tmp_path / "content")
    plan = project.plan(store)
    from nwmctl.domain.digest import Digest

    known = [source for step in plan for name, source in step.inputs.items() if isinstance(source, Digest)]
    models = {project.release.model.digest, project.release.previous.digest}
    assert all(store.has(digest) for digest in set(known) - models)


def _unknown_platform(files: ProjectFiles) -> None:
    files.edit_release(lambda release: release.update(platforms=["virtual", "nt9"]))


def _no_policy(files: ProjectFiles) -> None:
    files.policy.unlink()


def _no_signature(files: ProjectFiles) -> None:
    files.policy.with_name("policy.yaml.sig").unlink()


def _edited_policy(files: ProjectFiles) -> None:
    files.edit_policy(lambda policy: policy.update(version=2), sign=False)


def _garbage_signature(files: ProjectFiles) -> None:
    files.policy.with_name("policy.yaml.sig").write_bytes(b"{}")


def _untrusted_safety_key(files: ProjectFiles) -> None:
    files.edit_release(lambda release: release["trust"].update(safety_keys=[STRANGER.public]))


def _loosened(files: ProjectFiles) -> None:
    rule = {"parity": {"weakest": "estimated"}}
    files.edit_release(lambda release: release.update(tighten={"platforms": {"*": rule}, "approvals": 0}))


def _unknown_key(files: ProjectFiles) -> None:
    files.edit_release(lambda release: release.update(colour="red"))


def _newer_schema(files: ProjectFiles) -> None:
    files.edit_release(lambda release: release.update(schema="nwmctl.release/99"))


@pytest.mark.parametrize(
    ("spoil", "kind", "word"),
    [
        (_unknown_platform, SchemaError, "there is no platform 'nt9'"),
        (_no_policy, FileUnreadableError, "policy.yaml"),
        (_no_signature, FileUnreadableError, "policy.yaml.sig"),
        (_edited_policy, PolicySignatureError, "not what the safety role signed"),
        (_garbage_signature, PolicySignatureError, "does not hold"),
        (_untrusted_safety_key, PolicySignatureError, "does not hold"),
        (_loosened, PolicyLoosenedError, "loosens the policy"),
        (_unknown_key, SchemaError, "release.yaml:"),
        (_newer_schema, NwmError, "99"),
    ],
    ids=lambda value: getattr(value, "__name__", "")[1:],
)
def test_what_is_wrong_is_refused_and_named(
    files: ProjectFiles, spoil: Callable[[ProjectFiles], None], kind: type[NwmError], word: str
) -> None:
    spoil(files)
    with pytest.raises(kind) as caught:
        load(files)
    assert word in str(caught.value)
    assert caught.value.next


def test_an_unknown_platform_is_named_with_its_line(files: ProjectFiles) -> None:
    _unknown_platform(files)
    line = next(n for n, text in enumerate(files.release.read_text().splitlines(), 1) if "nt9" in text)
    with pytest.raises(SchemaError, match=f"release.yaml:{line}"):
        load(files)


def test_a_folder_without_profiles_is_refused(files: ProjectFiles, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileUnreadableError, match="no platform profiles"):
        load_project(files.release, tmp_path / "empty")


# --- what a release sequence stands for ---------------------------------------------------------------------------


def content(project: Project) -> str:
    return str(release_content(project.release, digest_bytes(project.policy_bytes)))


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.put_model("model", Network(seed=8)),
        lambda files: files.put_model("previous", Network(seed=8)),
        lambda files: files.edit_policy(lambda policy: policy.update(version=2)),
        lambda files: files.edit_release(lambda release: release.update(name="other")),
        lambda files: files.edit_release(lambda release: release.update(tighten={"platforms": {}, "approvals": 1})),
    ],
)
def test_models_policy_and_name_are_what_a_sequence_stands_for(
    files: ProjectFiles, change: Callable[[ProjectFiles], object]
) -> None:
    before = content(load(files))
    change(files)
    assert content(load(files)) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda release: release.update(poll_s=9.0),
        lambda release: release.update(max_attempts=2),
        lambda release: release["waves"].pop(),
        lambda release: release["mirrors"].append({"name": "second", "uri": "file:mirrors/second"}),
    ],
)
def test_waves_and_mirrors_may_change_under_a_sequence(files: ProjectFiles, change: Callable[[object], object]) -> None:
    before = content(load(files))
    files.edit_release(change)
    assert content(load(files)) == before
