"""The command line as a whole: help, what help costs, JSON everywhere, exit codes, and what the documents say of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from nwmctl import errors
from nwmctl.cli import common
from nwmctl.cli.app import app
from nwmctl.domain import search
from nwmctl.errors import ExitCode, NwmError

ROOT = Path(__file__).parents[2]
HEAVY = (
    "onnx", "onnxruntime", "onnx_ir", "iree", "numpy", "paramiko", "tuf", "securesystemslib", "httpx", "starlette",
    "uvicorn", "jinja2", "cryptography", "fsspec", "yaml", "sqlite3", "rich",
)  # fmt: skip

PROMISED = (
    "deploy", "pull", "compile", "validate", "bundle", "stage", "publish", "rollout start", "rollout status",
    "rollout pause", "rollout resume", "rollout abort", "rollback", "runs list", "runs show", "runs evidence",
    "platforms list", "platforms show", "platforms check", "fleet import", "fleet status", "gateway serve", "keys init",
    "keys list", "keys rotate", "keys revoke", "keys refresh", "keys resign", "keys ceremony draft",
    "keys ceremony show", "keys ceremony sign", "keys ceremony finish",
    "verify", "drill",
    "doctor", "drive replay", "drive run", "drive list",
    "judge key", "judge request", "judge sign", "judge sign-log", "judge check", "judge answer",
)  # fmt: skip


def commands(node: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path; groups too."""
    node = node if node is not None else typer.main.get_command(app)
    yield path, node
    for name, below in getattr(node, "commands", {}).items():
        yield from commands(below, (*path, name))


ALL = {" ".join(path): node for path, node in commands()}
LEAVES = {name: node for name, node in ALL.items() if not hasattr(node, "commands")}


def nwmctl(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nwmctl", *arguments], capture_output=True, text=True, timeout=60, **more
    )


@pytest.mark.parametrize("name", ALL)
def test_every_command_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"])
    assert shown.exit_code == 0, shown.output
    assert "Usage:" in shown.output
    assert ALL[name].help, f"`nwmctl {name}` has no text"


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_and_argument_is_explained(name: str) -> None:
    silent = [each.name for each in LEAVES[name].params if each.name != "help" and not getattr(each, "help", None)]
    assert not silent


def test_the_promised_commands_are_here() -> None:
    assert set(PROMISED) <= set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_can_answer_in_json(name: str) -> None:
    assert "--json" in {word for each in LEAVES[name].params for word in each.opts}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "import atexit\n"
        f"heavy = {HEAVY!r}\n"
        "from nwmctl.cli import app as cli\n"
        "import os\n"
        "def leave(code):\n"
        "    print('LOADED', sorted(m for m in heavy if m in sys.modules))\n"
        "    print('ROOMS', sorted(m for m in sys.modules if m.startswith('nwmctl.') and m.count('.') == 1))\n"
        "    sys.stdout.flush()\n"
        "os._exit = leave\n"
        "sys.argv = ['nwmctl', '--help']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "Usage:" in done.stdout, done.stderr
    assert "LOADED []" in done.stdout
    assert "ROOMS ['nwmctl.cli', 'nwmctl.errors']" in done.stdout


def test_without_a_command_there_is_help() -> None:
    done = nwmctl()
    assert done.returncode == 0
    assert "Usage: nwmctl" in done.stdout


def test_the_version_is_the_packages() -> None:
    import nwmctl as package

    assert nwmctl("--version").stdout.strip() == f"nwmctl {package.__version__}"


@pytest.mark.parametrize("line", [["nosuch"], ["deploy", "--nosuch"], ["verify"], ["runs", "nosuch"], ["runs"]])
def test_a_line_that_cannot_be_read_ends_with_2_and_no_traceback(line: list[str]) -> None:
    done = nwmctl(*line)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "Usage:" in done.stderr


def test_a_line_that_cannot_be_read_is_told_in_json_too() -> None:
    done = nwmctl("deploy", "--nosuch", "--json")
    told = json.loads(done.stdout)
    assert (told["error"], told["exit_code"]) == ("CommandLineError", 2)
    assert "--nosuch" in told["what"]


def test_a_refusal_is_one_json_document_and_its_families_exit_code(tmp_path: Path) -> None:
    done = nwmctl("platforms", "check", str(tmp_path), "--json")
    assert done.returncode == ExitCode.INPUT
    told = json.loads(done.stdout)
    assert set(told) == {"error", "what", "why", "next", "exit_code"}
    assert told["error"] == "FileUnreadableError"
    assert told["exit_code"] == done.returncode


def refusals() -> list[type[NwmError]]:
    """Every class of ``errors``."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NwmError)]


def test_every_refusal_has_an_exit_code_that_is_documented() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert documented == [int(code) for code in ExitCode]
    assert {kind.exit_code for kind in refusals()} <= set(ExitCode)


def test_every_refusal_says_what_it_stands_for() -> None:
    assert len(refusals()) > 80
    assert not [kind.__name__ for kind in refusals() if not kind.__doc__]


def test_the_readmes_commands_exist() -> None:
    """Each line of the README's table is `nwmctl WORDS`, the last one several verbs separated by slashes."""
    readme = (ROOT / "README.md").read_text()
    lines = re.findall(r"^\| `nwmctl ([^`]+)` \|", readme, re.MULTILINE)
    named = {name for line in lines for name in _expanded(line)}
    assert named == set(LEAVES), "the README's table of commands and the commands differ"


def _expanded(line: str) -> list[str]:
    words = [word for word in re.sub(r"\[[^\]]*\]", "", line).split() if not re.fullmatch(r"[A-Z-]+|--\S+", word)]
    if "/" not in words:
        return [" ".join(words)]
    first = words.index("/") - 1
    return [" ".join([*words[:first], verb]) for verb in words[first:] if verb != "/"]


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_options_named_in_documents_exist(document: str) -> None:
    """Every `nwmctl ... --option` in the documents is one that some command has."""
    known = {word for node in ALL.values() for each in node.params for word in (*each.opts, *each.secondary_opts)}
    known |= {"--help", "--version"}
    text = (ROOT / document).read_text()
    for line in re.findall(r"nwmctl [a-z][^`\n]*", text):
        for word in re.findall(r"(?<!\S)(--[a-z-]+)", line):
            assert word in known, f"{document}: {line}"


def test_the_gateway_says_in_json_where_it_listens(tmp_path: Path) -> None:
    (tmp_path / "mirrors" / "local").mkdir(parents=True)
    line = [sys.executable, "-m", "nwmctl", "gateway", "serve", "--port", "0", "--workspace", str(tmp_path), "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            told = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            assert told["url"] == f"http://127.0.0.1:{told['port']}"
            assert told["pid"] == process.pid
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == ExitCode.OK


def test_the_command_lines_efforts_are_the_domains() -> None:
    """They are spelled twice, so that --help imports nothing of the domain."""
    assert [(each.name, each.value) for each in common.Effort] == [(each.name, each.value) for each in search.Effort]
