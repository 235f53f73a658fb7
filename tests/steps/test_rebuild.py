"""rebuild: compilers that write down where, when or how they ran are caught; honest ones pass, real ones among them.

The compilers here are shell scripts that run through the same process layer as the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nwmctl.app.clock import SystemClock
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check, CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork, RebuildWork
from nwmctl.errors import PathInArtifactError, UnknownToolchainError
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import load_outcome, save_outcome
from nwmctl.steps.compile import compile_step
from nwmctl.steps.judge import read_results
from nwmctl.steps.rebuild import rebuild_step
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.process import Command, run_tool
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from nwmctl.toolchains.registry import registry
from tests.fakes import FakeClock
from tests.real import require_real
from tests.steps.conftest import quiet
from tests.toolchains.models import DRIVER, write_model


class Script:
    """A toolchain whose compiler is a shell script that writes ``payload`` (and ``twin``, if it likes)."""

    name = "script"

    def __init__(self, script: str, notes: Callable[[], str] = str) -> None:
        self.script, self.notes, self.version = script, notes, "1"

    def get(self, name: str) -> Script:
        if name != self.name:
            raise UnknownToolchainError(f"there is no toolchain '{name}'", why="", next="")
        return self

    def fingerprint(self, recipe: Recipe) -> str:
        return self.version

    def compile(self, request: CompileRequest) -> Compiled:
        limits = replace(request.limits, timeout_s=3.0)
        run_tool(Command("script", ("/bin/sh", "-c", self.script), request.scratch, limits))
        twin = request.scratch / "twin"
        main = self._described(request, request.scratch / "payload")
        return replace(main, twin=self._described(request, twin)) if twin.exists() else main

    def _described(self, request: CompileRequest, path: Path) -> Compiled:
        manifest = ArtifactManifest(
            request.model_digest, request.recipe, file_digest(path), path.stat().st_size, "script", ("sh",), "sh 1",
            "npu", {}, request.recipe.precision, RuntimeNeeds("sh", "1"), notes=(self.notes(),),
        )  # fmt: skip
        return Compiled(path, manifest)


def built(store: ContentStore, tool: Any, recipe: Recipe, unit: str, model: Path | None = None) -> dict[str, Digest]:
    """A model in the store, and the artifact that the compile step makes of it."""
    weights = store.put_file(model) if model else store.put_bytes(b"weights")
    parts = {"card": store.put_bytes(b"card"), "weights": weights}
    done = compile_step(store, tool, 120.0).run(to_plain(CompileWork(unit, recipe, DRIVER)), parts, quiet)
    return {**parts, **done.outputs}


def rebuilt(store: ContentStore, tool: Any, inputs: dict[str, Digest], unit: str = "npu", clock: Any = None) -> Outcome:
    clock = clock or FakeClock()
    sleep = clock.sleep if isinstance(clock, FakeClock) else lambda seconds: time.sleep(seconds)
    step = rebuild_step(store, tool, 120.0, clock, sleep)
    return step.run(to_plain(RebuildWork(unit, DRIVER)), inputs, quiet)


def result(store: ContentStore, outcome: Outcome) -> CheckResult:
    [found] = read_results(store, outcome.outputs["rebuilt"])
    assert found.check is Check.REBUILD
    return found


def script(store: ContentStore, text: str, **options: Any) -> tuple[Outcome, CheckResult]:
    tool = Script(text, **options)
    inputs = built(store, tool, Recipe("script", Precision.FP32), "npu")
    outcome = rebuilt(store, tool, inputs, clock=SystemClock() if "date" in text else None)
    return outcome, result(store, outcome)


def test_an_honest_compiler_passes(store: ContentStore) -> None:
    outcome, found = script(store, "echo code > payload; echo stand-in > twin")
    assert (found.verdict, found.obtained) == (Verdict.PASSED, Obtained.MEASURED)
    assert "payload and manifest of artifact and twin" in found.summary
    assert {figure.name: figure.value for figure in found.figures}["parts_that_differ"] == 0
    assert outcome.outputs.keys() == {"rebuilt"}
    assert not outcome.fleeting
    assert outcome.summary["cpu_s"] >= 0  # type: ignore[operator]


DISHONEST = {
    "time of day": "echo code > payload; date +%s >> payload",
    "time in steps of two seconds": "echo code > payload; echo $(( $(date +%s) / 2 )) >> payload",
    "chance": "echo code > payload; head -c 8 /dev/urandom >> payload",
    "process number": "echo code > payload; echo $$ >> payload",
    "folder, hashed": "echo code > payload; pwd | sha256sum >> payload",
    "length of the folder's name": "echo code > payload; pwd | wc -c >> payload",
    "umask": "echo code > payload; umask >> payload",
    "file modes": "echo code > payload; : > made; stat -c %a made >> payload",
    "locale": "echo code > payload; echo $LC_ALL >> payload",
    "time zone": "echo code > payload; date +%Z >> payload",
}


@pytest.mark.parametrize("text", DISHONEST.values(), ids=DISHONEST.keys())
def test_what_depends_on_anything_but_the_inputs_is_caught(store: ContentStore, text: str) -> None:
    outcome, found = script(store, text)
    assert (found.verdict, found.obtained) == (Verdict.FAILED, Obtained.MEASURED)
    assert "payload differs from byte" in found.summary
    assert "manifest differs from byte" in found.summary, "it holds the payload's digest"
    assert found.next
    assert store.read(outcome.outputs["rebuilt_payload"]).startswith(b"code\n"), "both builds are kept"
    assert outcome.outputs.keys() == {"rebuilt", "rebuilt_payload", "rebuilt_manifest"}


def test_the_first_difference_is_told_with_its_place(store: ContentStore) -> None:
    _, found = script(store, "echo code > payload; umask >> payload")
    assert "payload differs from byte 7 on" in found.summary
    assert "manifest differs from byte" in found.summary
    assert "in payload" in found.summary, "the manifest's key that differs first"


def test_a_twin_counts_as_well(store: ContentStore) -> None:
    _, found = script(store, "echo code > payload; umask > twin")
    assert found.verdict is Verdict.FAILED
    assert "twin_payload differs from byte 2 on" in found.summary
    assert " payload differs" not in found.summary


def test_a_manifest_that_says_something_else_is_caught(store: ContentStore) -> None:
    said = iter(("first", "second"))
    _, found = script(store, "echo code > payload", notes=lambda: next(said))
    assert found.verdict is Verdict.FAILED
    assert "manifest differs from byte" in found.summary
    assert " in notes; " in found.summary


def test_a_path_is_refused_before_anything_is_built_again(store: ContentStore) -> None:
    with pytest.raises(PathInArtifactError):
        script(store, "echo code > payload; pwd >> payload")


@pytest.mark.parametrize(
    ("then", "verdict", "said"),
    [
        ("exit 3", Verdict.FAILED, "failed to build again"),
        ("sleep 60", Verdict.NOT_RUN, "could not be made: script did not end within 3 s"),
    ],
)
def test_a_second_build_that_fails(store: ContentStore, tmp_path: Path, then: str, verdict: Verdict, said: str) -> None:
    seen = tmp_path / "seen"
    outcome, found = script(store, f"if [ -e {seen} ]; then {then}; fi; : > {seen}; echo code > payload")
    assert found.verdict is verdict
    assert said in found.summary
    assert outcome.fleeting is (verdict is Verdict.NOT_RUN), "what says nothing is asked again"


def test_the_second_build_waits_until_the_time_of_day_is_another(store: ContentStore) -> None:
    tool = Script("echo code > payload")
    inputs = built(store, tool, Recipe("script", Precision.FP32), "npu")
    stored = store.path(inputs["payload"]).stat().st_mtime
    for age, waits in ((0.5, [1.6]), (2.0, [0.1]), (2.2, []), (90_000.0, [])):
        clock = FakeClock(round((stored + age) * 1e6))
        rebuilt(store, tool, inputs, clock=clock)
        assert [round(slept, 1) for slept in clock.slept] == waits


def test_the_key_holds_what_was_built_and_by_what(store: ContentStore) -> None:
    tool = Script("echo code > payload")
    inputs = built(store, tool, Recipe("script", Precision.FP32), "npu")
    step = rebuild_step(store, tool, 60.0, FakeClock(), FakeClock().sleep)  # type: ignore[arg-type]
    order = to_plain(RebuildWork("npu", DRIVER))
    key = step.key(order, inputs)
    assert step.key(order, {**inputs, "golden": store.put_bytes(b"golden")}) == key
    assert step.key(order, {**inputs, "payload": store.put_bytes(b"other")}) != key
    assert step.key(order, {**inputs, "weights": store.put_bytes(b"other")}) != key
    assert step.key(to_plain(RebuildWork("gpu", DRIVER)), inputs) != key
    tool.version = "2"
    assert step.key(order, inputs) != key


def test_a_result_is_kept_and_read_back(store: ContentStore) -> None:
    outcome, found = script(store, "echo code > payload")
    key = store.put_bytes(b"key")
    save_outcome(store, key, outcome)
    assert load_outcome(store, key) == outcome
    assert found == result(store, outcome)


# --- real compilers -----------------------------------------------------------------------------------------------

OPTIONS_V9: dict[str, str | int | float] = {
    "cpu": "generic",
    "features": "+v9a,+dotprod,+i8mm,+bf16,+fullfp16,+fp16fml",
    "data_tiling": True,
}
REAL = {
    "virtual": ("host", Recipe("onnxruntime", Precision.FP32)),
    "nt2.0 gpu": ("gpu", Recipe("iree", Precision.FP16, {"arch": "sm_87", "opt_level": "O3"})),
    "nt2.0 cpu": ("cpu", Recipe("iree", Precision.FP32, {"cpu": "cortex-a78ae", "opt_level": "O3"})),
    "nt2.5 cpu": ("cpu", Recipe("iree", Precision.BF16, {**OPTIONS_V9, "opt_level": "O1"})),
}


def test_the_virtual_platform_is_built_the_same_elsewhere(store: ContentStore, tmp_path: Path) -> None:
    real(store, tmp_path, "virtual")


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in REAL if name != "virtual"])
def test_every_platform_is_built_the_same_elsewhere(store: ContentStore, tmp_path: Path, name: str) -> None:
    require_real("iree-compile", registry().get("iree").probe().available, "pip install 'nwmctl[iree]'")
    real(store, tmp_path, name)


def real(store: ContentStore, tmp_path: Path, name: str) -> None:
    unit, recipe = REAL[name]
    inputs = built(store, registry(), recipe, unit, write_model(tmp_path / "model.onnx"))
    found = result(store, rebuilt(store, registry(), inputs, unit, SystemClock()))
    assert found.verdict is Verdict.PASSED, found.summary
