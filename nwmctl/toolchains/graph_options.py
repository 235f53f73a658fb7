"""Recipe options that concern the graph and mean the same for every driver: how they are read, in one place. Pure.

All precisions: ``merge`` (products that read the same tensor become one). fp16: ``fp16_scope``. int8: ``quantisation``
(dynamic, static, weights), ``keep`` (groups that stay float, separated by commas), ``rest`` (what stays float is
computed in it), ``integers`` (which integers a product multiplies). A driver says its own defaults: IREE needs signed
integers and gains from merging, x86 without VNNI needs narrow integers and onnxruntime loses by merging (see
``Integers`` and ``optimising``). Whether a toolchain can build a combination is the driver's to say; so are all other
options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.errors import RecipeOptionError
from nwmctl.toolchains.lowering import Integers, LoweringOrder, Scope

QUANTISATION, KEEP, REST, INTEGERS, FP16_SCOPE, MERGE = (
    "quantisation",
    "keep",
    "rest",
    "integers",
    "fp16_scope",
    "merge",
)
_RESTS = (Precision.FP32, Precision.FP16, Precision.BF16)
_ALL = {MERGE: "true or false: whether query, key and value of an attention become one product"}
_FP16 = {**_ALL, FP16_SCOPE: "matmul (default) or all: what is converted to fp16"}
_INT8 = {
    **_ALL,
    QUANTISATION: "dynamic, static or weights",
    KEEP: "the groups of layers that stay float, separated by commas",
    REST: "fp32 (default), fp16 or bf16: what is not quantised is computed in it",
    INTEGERS: "signed, unsigned, narrow or wide: which integers are multiplied",
}

Word = TypeVar("Word", bound=StrEnum)


def known(precision: Precision) -> Mapping[str, str]:
    """The options of this file that a precision has, each with what it may be."""
    match precision:
        case Precision.FP16:
            return _FP16
        case Precision.INT8:
            return _INT8
        case _:
            return _ALL


def own_options(recipe: Recipe) -> dict[str, Option]:
    """A recipe's options without those of this file: what is left for the driver to read."""
    return {name: value for name, value in recipe.options.items() if name not in known(recipe.precision)}


def graph_order(
    recipe: Recipe,
    batch: int | None,
    *,
    quantisation: Quantisation = Quantisation.STATIC,
    integers: Integers = Integers.SIGNED,
    merge: bool = False,
) -> LoweringOrder:
    """What a recipe says about the graph; the keywords are the driver's defaults. bf16 leaves the graph in fp32.

    Raises RecipeOptionError for a value that an option does not take. Options of other names are not looked at.
    """
    joined = recipe.options.get(MERGE, merge)
    if not isinstance(joined, bool):
        raise _wrong(recipe, MERGE, f"it is {joined!r}")
    if recipe.precision is not Precision.INT8:
        graph = Precision.FP16 if recipe.precision is Precision.FP16 else Precision.FP32
        scope = _word(recipe, FP16_SCOPE, Scope, Scope.MATMUL) if graph is Precision.FP16 else Scope.MATMUL
        return LoweringOrder(graph, scope, batch, merge=joined)
    rest = _word(recipe, REST, Precision, Precision.FP32)
    if rest not in _RESTS:
        raise _wrong(recipe, REST, f"it is '{rest}'")
    return LoweringOrder(
        Precision.INT8,
        Scope.MATMUL,
        batch,
        _word(recipe, QUANTISATION, Quantisation, quantisation),
        _keep(recipe),
        _word(recipe, INTEGERS, Integers, integers),
        rest,
        joined,
    )


def keep_option(groups: Iterable[str]) -> str:
    """Groups as the value of ``keep``, in a fixed order, so that the same choice is the same recipe."""
    return ",".join(sorted(set(groups)))


def _keep(recipe: Recipe) -> tuple[str, ...]:
    value = recipe.options.get(KEEP, "")
    if not isinstance(value, str):
        raise _wrong(recipe, KEEP, f"it is {value!r}")
    return tuple(sorted({group.strip() for group in value.split(",") if group.strip()}))


def _word(recipe: Recipe, name: str, kind: type[Word], default: Word) -> Word:
    value = recipe.options.get(name, default)
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError as problem:
        raise _wrong(recipe, name, f"it is {value!r}") from problem


def _wrong(recipe: Recipe, name: str, why: str) -> RecipeOptionError:
    return RecipeOptionError(
        f"the recipe's option '{name}' is not possible with {recipe.toolchain}",
        why=f"{why}, it must be {known(recipe.precision)[name]}",
        next="correct the recipe",
    )
