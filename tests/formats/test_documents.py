"""Canonical JSON, typed documents, YAML with places."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.digest import Digest, digest_bytes, step_key
from nwmctl.domain.platform import PlatformProfile
from nwmctl.domain.release import Release
from nwmctl.errors import DigestFormatError, NotCanonicalError, NwmError, SchemaError, SchemaVersionError
from nwmctl.formats import canonical, documents, yamldoc

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
plain = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(plain)
def test_one_value_one_byte_string(value: canonical.Plain) -> None:
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data, "x")) == data
    assert json.loads(data) == value


@given(plain, st.data())
def test_other_spellings_are_refused(value: canonical.Plain, data: st.DataObject) -> None:
    other = json.dumps(value, indent=data.draw(st.integers(0, 2))).encode()
    if other != canonical.encode(value):
        with pytest.raises(NotCanonicalError):
            canonical.decode(other, "x")


@pytest.mark.parametrize("bad", [b"", b"nul", b'{"a":1,"a":1}', b"NaN", b"1e999", b"\xff", b"[" * 100_000, b"1.0 "])
def test_bad_bytes_are_refused(bad: bytes) -> None:
    with pytest.raises(NotCanonicalError):
        canonical.decode(bad, "x")


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": float("-inf")}])
def test_only_finite_numbers_are_written(value: canonical.Plain) -> None:
    with pytest.raises(ValueError, match="finite"):
        canonical.encode(value)


RECIPE = Recipe("iree", Precision.FP16, {"arch": "sm_87", "opt_level": "O3", "data_tiling": True, "n": 2, "x": 0.5})
RECIPE_BYTES = (
    b'{"options":{"arch":"sm_87","data_tiling":true,"n":2,"opt_level":"O3","x":0.5},"precision":"fp16",'
    b'"schema":"nwmctl.recipe/1","toolchain":"iree"}'
)


def test_golden_recipe() -> None:
    """These bytes are a promise: they are hashed into step keys."""
    assert documents.encode(RECIPE) == RECIPE_BYTES
    assert documents.decode(Recipe, RECIPE_BYTES, "x") == RECIPE


def test_a_newer_document_is_refused() -> None:
    with pytest.raises(SchemaVersionError):
        documents.decode(Recipe, RECIPE_BYTES.replace(b"recipe/1", b"recipe/2"), "x")
    with pytest.raises(SchemaError):
        documents.decode(Recipe, RECIPE_BYTES.replace(b"recipe/1", b"release/1"), "x")


@given(st.binary(max_size=200))
def test_any_bytes_as_yaml(data: bytes) -> None:
    try:
        yamldoc.parse(data, "x.yaml")
    except NwmError:
        return


@given(st.integers(0, 2000), st.integers(1, 255), st.sampled_from([Release, PlatformProfile]))
def test_mutated_yaml_never_crashes(where: int, flip: int, kind: type) -> None:
    data = bytearray(
        b"schema: nwmctl.release/1\nname: a\nsequence: 3\nplatforms: [a, b]\nwaves:\n- {name: c, share: 1}\n" * 2
    )
    data[where % len(data)] ^= flip
    try:
        documents.decode_yaml(kind, bytes(data), "x.yaml")
    except NwmError:
        return


def refusal(text: str) -> SchemaError:
    with pytest.raises(SchemaError) as problem:
        documents.decode_yaml(Recipe, text.encode(), "r.yaml")
    return problem.value


HEAD = "schema: nwmctl.recipe/1\ntoolchain: iree\n"


def test_errors_name_file_line_and_key() -> None:
    assert refusal(HEAD + "precision: fp16\nlevel: 3\n").what.startswith("r.yaml:4: level: unknown key 'level'")
    assert refusal(HEAD + "precision: fp17\n").what.startswith("r.yaml:3: precision: 'fp17' is not one of")
    assert "key 'precision' is missing" in refusal(HEAD).what
    assert refusal(HEAD + "precision: fp16\noptions:\n  a: [1]\n").what.startswith("r.yaml:5: options.a: ")
    assert "occurs twice" in refusal(HEAD + "toolchain: x\nprecision: fp16\n").what
    assert refusal("a: [").what.startswith("r.yaml:")
    assert "alias contains itself" in refusal("a: &x [*x]\n").what


def test_nested_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    assert "too many keys" in refusal("\n".join(lines)).what


def test_digests() -> None:
    digest = digest_bytes(b"")
    assert Digest.parse(str(digest)) == digest
    for bad in ("", "sha256:", "sha256:" + "A" * 64, "md5:" + "0" * 64, str(digest) + "\n"):
        with pytest.raises(DigestFormatError):
            Digest.parse(bad)


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(1, 2), st.binary(max_size=3)), min_size=2, max_size=2))
def test_different_requests_have_different_keys(requests: list[tuple[str, int, bytes]]) -> None:
    first, second = (step_key(name, version, data, {"x": digest_bytes(data)}, "") for name, version, data in requests)
    assert (first == second) == (requests[0] == requests[1])


def test_golden_step_key() -> None:
    """A changed key function would silently redo the work of every workspace in the field."""
    key = step_key("compile", 1, b"{}", {"model": digest_bytes(b"m")}, "iree 3")
    assert key.hex == "ef02b58f572785eaf5c94d0deb98753a8a15da263e739233c48c4b2139fb16c3"
