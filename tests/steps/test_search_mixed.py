"""Mixed precision of the example model, whose static int8 no margin allows: through the real lowering and runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.domain.amounts import Amounts
from nwmctl.domain.artifact import ArtifactManifest, Precision, Quantisation, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.evidence import Check
from nwmctl.domain.model import ModelCard
from nwmctl.domain.platform import PlatformProfile
from nwmctl.domain.policy import Policy
from nwmctl.domain.search import CandidateState, SearchReport
from nwmctl.domain.work import CompileWork, SearchWork
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.compile import compile_step
from nwmctl.steps.search import search_step
from nwmctl.steps.search_judge import Bench, judge
from nwmctl.steps.search_mixed import Mixer
from nwmctl.steps.shelf import kept_drives, trained
from nwmctl.steps.ways import Artifact
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import platforms_folder
from nwmctl.toolchains.lowering import GraphFiles
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.protocol import Effort
from nwmctl.toolchains.registry import Registry
from tests.steps.search_bench import Wall

EXAMPLE = Path(__file__).parents[2] / "examples" / "nwm-2.5"
STATIC = Recipe("onnxruntime", Precision.INT8, {"quantisation": Quantisation.STATIC.value, "integers": "narrow"})


class StaticOnly(OnnxRuntime):
    """onnxruntime that thinks of nothing but static int8."""

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        return (STATIC,)


class One(Registry):
    """Only that one."""

    def names(self) -> tuple[str, ...]:
        return ("onnxruntime",)

    def get(self, name: str) -> StaticOnly:
        return StaticOnly()


def inputs_of(store: ContentStore) -> dict[str, Digest]:
    files = {"card": "model-card.json", "weights": "model.onnx"}
    files |= {"calibration": "calibration.npz", "golden": "golden.npz"}
    profile = documents.decode_yaml(PlatformProfile, (platforms_folder() / "virtual.yaml").read_bytes(), "virtual")
    [variant] = profile.variants
    build = replace(variant.builds[0], recipes=(STATIC,))
    profile = replace(profile, variants=(replace(variant, builds=(build,)),))
    return {
        **{role: store.put_file(EXAMPLE / "model" / name) for role, name in files.items()},
        "profile": store.put_bytes(documents.encode(profile)),
    }


@pytest.mark.long
def test_static_int8_is_refused_and_a_mixture_of_it_passes(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    policy = documents.decode_yaml(Policy, (EXAMPLE / "policy.yaml").read_bytes(), "policy.yaml").virtual
    rules = {name: policy.platforms["virtual"][name] for name in ("contract", "parity")}
    work = SearchWork("full", "virtual", "host", "host", "", rules, Amounts(4, 8), 20_260_000)
    step = search_step(store, One(), compile_step(store, One(), 120.0), Wall())
    outcome = step.run(to_plain(work), inputs_of(store), lambda text, share: None)
    report = documents.decode(SearchReport, store.read(outcome.outputs["report"]), "report")
    whole = next(each for each in report.candidates if each.recipe == STATIC)
    assert whole.state is CandidateState.REJECTED
    assert whole.parity_share is not None
    assert whole.parity_share > 1
    winner = report.candidates[0]
    assert winner.state is CandidateState.WON
    assert winner.parity_share is not None
    assert winner.parity_share <= 1
    kept = str(winner.recipe.options["keep"]).split(",")
    assert 1 <= len(kept) < 14, "most of 28 groups are integers"
    assert winner.found_precision is Precision.INT8
    assert any(note.startswith("most sensitive: ") for note in report.notes)


@pytest.mark.long
def test_the_simulated_error_is_that_of_the_artifact(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    inputs = inputs_of(store)
    policy = documents.decode_yaml(Policy, (EXAMPLE / "policy.yaml").read_bytes(), "policy.yaml").virtual
    profile = documents.decode(PlatformProfile, store.read(inputs["profile"]), "profile")
    bench = Bench(
        documents.decode(ModelCard, store.read(inputs["card"]), "card"),
        trained(store, inputs),
        store.path(inputs["golden"]),
        profile,
        profile.variants[0].builds[0],
        {Check.PARITY: policy.platforms["virtual"]["parity"]},
        20_260_000,
        kept_drives(store),
    )
    parts = {name: inputs[name] for name in ("card", "weights", "calibration", "golden")}
    files = GraphFiles(bench.model.files.model, None, store.path(inputs["calibration"]))
    notes: list[str] = []
    simulated = Mixer(store, bench, files, parts, Limits(120.0)).rehearse(STATIC, notes.append)
    assert notes == []
    order = CompileWork("host", STATIC, "")
    built = compile_step(store, One(), 120.0).run(to_plain(order), parts, lambda text, share: None)
    manifest = documents.decode(ArtifactManifest, store.read(built.outputs["manifest"]), "manifest")
    real = judge(bench, Artifact(store.path(built.outputs["payload"]), manifest, StaticOnly()), None)
    assert real.parity_share is not None
    assert simulated == pytest.approx(real.parity_share, rel=0.1)
    nothing = replace(bench, rules={})
    assert Mixer(store, nothing, files, parts, Limits(120.0)).rehearse(STATIC, notes.append) is None
    assert "no rule about parity" in notes[0]
