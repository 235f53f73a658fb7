"""pull and compile alone: what they leave, what they refuse, and that a refusal leaves nothing."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe, RuntimeNeeds
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.model import CARD_NAME, SIGNATURE_NAME, FileEntry, ModelCard, ModelOrigin, SignatureMethod
from nwmctl.domain.search import Ranked
from nwmctl.domain.work import CompileWork, PullWork
from nwmctl.errors import (
    CompileFailedError,
    ContractBrokenError,
    DigestMismatchError,
    DiskFullError,
    ModelIncompleteError,
    NwmError,
    UnknownToolchainError,
    UnsupportedRecipeError,
)
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Step
from nwmctl.steps.compile import compile_step
from nwmctl.steps.pull import pull_step
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.lowering import GraphFiles, LoweringOrder, lower
from nwmctl.toolchains.process import Limits
from nwmctl.toolchains.protocol import Compiled, CompileRequest
from nwmctl.trust.dsse import MODEL_CARD_TYPE, sign_dsse
from tests.e2e.command import tree
from tests.fakes import some_digest
from tests.project import MODEL_KEY, STRANGER, Fault, Network, write_model
from tests.steps.conftest import quiet

# --- pull ---------------------------------------------------------------------------------------------------------


class Puller:
    """A model package beside a pull step."""

    def __init__(self, root: Path, store: ContentStore) -> None:
        self.root, self.store = root, store
        self.digest = write_model(root / "model", Network(seed=2))
        self.step: Step[PullWork] = pull_step(store, root / "incoming", root, lambda _: None)

    def run(self, digest: Digest | None = None, uri: str = "model") -> Any:
        order = to_plain(PullWork(uri, (MODEL_KEY.public,)))
        return self.step.run(order, {"model": digest or self.digest}, quiet)

    def stored(self) -> list[str]:
        return list(tree(self.root / "content" / "objects"))

    def downloads(self) -> list[str]:
        return list(tree(self.root / "incoming"))


@pytest.fixture
def puller(tmp_path: Path, store: ContentStore) -> Puller:
    return Puller(tmp_path, store)


def test_pull_leaves_the_package_in_the_store_and_no_download(puller: Puller) -> None:
    outcome = puller.run()
    files = {
        "weights": "model.onnx", "calibration": "calibration.npz", "golden": "golden.npz", "card": CARD_NAME,
        "signature": SIGNATURE_NAME,
    }  # fmt: skip
    origin = documents.decode(ModelOrigin, puller.store.read(outcome.outputs["origin"]), "origin")
    assert (origin.model, origin.method) == (puller.digest, SignatureMethod.MODEL_CARD)
    given = {role: digest for role, digest in outcome.outputs.items() if role != "origin"}
    assert given == {role: file_digest(puller.root / "model" / name) for role, name in files.items()}
    assert outcome.outputs["card"] == puller.digest
    assert all(puller.store.has(digest) for digest in outcome.outputs.values())
    assert not list((puller.root / "incoming").iterdir())
    assert outcome.summary["model"] == "tiny 0.2"


def test_where_a_model_lies_does_not_change_what_is_pulled(puller: Puller) -> None:
    first = puller.run()
    (puller.root / "model").rename(puller.root / "moved")
    assert puller.run(uri="moved") == first
    assert puller.run(uri=(puller.root / "moved").as_uri()) == first


def _other_digest(puller: Puller) -> Digest:
    return some_digest("another")


def _stranger(puller: Puller) -> Digest:
    return write_model(puller.root / "model", Network(seed=2), signer=STRANGER)


def _swapped_file(puller: Puller) -> Digest:
    (puller.root / "model" / "golden.npz").write_bytes(b"something else")
    return puller.digest


def _no_weights(puller: Puller) -> Digest:
    (puller.root / "model" / "model.onnx").unlink()
    return puller.digest


def _no_package(puller: Puller) -> Digest:
    (puller.root / "model").rename(puller.root / "gone")
    return puller.digest


def _broken(fault: Fault) -> Callable[[Puller], Digest]:
    return lambda puller: write_model(puller.root / "model", Network(fault=fault))


def _card_lacks_a_role(puller: Puller) -> Digest:
    folder = puller.root / "model"
    card = documents.decode(ModelCard, (folder / CARD_NAME).read_bytes(), CARD_NAME)
    data = documents.encode(replace(card, files={"weights": card.files["weights"]}))
    (folder / CARD_NAME).write_bytes(data)
    (folder / SIGNATURE_NAME).write_bytes(sign_dsse(data, MODEL_CARD_TYPE, MODEL_KEY))
    return digest_bytes(data)


def _weights_apart(puller: Puller) -> Digest:
    """The same model with its weights in a file beside the graph."""
    import onnx

    folder = puller.root / "model"
    graph = onnx.load(str(folder / "model.onnx"))
    onnx.save(graph, str(folder / "model.onnx"), save_as_external_data=True, location="w.data", size_threshold=0)
    card = documents.decode(ModelCard, (folder / CARD_NAME).read_bytes(), CARD_NAME)
    files = {**card.files, "weights_data": card.files["weights"]}
    for role, name in (("weights", "model.onnx"), ("weights_data", "w.data")):
        files[role] = FileEntry(name, file_digest(folder / name), (folder / name).stat().st_size)
    data = documents.encode(replace(card, files=files))
    (folder / CARD_NAME).write_bytes(data)
    (folder / SIGNATURE_NAME).write_bytes(sign_dsse(data, MODEL_CARD_TYPE, MODEL_KEY))
    return digest_bytes(data)


def test_weights_beside_the_graph_are_pulled_and_compile_to_the_same_graph(puller: Puller, store: ContentStore) -> None:
    whole = puller.run()
    apart = puller.run(_weights_apart(puller))
    assert set(apart.outputs) == {*whole.outputs, "weights_data"}
    graphs = []
    for index, outcome in enumerate((whole, apart)):
        scratch = puller.root / f"scratch-{index}"
        scratch.mkdir()
        data = store.path(outcome.outputs["weights_data"]) if "weights_data" in outcome.outputs else None
        files = GraphFiles(store.path(outcome.outputs["weights"]), data)
        graphs.append(lower(files, scratch, LoweringOrder(Precision.FP32), Limits(60)).path.read_bytes())
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize(
    ("spoil", "kind", "code"),
    [
        (_other_digest, DigestMismatchError, 4),
        (_stranger, NwmError, 4),
        (_swapped_file, NwmError, 4),
        (_no_weights, NwmError, 9),
        (_no_package, NwmError, 9),
        (_broken(Fault.MISSING_OUTPUT), ContractBrokenError, 3),
        (_broken(Fault.WRONG_SHAPE), ContractBrokenError, 3),
        (_card_lacks_a_role, ModelIncompleteError, 3),
    ],
    ids=["digest", "signer", "file", "weights", "package", "missing output", "wrong shape", "roles"],
)
def test_pull_refuses_and_keeps_nothing(
    puller: Puller, spoil: Callable[[Puller], Digest], kind: type[NwmError], code: int
) -> None:
    digest = spoil(puller)
    with pytest.raises(kind) as caught:
        puller.run(digest)
    assert caught.value.exit_code == code
    assert not puller.stored()
    if code != 9:
        # Where the other side may recover, what has arrived waits to be continued.
        assert not puller.downloads()


# --- compile ------------------------------------------------------------------------------------------------------


class Tool:
    """A toolchain that writes what it was asked for into its payload."""

    name = "fake"

    def __init__(self, *, twin: bool = False, problem: NwmError | None = None) -> None:
        self.twin, self.problem, self.version = twin, problem, "1"
        self.asked: list[CompileRequest] = []

    def get(self, name: str) -> Tool:
        if name != self.name:
            raise UnknownToolchainError(f"there is no toolchain '{name}'", why="", next="")
        return self

    def fingerprint(self, recipe: Recipe) -> str:
        return f"{self.name} {self.version}"

    def compile(self, request: CompileRequest) -> Compiled:
        self.asked.append(request)
        if self.problem:
            (request.scratch / "half").write_bytes(b"half of a payload")
            raise self.problem
        main = self._made(request, "main")
        return replace(main, twin=self._made(request, "twin")) if self.twin else main

    def _made(self, request: CompileRequest, word: str) -> Compiled:
        path = request.scratch / word
        told = [word, request.unit, request.driver, str(request.recipe), str(file_digest(request.model))]
        path.write_text(json.dumps(told))
        manifest = ArtifactManifest(
            request.model_digest, request.recipe, file_digest(path), path.stat().st_size, "fake", ("fake", word),
            self.version, "fake64", {}, request.recipe.precision, RuntimeNeeds("fake", "1"),
        )  # fmt: skip
        return Compiled(path, manifest)


RECIPE = Recipe("fake", Precision.FP32, {"level": 3})
ORDER = CompileWork("gpu", RECIPE, "540")


@pytest.fixture
def model(store: ContentStore) -> dict[str, Digest]:
    return {name: store.put_bytes(name.encode()) for name in ("card", "weights", "calibration")}


def compiled(store: ContentStore, tool: Tool, model: dict[str, Digest], order: CompileWork = ORDER) -> Any:
    return compile_step(store, tool, 60.0).run(to_plain(order), model, quiet)  # type: ignore[arg-type]


def test_compile_keeps_payload_and_manifest_of_artifact_and_twin(store: ContentStore, model: dict[str, Digest]) -> None:
    tool = Tool(twin=True)
    outcome = compiled(store, tool, model)
    assert outcome.outputs.keys() == {"payload", "manifest", "twin_payload", "twin_manifest"}
    for prefix in ("", "twin_"):
        manifest = documents.decode(ArtifactManifest, store.read(outcome.outputs[f"{prefix}manifest"]), "manifest")
        assert manifest.payload == outcome.outputs[f"{prefix}payload"]
        assert manifest.model == model["card"]
    [asked] = tool.asked
    assert (asked.unit, asked.driver, asked.recipe) == ("gpu", "540", ORDER.recipe)
    assert not asked.scratch.exists()


def test_without_a_twin_there_is_no_twin_to_hand_on(store: ContentStore, model: dict[str, Digest]) -> None:
    assert compiled(store, Tool(), model).outputs.keys() == {"payload", "manifest"}


def test_the_same_order_gives_the_same_bytes(store: ContentStore, model: dict[str, Digest]) -> None:
    assert compiled(store, Tool(), model) == compiled(store, Tool(), model)


@pytest.mark.parametrize(
    "order",
    [
        replace(ORDER, unit="cpu"),
        replace(ORDER, driver="541"),
        replace(ORDER, recipe=replace(RECIPE, precision=Precision.FP16)),
        replace(ORDER, recipe=replace(RECIPE, options={"level": 2})),
    ],
)
def test_every_part_of_an_order_decides_the_payload_and_the_key(
    store: ContentStore, model: dict[str, Digest], order: CompileWork
) -> None:
    step = compile_step(store, Tool(), 60.0)  # type: ignore[arg-type]
    assert step.key(to_plain(order), model) != step.key(to_plain(ORDER), model)
    assert compiled(store, Tool(), model, order).outputs["payload"] != compiled(store, Tool(), model).outputs["payload"]


def test_another_version_of_the_compiler_is_another_key(store: ContentStore, model: dict[str, Digest]) -> None:
    old, new = Tool(), Tool()
    new.version = "2"
    keys = {compile_step(store, tool, 60.0).key(to_plain(ORDER), model) for tool in (old, new)}  # type: ignore[arg-type]
    assert len(keys) == 2


def test_a_compiler_that_fails_leaves_nothing_in_the_store(store: ContentStore, model: dict[str, Digest]) -> None:
    tool = Tool(problem=CompileFailedError("it failed", why="because", next="mend it"))
    before = tree(store.path(model["card"]).parents[2])
    with pytest.raises(CompileFailedError):
        compiled(store, tool, model)
    assert tree(store.path(model["card"]).parents[2]) == before


class FullStore(ContentStore):
    """Its disk becomes full when a payload's bytes are made durable."""

    def _settle(self, file: BinaryIO, name: str, place: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_becomes_full_says_what_was_needed_and_keeps_nothing(
    tmp_path: Path, store: ContentStore, model: dict[str, Digest]
) -> None:
    before = tree(tmp_path / "content")
    with pytest.raises(DiskFullError, match="while an artifact was stored") as caught:
        compiled(FullStore(tmp_path / "content"), Tool(), model)
    assert re.search(r"needs \d+ bytes; nothing of it was kept", caught.value.why)
    assert tree(tmp_path / "content") == before


def test_a_recipe_is_taken_by_its_rank(store: ContentStore, model: dict[str, Digest]) -> None:
    recipes = tuple(replace(RECIPE, options={"level": level}) for level in (1, 2))
    ranked = {**model, "recipes": store.put_bytes(documents.encode(Ranked("chip", "gpu", recipes)))}
    step = compile_step(store, Tool(), 60.0)  # type: ignore[arg-type]
    for rank, recipe in enumerate(recipes):
        order, named = replace(ORDER, recipe=None, rank=rank), replace(ORDER, recipe=recipe)
        assert step.key(to_plain(order), ranked) == step.key(to_plain(named), model), "a search has built it already"
        assert step.run(to_plain(order), ranked, quiet) == step.run(to_plain(named), model, quiet)
        assert step.alternatives(to_plain(order), ranked) == {"rank": 2}
        assert step.alternatives(to_plain(named), model) == {}
    beyond = to_plain(replace(ORDER, recipe=None, rank=2))
    for ask in (step.key, lambda order, inputs: step.run(order, inputs, quiet)):
        with pytest.raises(UnsupportedRecipeError, match="no recipe of rank 3"):
            ask(beyond, ranked)


def test_calibration_and_data_reach_the_toolchain(store: ContentStore, model: dict[str, Digest]) -> None:
    tool = Tool()
    compiled(store, tool, {**model, "weights_data": store.put_bytes(b"data")})
    [asked] = tool.asked
    assert asked.calibration == store.path(model["calibration"])
    assert asked.data is not None
    assert asked.data.read_bytes() == b"data"


def test_an_unknown_toolchain_is_refused(store: ContentStore, model: dict[str, Digest]) -> None:
    with pytest.raises(UnknownToolchainError):
        compiled(store, Tool(), model, replace(ORDER, recipe=replace(RECIPE, toolchain="nosuch")))
