"""Compilers that fail, lie, run away: each a refusal of its own, the next recipe tried, and all of it in the journal.

The compiler is a real program behind a real declaration; the good recipe at the end is onnxruntime's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nwmctl.app import compose
from nwmctl.steps.compile import compile_step
from nwmctl.toolchains.registry import ENVIRONMENT, registry
from tests.e2e.command import Place, tree

COMPILER = """#!{python}
import os, pathlib, signal, sys, time
arguments = dict(part.lstrip("-").partition("=")[::2] for part in sys.argv[1:])
if "version" in arguments:
    print("badcc 1.0")
    sys.exit(0)
mode, out = arguments["mode"], pathlib.Path(arguments["out"])
graph = pathlib.Path(arguments["model"]).read_bytes()
print("kernel " + ("fp32" if mode == "another" else arguments["format"]))
match mode:
    case "status":
        sys.exit("badcc: the graph has too many nodes")
    case "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    case "lie":
        out.write_bytes(b"BAD" + graph)
        print("badcc: error: no such pass", file=sys.stderr)
    case "unmodified":
        out.write_bytes(graph)
    case "link":
        pathlib.Path("real").write_bytes(b"BAD" + graph)
        out.symlink_to(pathlib.Path("real").resolve())
    case "path":
        out.write_bytes(b"BAD" + os.getcwd().encode() + graph)
    case "another":
        out.write_bytes(b"BAD" + graph)
    case "chance":
        out.write_bytes(b"BAD" + os.urandom(8) + graph)
    case "talk":
        while True:
            print("x" * 65536)
    case "memory":
        kept = bytearray(9 << 30)  # reserved only: it is refused before a byte is touched
    case "disk":
        with open("filler", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
                time.sleep(0.005)
    case "hang":
        if os.fork() == 0:
            os.setsid()
            pathlib.Path({pid!r}).write_text(str(os.getpid()))
        time.sleep(600)
"""

DECLARATION = """name: bad
description: a compiler that fails in every way
units: [host]
precisions: [fp32, fp16]
compile:
  program: {folder}/badcc
  arguments: ["--model={{{{ model }}}}", "--out={{{{ payload }}}}", "--format={{{{ precision }}}}",
              "--mode={{{{ mode }}}}"]
options: {{mode: ""}}
version: {{program: {folder}/badcc, arguments: ["--version"]}}
version_pattern: 'badcc (\\S+)'
payload: model.bad
format: bad
instruction_set: bad-unit
runtime: badrun
install: nobody should
inspect: {{fp16: 'kernel fp16', fp32: 'kernel fp32'}}
"""

MODES = {
    "status": ("CompileFailedError", "exit status 1"),
    "crash": ("CompileFailedError", "SIGSEGV"),
    "lie": ("ErrorSaidError", "exited 0 and yet said 'badcc: error: no such pass'"),
    "unmodified": ("PayloadUnchangedError", ""),
    "link": ("PayloadNotPlainError", "not taken"),
    "path": ("PathInArtifactError", "tells where it was made"),
    "another": ("PromiseBrokenError", "did not build what the recipe asks for"),
    "talk": ("RunawayOutputError", "printed more than"),
    "memory": ("ToolMemoryError", "8.0 GiB are allowed"),
    "disk": ("ScratchOverflowError", "wrote more than its disk space"),
    "hang": ("ToolchainTimeoutError", "did not end within"),
}


BADLY = "{{toolchain: external, precision: fp16, options: {{template: bad, mode: {mode}}}}}"


@pytest.fixture
def compiler(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The bad compiler, declared for this place; its patience and its disk are small."""
    folder = tmp_path / "sdk"
    declarations = folder / "toolchains"
    declarations.mkdir(parents=True)
    program = folder / "badcc"
    program.write_text(COMPILER.format(python=sys.executable, pid=str(folder / "pid")))
    program.chmod(0o755)
    (declarations / "bad.yaml").write_text(DECLARATION.format(folder=folder))
    place.environment[ENVIRONMENT] = str(declarations)
    monkeypatch.setattr(
        compose, "compile_step", lambda store, tools, _: compile_step(store, tools, 12.0, scratch_bytes=20 << 20)
    )
    registry.cache_clear()
    yield folder
    registry.cache_clear()


def compiled(place: Place, modes: list[str]) -> list[dict[str, Any]]:
    """Compile for the virtual platform with these recipes first; the events of the run."""
    place.run("compile", place.project.release, "--platforms", first(place, modes), "--json").ok()
    return journal(place, "compile/release/")


def first(place: Place, modes: list[str]) -> Path:
    """Profiles whose virtual platform is built by these recipes first, and by a good one last."""
    recipes = "".join(f"          - {BADLY.format(mode=mode)}\n" for mode in modes)
    good = "          - {toolchain: onnxruntime, precision: fp32}\n"
    return place.project.edit_platforms("virtual.yaml", lambda text: text.replace(good, recipes + good))


def journal(place: Place, prefix: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = place.run("runs", "show", "--json").ok().json["events"]
    return [event for event in events if str(event.get("step", "")).startswith(prefix)]


def check(place: Place, events: list[dict[str, Any]], modes: list[str]) -> None:
    failed = [event for event in events if event["event"] == "StepFailed"]
    decided = [event for event in events if event["event"] == "Decided"]
    assert [event["error"] for event in failed] == [MODES[mode][0] for mode in modes]
    for index, (mode, failure, decision) in enumerate(zip(modes, failed, decided, strict=True)):
        assert MODES[mode][1] in failure["what"], mode
        assert failure["why"]
        assert failure["next"]
        assert (decision["remedy"], decision["rule"]) == ("adjust", "next-alternative")
        assert failure["what"] in decision["reason"]
        assert f"alternative {index + 2} of {len(modes) + 1} is next" in decision["reason"]
        assert decision["choice"] == index + 1
    [done] = [event for event in events if event["event"] == "StepFinished"]
    assert done["summary"]["recipe"] == "onnxruntime fp32"
    assert done["summary"]["peak_mb"] > 10
    assert done["attempt"] == len(modes) + 1
    assert not tree(place.workspace / "content" / "tmp"), "nothing half-written stays"


def test_a_compiler_that_lies_is_followed_by_the_next_recipe(place: Place, compiler: Path) -> None:
    check(place, compiled(place, ["lie"]), ["lie"])


@pytest.mark.long
def test_every_way_to_fail_is_journalled_with_a_refusal_of_its_own(place: Place, compiler: Path) -> None:
    modes = list(MODES)
    check(place, compiled(place, modes), modes)
    left = int((compiler / "pid").read_text())
    assert not Path(f"/proc/{left}").exists(), "what the compiler left running is gone"


def test_without_another_recipe_the_run_ends_with_the_refusal(place: Place, compiler: Path) -> None:
    good, bad = "{toolchain: onnxruntime, precision: fp32}", BADLY.format(mode="unmodified")
    platforms = place.project.edit_platforms("virtual.yaml", lambda text: text.replace(good, bad))
    ran = place.run("compile", place.project.release, "--platforms", platforms, "--json")
    assert ran.code == 6
    assert json.loads(ran.out)["error"] == "PayloadUnchangedError"
    assert not tree(place.workspace / "content" / "tmp")


def demand_rebuilding(place: Place) -> None:
    place.project.edit_policy(
        lambda policy: policy["virtual"]["platforms"]["*"].update(rebuild={"weakest": "measured"})
    )


@pytest.mark.long
def test_a_compiler_that_is_not_reproducible_is_found_by_building_again(place: Place, compiler: Path) -> None:
    demand_rebuilding(place)
    place.run("validate", place.project.release, "--platforms", first(place, ["chance"]), "--json").ok()
    [rebuilt, again] = [event for event in journal(place, "rebuild/release/") if event["event"] == "StepFinished"]
    assert rebuilt["summary"]["failed"] == 1
    assert rebuilt["outputs"].keys() == {"rebuilt", "rebuilt_payload", "rebuilt_manifest"}
    assert again["summary"]["passed"] == 1
    [decision] = [event for event in journal(place, "compile/release/") if event["event"] == "Decided"]
    assert (decision["remedy"], decision["rule"]) == ("adjust", "next-alternative")
    assert "rebuild failed (measured): built again in another folder" in decision["reason"]
    assert "payload differs from byte 3 on" in decision["reason"]
    (build,) = place.run("runs", "evidence", "--build", "virtual", "--json").ok().json["builds"]
    [found] = [result for result in build["evidence"]["results"] if result["check"] == "rebuild"]
    assert (found["verdict"], found["obtained"]) == ("passed", "measured")
    assert "are the same when built in another folder" in found["summary"]
