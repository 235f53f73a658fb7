"""A search step over toolchains whose truth is known: onnxruntime under several names, with one defect each.

Also a program (``python -m tests.steps.search_bench STORE MARKER``) that begins such a search and hangs in the middle
of its second candidate, for whoever wants to kill it there.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from nwmctl.domain.amounts import Amounts
from nwmctl.domain.artifact import ArtifactManifest, Precision, Recipe
from nwmctl.domain.digest import Digest
from nwmctl.domain.platform import PlatformProfile
from nwmctl.domain.policy import Policy
from nwmctl.domain.search import Ranked, SearchReport
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import CompileWork, SearchWork
from nwmctl.errors import CompileFailedError
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Step
from nwmctl.steps.compile import compile_step
from nwmctl.steps.search import search_step
from nwmctl.storage.content import ContentStore
from nwmctl.storage.resources import platforms_folder
from nwmctl.toolchains.files import file_digest
from nwmctl.toolchains.onnxruntime import OnnxRuntime
from nwmctl.toolchains.protocol import Compiled, CompileRequest, Effort, Place, Session, Tensors
from nwmctl.toolchains.registry import Registry
from tests.project import policy_plain

PACKAGE = Path(__file__).parent / "golden"
POLICY = Policy
_REAL = Recipe("onnxruntime", Precision.FP32)


class Wall:
    """Real time."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


class Slowed:
    """A session that says that it took ``factor`` times as long."""

    def __init__(self, session: Session, factor: float) -> None:
        self._session, self._factor = session, factor

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        return self._session.run(inputs)

    @property
    def seconds(self) -> tuple[float, ...]:
        return tuple(self._factor * each for each in self._session.seconds)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Fake(OnnxRuntime):
    """onnxruntime under another name. ``defect``: none, wrong (its numbers), broken (it fails), full (the disk), hang.

    Counts what it is asked to compile, by recipe.
    """

    def __init__(self, name: str, defect: str = "", factor: float = 1.0, recipes: int = 1, marker: str = "") -> None:
        self.name, self.defect, self.factor, self.marker = name, defect, factor, marker
        self.recipes = tuple(Recipe(name, Precision.FP32, {"number": number}) for number in range(recipes))
        self.compiled: list[Recipe] = []
        self.opened = 0

    def fingerprint(self, recipe: Recipe) -> str:
        return f"fake {self.name}"

    def variations(self, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> tuple[Recipe, ...]:
        return self.recipes if unit == "host" else ()

    def compile(self, request: CompileRequest) -> Compiled:
        self.compiled.append(request.recipe)
        match self.defect:
            case "broken":
                raise CompileFailedError("the compiler failed", why="it says so", next="repair it")
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "hang":
                Path(self.marker).touch()
                time.sleep(600)
        compiled = super().compile(replace(request, recipe=_REAL))
        payload = compiled.payload
        # Other bytes for each recipe, so that no two share what is known of them.
        model = onnx.load(str(payload))
        model.doc_string = f"{self.name} {request.recipe.options['number']}"
        if self.defect == "wrong":
            _spoil(model)
        payload.write_bytes(model.SerializeToString())
        manifest = replace(
            compiled.manifest,
            recipe=request.recipe,
            payload=file_digest(payload),
            size=payload.stat().st_size,
        )
        return replace(compiled, manifest=manifest)

    def open(self, payload: Path, manifest: ArtifactManifest, place: Place, timeout_s: float = 60.0) -> Session:
        self.opened += 1
        return Slowed(super().open(payload, manifest, place, timeout_s), self.factor)


def _spoil(model: onnx.ModelProto) -> None:
    for value in model.graph.initializer:
        if value.data_type == onnx.TensorProto.FLOAT and len(value.dims) == 2:
            value.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(value), value.name))


class Drivers(Registry):
    """Only these toolchains."""

    def __init__(self, *fakes: Fake) -> None:
        super().__init__()
        self.fakes = {fake.name: fake for fake in fakes}

    def names(self) -> tuple[str, ...]:
        return tuple(self.fakes)

    def get(self, name: str) -> Fake:
        return self.fakes[name]


@dataclass
class Bench:
    """A store with a model in it, and searches over made-up toolchains."""

    store: ContentStore
    inputs: dict[str, Digest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files = {"card": "model-card.json", "weights": "model.onnx"}
        files |= {"calibration": "calibration.npz", "golden": "golden.npz"}
        self.inputs = {role: self.store.put_file(PACKAGE / name) for role, name in files.items()}
        data = (platforms_folder() / "virtual.yaml").read_bytes()
        profile = documents.decode_yaml(PlatformProfile, data, "virtual.yaml")
        # The profile's own recipe names a toolchain that only some tests have.
        [variant] = profile.variants
        build = replace(variant.builds[0], recipes=(Recipe("first", Precision.FP32, {"number": 0}),))
        profile = replace(profile, variants=(replace(variant, builds=(build,)),))
        self.inputs["profile"] = self.store.put_bytes(documents.encode(profile))

    @property
    def work(self) -> SearchWork:
        """A quick search for the host."""
        policy = documents.decode_yaml(Policy, canonical_policy(), "policy")
        rules = {str(name): rule for name, rule in policy.virtual.platforms["*"].items()}
        return SearchWork("full", "virtual", "host", "host", "", rules, Amounts(4, 8), 1)

    def compile(self, drivers: Drivers) -> Step[CompileWork]:
        return compile_step(self.store, drivers, 60.0)

    def step(self, drivers: Drivers) -> Step[SearchWork]:
        return search_step(self.store, drivers, self.compile(drivers), Wall())

    def run(self, drivers: Drivers, work: SearchWork | None = None, **inputs: Digest) -> Outcome:
        return self.step(drivers).run(to_plain(work or self.work), {**self.inputs, **inputs}, quiet)

    def ranked(self, outcome: Outcome) -> Ranked:
        return documents.decode(Ranked, self.store.read(outcome.outputs["recipes"]), "recipes")

    def report(self, outcome: Outcome) -> SearchReport:
        return documents.decode(SearchReport, self.store.read(outcome.outputs["report"]), "report")

    def another_model(self) -> Digest:
        """The same network in other bytes."""
        model = onnx.load(str(self.store.path(self.inputs["weights"])))
        model.doc_string = "another"
        return self.store.put_bytes(model.SerializeToString())


def canonical_policy() -> bytes:
    """The policy of the tests' projects."""
    import json

    return json.dumps(policy_plain()).encode()


def quiet(text: str, share: float) -> None:
    """Progress that nobody watches."""


def main(store: str, marker: str) -> None:
    """Begin a search that hangs in its second candidate."""
    bench = Bench(ContentStore(Path(store)))
    bench.run(Drivers(Fake("first"), Fake("second", "hang", marker=marker)))


if __name__ == "__main__":
    main(*sys.argv[1:])
