"""The example pipelines: they parse, use no made-up actions, and every `nwmctl` line in them is a real command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nwmctl.cli.app import app
from nwmctl.storage.resources import example_release

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "ci"
GITHUB, GITLAB = FOLDER / "github-actions.yml", FOLDER / "gitlab-ci.yml"
ACTIONS = {"actions/checkout", "actions/setup-python", "actions/upload-artifact", "actions/download-artifact"}


def parsed(path: Path) -> dict[str, Any]:
    """YAML 1.2, as pipelines read it: `on` is a word."""
    plain = yaml.safe_load(path.read_text())
    assert isinstance(plain, dict)
    return {("on" if key is True else key): value for key, value in plain.items()}


def texts(value: Any) -> Iterator[str]:
    """Every string below a value."""
    match value:
        case str():
            yield value
        case dict():
            for below in value.values():
                yield from texts(below)
        case list():
            for below in value:
                yield from texts(below)


def command_lines(text: str) -> list[list[str]]:
    """The arguments of every `nwmctl` call in a text, what the pipeline fills in replaced by a word."""
    lines = re.findall(r"^\s*nwmctl (.+)$", text, re.MULTILINE)
    return [shlex.split(re.sub(r"\$\{\{[^}]*\}\}|\$[A-Z_]+", "filled", line)) for line in lines]


def check_line(arguments: list[str]) -> str:
    """Parse a command line as the program does; gives the command. Raises the parser's error."""
    node, path, rest = typer.main.get_command(app), [], list(arguments)
    while commands := getattr(node, "commands", None):
        assert rest, f"{arguments} ends before a command"
        assert rest[0] in commands, f"there is no command {rest[0]}"
        path.append(rest[0])
        node = commands[rest.pop(0)]
    node.make_context(" ".join(path), rest)
    return " ".join(path)


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_every_command_line_is_one_of_the_program(path: Path) -> None:
    found = [check_line(line) for text in texts(parsed(path)) for line in command_lines(text)]
    assert found == ["bundle", "certify", "publish", "rollout start"]


def test_a_wrong_line_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--nosuch"):
        check_line(["bundle", "filled", "--nosuch"])
    with pytest.raises(AssertionError, match="no command"):
        check_line(["bundles", "filled"])


def test_the_matrix_is_the_releases_platforms() -> None:
    platforms = yaml.safe_load(example_release().read_bytes())["platforms"]
    assert parsed(GITHUB)["jobs"]["build"]["strategy"]["matrix"]["platform"] == platforms
    assert parsed(GITLAB)["build"]["parallel"]["matrix"] == [{"PLATFORM": platforms}]
    for path in (GITHUB, GITLAB):
        assert str(example_release().relative_to(ROOT)) in path.read_text()


def test_github_uses_known_actions_with_a_version() -> None:
    jobs = parsed(GITHUB)["jobs"]
    uses = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert {name.partition("@")[0] for name in uses} == ACTIONS
    assert all(re.fullmatch(r"v\d+", name.partition("@")[2]) for name in uses)


def moved(job: dict[str, Any], way: str) -> list[dict[str, Any]]:
    """What a job uploads or downloads."""
    return [step["with"] for step in job["steps"] if step.get("uses", "").startswith(f"actions/{way}-artifact@")]


def test_every_platform_hands_its_parts_to_the_job_that_certifies_and_to_the_one_that_publishes() -> None:
    jobs = parsed(GITHUB)["jobs"]
    assert (jobs["certify"]["needs"], jobs["publish"]["needs"]) == ("build", "certify")
    assert moved(jobs["build"], "upload")[-1]["name"].startswith("bundles-")
    parts = {"pattern": "bundles-*", "path": "parts", "merge-multiple": True}
    certified = {"name": "certified", "path": "certified"}
    assert moved(jobs["certify"], "download") == [parts]
    assert certified.items() <= moved(jobs["certify"], "upload")[0].items()
    assert moved(jobs["publish"], "download") == [parts, certified]


def test_gitlab_hands_on_the_same() -> None:
    plain = parsed(GITLAB)
    assert (plain["certify"]["needs"], plain["publish"]["needs"]) == (["build"], ["build", "certify"])
    assert plain["build"]["artifacts"]["paths"] == ["parts"]
    assert plain["certify"]["artifacts"]["paths"] == ["certified"]
    assert plain["build"]["artifacts"]["reports"]["junit"] == "checks/*.xml"
    assert plain["stages"] == ["build", "certify", "publish"]


@pytest.mark.parametrize("path", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_keys_come_from_secrets_and_never_from_the_repository(path: Path) -> None:
    text = path.read_text()
    assert "BEGIN" not in text
    assert "KEY_FOLDER" in text
    assert "--passphrase-env KEY_PASSPHRASE" in text


DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_command_lines_in_documents_are_of_the_program(document: str) -> None:
    """Lines that begin with `nwmctl` or `$ nwmctl` inside a code block."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^(?:\$ )?nwmctl (.+)$", block, re.MULTILINE):
            words = shlex.split(line, comments=True)
            if words and not words[0].startswith("-") and "/" not in words:
                check_line([word for word in words if word not in ("...", "|")])
