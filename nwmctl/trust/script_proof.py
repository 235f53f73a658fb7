"""Proves that the scripts of a bundle are those that the packaged templates give, before a signature says so.

A script runs in the vehicle with the installer's rights, and the description names it by its digest alone. Whoever asks
for a signature could name any script; so each is rendered here again, from the templates that travel with nwmctl and
from what the description says, and nothing else is signed.
"""

from __future__ import annotations

from collections.abc import Mapping

from nwmctl.errors import ScriptTemplateError, ScriptUnprovenError
from nwmctl.formats.scripts import APPLY_TEMPLATE_NAME, JOIN_TEMPLATE_NAME, script_of
from nwmctl.formats.swu import SwDescription
from nwmctl.storage.resources import templates_folder


def packaged_templates() -> dict[str, str]:
    """The scripts' templates that travel with nwmctl. Raises ScriptTemplateError."""
    try:
        names = (JOIN_TEMPLATE_NAME, APPLY_TEMPLATE_NAME)
        return {name: (templates_folder() / name).read_text(encoding="utf-8") for name in names}
    except (OSError, UnicodeError) as problem:
        raise ScriptTemplateError(
            "nwmctl's own templates cannot be read", why=str(problem), next="install nwmctl again"
        ) from problem


def prove_scripts(description: SwDescription, templates: Mapping[str, str]) -> int:
    """Return how many scripts a description has if each is the one that it has to be.

    Raises ScriptUnprovenError, ScriptTemplateError.
    """
    count = 0
    for file in description.files:
        expected = script_of(file, (description.slot_a, description.slot_b), templates)
        needed = expected[0] if expected else None
        if file.join != needed:
            found = f"'{file.join.filename}' with {file.join.digest}" if file.join else "no script"
            raise ScriptUnprovenError(
                f"the script for '{file.filename}' is not the one that nwmctl's templates give",
                why=f"the description has {found}, needed is {f'{needed.digest}' if needed else 'none'}",
                next="run the release again from `bundle` with the nwmctl that signs; nothing was signed",
            )
        count += needed is not None
    return count
