"""The replay of design decision 2: has a step changed what it makes without raising its ``version``?

A step's result is stored under a key and never made twice, so new code under an old key would go on handing out what
the old code made. For every pure step a fixed small input is recorded with what came out (``step-versions.json``):

    asked     digest of everything that the step's key is made of, version and toolchain fingerprint included
    outcome   digest of what came out

The law is *the same question has the same answer*. Outputs are compared, and not source files, because a step's result
depends on crafts and formats far away from its file, and because most changes of source change no result. Where an
answer differs from machine to machine a part of it is left out and said so:

    sign      without the signature, since keys are made anew for every test run (tests/steps/test_bundle_sign.py sees
              that it is deterministic)
    validate  checks, verdicts, how they were obtained and the figures' names; not the figures, which are real ones
    compile, rebuild
              without what it took (memory, processor time)
    iree      the compiler's arguments for every recipe of the embedded profiles, and the graph before it; not the
              compiled code, which belongs to the compiler's version

When the test fails, see which of the three it is:
1. What the step makes was meant to change: raise ``version`` in ``nwmctl/steps/<step>.py`` (for a toolchain: ``_CODE``
   in its driver), then record.
2. It was not meant to change: repair the code.
3. The question has changed (an input of the recording, a field of a work order, a package's version): record.

To record: ``python -m tests.steps.replay``. It refuses to record another answer to the same question.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nwmctl.app.project import load_platforms
from nwmctl.bundling.read import read_bundle
from nwmctl.domain.amounts import Amounts
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Evidence
from nwmctl.domain.platform import PlatformProfile
from nwmctl.domain.policy import FleetRules, Policy
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork, PullWork, RebuildWork, ValidateWork
from nwmctl.formats import canonical, documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Step
from nwmctl.steps.bundle import bundle_step
from nwmctl.steps.compile import compile_step
from nwmctl.steps.pull import pull_step
from nwmctl.steps.rebuild import rebuild_step
from nwmctl.steps.sign import sign_step
from nwmctl.steps.validate import validate_step
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import platforms_folder
from nwmctl.toolchains import iree
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.iree_options import plan, twin
from nwmctl.toolchains.lowering import GraphFiles, lower
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.registry import registry
from nwmctl.trust.keys import KeyRing, KeyRole, init_keys
from tests.fakes import FakeClock
from tests.project import MODEL_KEY, policy_plain
from tests.steps.papers import SIGN_WORK, WORK, bundle_inputs, sign_inputs
from tests.trust.conftest import real_now

RECORD = Path(__file__).with_name("step-versions.json")
_TAKEN = ("peak_mb", "cpu_s")
PACKAGE = Path(__file__).parent / "golden"
"""A model package of a few bytes, as it lay on the day it was recorded."""


@dataclass(frozen=True)
class Replayed:
    """One question with its answer. ``version`` is what has to rise when the answer changes."""

    version: int
    asked: Digest
    outcome: Digest


def replay(name: str, folder: Path) -> Replayed:
    """Ask one step again."""
    return _REPLAYS[name](folder)


def names() -> tuple[str, ...]:
    """What is recorded."""
    return tuple(_REPLAYS)


def recorded() -> dict[str, Replayed]:
    """The recording."""
    plain = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return {
        name: Replayed(entry["version"], Digest.parse(entry["asked"]), Digest.parse(entry["outcome"]))
        for name, entry in plain.items()
    }


def quiet(text: str, share: float) -> None:
    """Progress that nobody watches."""


def _pull(folder: Path) -> Replayed:
    store = ContentStore(folder / "content")
    step = pull_step(store, folder / "incoming", PACKAGE.parent, lambda _: None)
    order = to_plain(PullWork("golden", (MODEL_KEY.public,)))
    return _step(step, order, {"model": file_digest(PACKAGE / "model-card.json")})


def _bundle(folder: Path) -> Replayed:
    store = ContentStore(folder / "content")
    return _step(bundle_step(store), to_plain(WORK), bundle_inputs(store))


def _sign(folder: Path) -> Replayed:
    store = ContentStore(folder / "content")
    bundle = bundle_inputs(store)
    made = bundle_step(store).run(to_plain(WORK), bundle, quiet)
    keys: KeyRing = init_keys(folder / "keys", real_now(), [KeyRole.RELEASE], development=True)
    step, order = sign_step(store, keys, None, (), real_now()), to_plain(SIGN_WORK)
    inputs = sign_inputs(store, bundle, made.outputs)
    outcome = step.run(order, inputs, quiet)
    contents = read_bundle(store.path(outcome.outputs["swu"]), lambda data, signature: None)
    sizes = {name: size for name, size in contents.sizes.items() if not name.endswith(".sig")}
    told = {"files": list(sizes.items()), "manifest": to_plain(contents.manifest), "summary": to_plain(outcome.summary)}
    told["summary"].pop("size")  # type: ignore[union-attr]
    return Replayed(step.version, _asked(step, order, inputs, fingerprint=False), _digest(told))


def _compile(precision: Precision) -> Callable[[Path], Replayed]:
    def again(folder: Path) -> Replayed:
        store = ContentStore(folder / "content")
        step = compile_step(store, registry(), 60.0)
        work = CompileWork("host", Recipe("onnxruntime", precision), "")
        return _step(step, to_plain(work), _model(store))

    return again


def _rebuild(folder: Path) -> Replayed:
    store, clock = ContentStore(folder / "content"), FakeClock()
    model = _model(store)
    work = CompileWork("host", Recipe("onnxruntime", Precision.FP32), "")
    made = compile_step(store, registry(), 60.0).run(to_plain(work), model, quiet)
    step = rebuild_step(store, registry(), 60.0, clock, clock.sleep)
    return _step(step, to_plain(RebuildWork("host", "")), {**model, **made.outputs})


def _validate(folder: Path) -> Replayed:
    store = ContentStore(folder / "content")
    model, order = _model(store), CompileWork("host", Recipe("onnxruntime", Precision.FP32), "")
    made = compile_step(store, registry(), 60.0).run(to_plain(order), model, quiet)
    profile = documents.decode_yaml(PlatformProfile, (platforms_folder() / "virtual.yaml").read_bytes(), "virtual.yaml")
    policy = documents.decode_yaml(Policy, json.dumps(policy_plain()).encode(), "policy")
    rules = FleetRules({"virtual": policy.virtual.platforms["*"]})
    inputs = {**model, **made.outputs, "profile": store.put_bytes(documents.encode(profile))}
    del inputs["calibration"]
    asks = ValidateWork("virtual", "host", "host", rules, Amounts(4, 8), 1)
    step, work = validate_step(store, registry()), to_plain(asks)
    outcome = step.run(work, inputs, quiet)
    evidence = documents.decode(Evidence, store.read(outcome.outputs["evidence"]), "evidence")
    told = [
        [result.check, result.verdict, result.obtained, sorted({figure.name for figure in result.figures})]
        for result in evidence.results
    ]
    # The machine's kind and its runtimes change figures, which are left out here, and so does the profile's text.
    asked = [step.version, work]
    return Replayed(step.version, _digest(asked), _digest(told))


def _iree_arguments(folder: Path) -> Replayed:
    profiles = load_platforms(platforms_folder()).profiles.values()
    recipes = {
        (build.unit, canonical.encode(to_plain(recipe))): recipe
        for profile in profiles
        for variant in profile.variants
        for build in variant.builds
        for recipe in build.recipes
        if recipe.toolchain == "iree"
    }
    questions = sorted(recipes)
    plans = [plan(recipes[question], question[0]) for question in questions]
    told = [[list(each.flags), list(each.runtime_flags), list(twin(each).flags)] for each in plans]
    # A host twin is for the kind of machine that this is.
    asked = [os.uname().machine, iree._CODE, [[unit, recipe.decode()] for unit, recipe in questions]]
    return Replayed(iree._CODE, _digest(asked), _digest(told))


def _iree_graph(folder: Path) -> Replayed:
    weights = PACKAGE / "model.onnx"
    told = []
    for precision in (Precision.FP32, Precision.FP16):
        scratch = folder / precision
        scratch.mkdir()
        how = plan(Recipe("iree", precision, {"arch": "sm_87"}), "gpu")
        lowered = lower(GraphFiles(weights), scratch, how.order, Limits(60.0, 4 << 30))
        told.append(str(file_digest(lowered.path)))
    # The packages that fold the graph are in the driver's fingerprint; the machine's kind plays no part before code.
    packages = iree.Iree().fingerprint(Recipe("iree", Precision.FP32)).rpartition(", ")[0]
    return Replayed(iree._CODE, _digest([packages, str(file_digest(weights))]), _digest(told))


_REPLAYS: dict[str, Callable[[Path], Replayed]] = {
    "pull": _pull,
    "compile onnxruntime fp32": _compile(Precision.FP32),
    "compile onnxruntime fp16": _compile(Precision.FP16),
    "compile iree arguments": _iree_arguments,
    "compile iree graph": _iree_graph,
    "rebuild": _rebuild,
    "validate": _validate,
    "bundle": _bundle,
    "sign": _sign,
}


def _model(store: ContentStore) -> dict[str, Digest]:
    """The recorded package as a pull leaves it."""
    files = {
        "card": "model-card.json",
        "weights": "model.onnx",
        "calibration": "calibration.npz",
        "golden": "golden.npz",
    }
    return {role: store.put_file(PACKAGE / name) for role, name in files.items()}


def _step(step: Step[object], order: object, inputs: Mapping[str, Digest]) -> Replayed:  # type: ignore[type-var]
    outcome: Outcome = step.run(order, inputs, quiet)
    told = {"outputs": {name: str(digest) for name, digest in outcome.outputs.items()}, "concern": outcome.concern}
    summary = {name: value for name, value in outcome.summary.items() if name not in _TAKEN}
    return Replayed(step.version, _asked(step, order, inputs), _digest({**told, "summary": to_plain(summary)}))


def _asked(step: Step[object], order: object, inputs: Mapping[str, Digest], *, fingerprint: bool = True) -> Digest:
    if fingerprint:
        return step.key(order, inputs)
    named = {name: str(digest) for name, digest in inputs.items()}
    return _digest([step.name, step.version, order, named])


def _digest(value: object) -> Digest:
    return digest_bytes(canonical.encode(value))  # type: ignore[arg-type]


def main() -> int:
    """Record what every step answers now."""
    old, new = recorded(), {}
    for name in names():
        with tempfile.TemporaryDirectory() as folder:
            new[name] = replay(name, Path(folder))
        before = old.get(name)
        if before and before.asked == new[name].asked and before.outcome != new[name].outcome:
            sys.stderr.write(f"{name}: another answer to the same question; raise its version first\n")
            return 1
    plain = {
        name: {"version": each.version, "asked": str(each.asked), "outcome": str(each.outcome)}
        for name, each in new.items()
    }
    RECORD.write_text(json.dumps(plain, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
