"""The recipes that a search looks at, in the order in which it hears of them. Pure.

Earlier winners come first, then what the drivers offer, one of each in turn, so that cutting the list leaves no driver
out, then what the platform's profile names besides. What cannot be used is named with its reason, never silently
dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from nwmctl.domain.artifact import Option, Recipe
from nwmctl.formats import canonical
from nwmctl.formats.codec import to_plain
from nwmctl.toolchains.graph_options import own_options


@dataclass(frozen=True, slots=True)
class Offer:
    """What one driver would try, most promising first. ``absent``: why it cannot be used here. ``mixed``: whether it
    builds int8 with groups that keep another precision."""

    toolchain: str
    recipes: tuple[Recipe, ...] = ()
    mixed: bool = False
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Space:
    """Recipes without repetition; the first ``winners`` of them won earlier searches. ``mixed``: the toolchains that
    can mix precisions here; ``left_out``: what is not looked at and why, for people."""

    recipes: tuple[Recipe, ...]
    winners: int = 0
    mixed: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()


def make_space(
    offers: Sequence[Offer], own: Sequence[Recipe], winners: Sequence[Recipe], unlike: Sequence[str] = ()
) -> Space:
    """Join earlier winners, the profile's own recipes and the drivers' offers.

    ``unlike`` are toolchains to leave out, so that two roles do not share a fault; where nothing else is left they
    stay, and ``left_out`` says so.
    """
    usable = {offer.toolchain: offer for offer in offers if not offer.absent}
    left_out = [f"{offer.toolchain}: {offer.absent}" for offer in offers if offer.absent]
    offered = _in_turn(offers)
    besides = [recipe for recipe in own if not any(_says_more(other, recipe) for other in offered)]
    all_ = [recipe for recipe in _once((*winners, *offered, *besides)) if recipe.toolchain in usable]
    absent = {recipe.toolchain for recipe in own} - {offer.toolchain for offer in offers}
    left_out += [f"{name}: no such toolchain is installed here" for name in sorted(absent)]
    others = [recipe for recipe in all_ if recipe.toolchain not in unlike]
    shared = sorted({recipe.toolchain for recipe in all_} & set(unlike))
    if shared and others:
        all_ = others
        left_out += [f"{name}: another role's build uses it, and this one must not" for name in shared]
    elif shared:
        left_out.append(
            f"no toolchain but {', '.join(shared)} builds for this unit here, so this build shares it with another role"
        )
    known = {recipe_key(recipe) for recipe in winners}
    count = sum(recipe_key(recipe) in known for recipe in all_)
    mixed = frozenset(offer.toolchain for offer in usable.values() if offer.mixed)
    return Space(tuple(all_), count, mixed, tuple(left_out))


def recipe_key(recipe: Recipe) -> str:
    """A recipe as one line of canonical text: the same for equal recipes, and an order among all."""
    return canonical.encode(to_plain(recipe)).decode()


def same_numbers(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes differ at most in options of their toolchain that leave the graph as it is."""
    same = (one.toolchain, one.precision) == (other.toolchain, other.precision)
    return same and _graph_options(one) == _graph_options(other)


def said(recipe: Recipe) -> str:
    """A recipe for people."""
    options = {name: value for name, value in sorted(recipe.options.items()) if name != "keep"}
    words = [recipe.toolchain, str(recipe.precision), *(f"{name}={value}" for name, value in options.items())]
    kept = str(recipe.options.get("keep", ""))
    if kept:
        words.append(f"keep={len(kept.split(','))} groups")
    return " ".join(words)


def _graph_options(recipe: Recipe) -> dict[str, Option]:
    own = own_options(recipe)
    return {name: value for name, value in recipe.options.items() if name not in own}


def _says_more(offer: Recipe, own: Recipe) -> bool:
    """Whether an offer spells out what a recipe leaves to the driver: then the recipe would be built twice."""
    same = (offer.toolchain, offer.precision) == (own.toolchain, own.precision)
    return same and own.options.items() <= offer.options.items()


def _in_turn(offers: Iterable[Offer]) -> list[Recipe]:
    """The first of every driver, then the second, and so on."""
    rounds = zip_longest(*(offer.recipes for offer in offers))
    return [recipe for round_ in rounds for recipe in round_ if recipe is not None]


def _once(recipes: Iterable[Recipe]) -> list[Recipe]:
    seen: dict[str, Recipe] = {}
    for recipe in recipes:
        seen.setdefault(recipe_key(recipe), recipe)
    return list(seen.values())
