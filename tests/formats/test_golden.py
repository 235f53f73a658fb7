"""The bytes of every schema are a promise: they are hashed into keys, signed, and read years later.

A changed golden file means that old documents no longer read or no longer have their digests. Raise the schema's
version, write a migration, and add a new file beside the old one; never change an old file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.artifact import Recipe
from nwmctl.formats import documents
from tests.formats.samples import RECIPE, SAMPLES

GOLDEN = Path(__file__).parent / "golden"


def path(kind: type) -> Path:
    return GOLDEN / f"{documents.SCHEMAS[kind].tag.replace('/', '-')}.json"


def test_there_is_a_sample_of_every_schema() -> None:
    assert {type(sample) for sample in SAMPLES} == set(documents.SCHEMAS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_the_bytes_are_kept(sample: object) -> None:
    golden = path(type(sample)).read_bytes()
    assert documents.encode(sample) == golden
    assert documents.decode(type(sample), golden, "golden") == sample


def test_every_golden_file_still_reads() -> None:
    """Files of earlier versions stay here, and must go on being read."""
    kinds = {schema.name: kind for kind, schema in documents.SCHEMAS.items()}
    files = sorted(GOLDEN.glob("*.json"))
    assert len(files) >= len(kinds)
    for file in files:
        name = file.stem.rpartition("-")[0]
        documents.decode(kinds[name], file.read_bytes(), file.name)


def test_an_added_field_with_a_default_does_not_change_old_bytes() -> None:
    assert b"options" not in documents.encode(Recipe("iree", RECIPE.precision))
