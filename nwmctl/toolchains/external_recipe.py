"""What a recipe says to a declared toolchain: options read, graphs ordered, recipes worth trying.

A recipe's options are the declaration's own and those that mean the same for every driver (see ``graph_options``); of
these, the ones of int8 where the declaration takes graphs that nwmctl has quantised. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nwmctl.domain.artifact import Option, Precision, Quantisation, Recipe
from nwmctl.errors import CalibrationMismatchError, RecipeOptionError, UnsupportedRecipeError
from nwmctl.toolchains.declaration import Declaration
from nwmctl.toolchains.graph_options import QUANTISATION, graph_order, own_options
from nwmctl.toolchains.lowering import LoweringOrder
from nwmctl.toolchains.protocol import Capability, CompileRequest, Effort

TEMPLATE = "template"
"""The recipe option that names the declaration."""
_RANKED = (Precision.INT8, Precision.FP16, Precision.BF16, Precision.FP32)
"""Formats by how fast hardware usually is in them."""
_MOST = 32
"""As many recipes of one declaration, unit and precision are worth trying at most."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A recipe as read: the declaration's own options, and the graph that its compiler gets."""

    options: dict[str, Option]
    order: LoweringOrder


def read(declared: Declaration, request: CompileRequest) -> Asked:
    """Raises UnsupportedRecipeError, RecipeOptionError, CalibrationMismatchError."""
    recipe = request.recipe
    if request.unit not in declared.units or recipe.precision not in declared.precisions:
        raise UnsupportedRecipeError(
            f"the toolchain '{declared.name}' does not build {recipe.precision} for the unit '{request.unit}'",
            why=f"it is declared for {', '.join(declared.precisions)} on {', '.join(declared.units)}",
            next="choose another recipe for this build",
        )
    order, own = _graph(declared, recipe)
    given = {name: value for name, value in own.items() if name != TEMPLATE}
    for name, value in given.items():
        if name not in declared.options or type(value) is not type(declared.options[name]):
            listed = ", ".join(f"{key} ({type(default).__name__})" for key, default in declared.options.items())
            raise _impossible(declared, name, f"it is {value!r}; declared are {listed or 'none'}")
    if recipe.precision is Precision.INT8 and declared.calibrates and request.calibration is None:
        raise CalibrationMismatchError(
            f"'{declared.name}' needs calibration data for int8",
            why="its program reads them, and the model package brings none",
            next="add calibration data to the model package, or choose another recipe",
        )
    return Asked({**declared.options, **given}, order)


def _graph(declared: Declaration, recipe: Recipe) -> tuple[LoweringOrder, Mapping[str, Option]]:
    """The graph's form, and the options that are left.

    The graph stays fp32 unless the compiler takes quantised ones: it converts by itself, and a graph that is converted
    already would hide what it does.
    """
    if recipe.precision is not Precision.INT8 or not declared.quantisations:
        plain = replace(recipe, precision=Precision.FP32)
        return graph_order(plain, 1), own_options(plain)
    order = graph_order(recipe, 1, quantisation=declared.quantisations[0])
    if order.quantisation not in declared.quantisations:
        listed = " or ".join(declared.quantisations)
        raise _impossible(declared, QUANTISATION, f"it is {order.quantisation!r}; the declaration takes {listed}")
    return order, own_options(recipe)


def _impossible(declared: Declaration, name: str, why: str) -> RecipeOptionError:
    return RecipeOptionError(
        f"the recipe's option '{name}' is not possible with {declared.name}",
        why=why,
        next="correct the recipe or the declaration",
    )


def capabilities(declared: Declaration) -> Iterator[Capability]:
    """What a declared toolchain builds."""
    for unit in declared.units:
        for precision in declared.precisions:
            int8 = precision is Precision.INT8
            forms = declared.quantisations or ((Quantisation.STATIC,) if declared.calibrates else ())
            yield Capability(unit, precision, forms if int8 else (), int8 and bool(declared.quantisations))


def variations(declared: Declaration, unit: str, instruction_sets: tuple[str, ...], effort: Effort) -> Iterator[Recipe]:
    """Recipes worth trying, the most promising first. A declaration for another instruction set gives none.

    Quick: one for each precision, with the declared defaults. Full: also every combination of the listed ``values``.
    """
    if unit not in declared.units or (instruction_sets and declared.instruction_set not in instruction_sets):
        return
    for precision in sorted(declared.precisions, key=_RANKED.index):
        forms = declared.quantisations if precision is Precision.INT8 else ()
        graphs: list[dict[str, Option]] = [{QUANTISATION: form.value} for form in forms] or [{}]
        names = tuple(declared.values) if effort is Effort.FULL else ()
        # The default first: whatever comes later has to beat it.
        choices = [dict.fromkeys((declared.options[name], *declared.values[name])) for name in names]
        combined = itertools.islice(itertools.product(*choices), _MOST)
        for chosen in combined:
            for graph in graphs if effort is Effort.FULL else graphs[:1]:
                yield Recipe(
                    "external", precision, {TEMPLATE: declared.name, **graph, **dict(zip(names, chosen, strict=True))}
                )
