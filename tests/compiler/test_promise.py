"""What a recipe promises at the least, in the words of every inspection."""

from __future__ import annotations

import dataclasses

import pytest

from nwmctl.compiler.promise import broken_promise
from nwmctl.domain.artifact import ArtifactManifest, Option, Precision, Recipe, RuntimeNeeds
from tests.fakes import some_digest

FP32, FP16, BF16, INT8 = Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8


def manifest(asked: Precision, found: dict[str, int], says: Precision = FP32, **options: Option) -> ArtifactManifest:
    return ArtifactManifest(
        some_digest("card"), Recipe("tool", asked, dict(options)), some_digest("payload"), 1000, "engine", (), "1",
        "chip", found, says, RuntimeNeeds("run", "1"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (FP16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
        (FP16, "fma.rn.f16x2"),
        (FP16, "HMMA.16816.F32"),
        (FP16, "fmla.8h"),
        (FP16, "fmlal2"),
        (FP16, "MatMul.float16"),
        (FP16, "reported.fp16"),
        (BF16, "bfmmla"),
        (BF16, "bfdot"),
        (BF16, "vdpbf16ps"),
        (BF16, "MatMul.bfloat16"),
        (INT8, "sdot"),
        (INT8, "smmla"),
        (INT8, "smlal"),
        (INT8, "dp4a.s32.s32"),
        (INT8, "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"),
        (INT8, "IMMA.16832.S8.S8"),
        (INT8, "vpdpbusd"),
        (INT8, "vpmaddwd"),
        (INT8, "FullyConnected.i8"),
        (INT8, "MatMul.u8"),
        (FP16, "MatMul.f16"),
        (BF16, "MatMul.bf16"),
        (INT8, "MatMulInteger"),
        (INT8, "QLinearMatMul"),
        (INT8, "MatMul.int8"),
        (INT8, "reported.int8"),
    ],
)
def test_a_little_of_it_keeps_the_promise(asked: Precision, name: str) -> None:
    assert broken_promise(manifest(asked, {"fma.rn.f32": 9000, name: 1}), 0) == ""
    assert broken_promise(manifest(asked, {"fma.rn.f32": 9000, name: 0}), 0) != ""


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (FP16, "bfmmla"),
        (FP16, "MatMul.bfloat16"),
        (FP16, "fma.rn.bf16x2"),
        (INT8, "bfdot"),
        (INT8, "bfmmla"),
        (BF16, "fmla.8h"),
        (BF16, "sdot"),
        (INT8, "fmla.4s"),
        (FP16, "MatMul.float32"),
    ],
)
def test_another_format_does_not_keep_it(asked: Precision, name: str) -> None:
    assert f"{asked} is asked for" in broken_promise(manifest(asked, {name: 100, "instructions": 5000}), 0)


def test_fp32_promises_nothing_that_could_be_missing() -> None:
    assert broken_promise(manifest(FP32, {"sdot": 3}, INT8), 0) == ""


def test_what_was_not_read_is_not_judged() -> None:
    assert broken_promise(manifest(INT8, {}), 0) == ""


def test_what_the_inspection_says_about_the_whole_counts() -> None:
    assert broken_promise(manifest(INT8, {"odd.name": 7}, INT8), 0) == ""


def test_int8_weights_make_a_payload_small() -> None:
    large = dataclasses.replace(manifest(INT8, {"fmla.4s": 5}, quantisation="weights"), size=90 << 20)
    assert "int8 weights are asked for" in broken_promise(large, 100 << 20)
    assert broken_promise(dataclasses.replace(large, size=30 << 20), 100 << 20) == ""
    assert broken_promise(dataclasses.replace(large, size=90 << 10), 100 << 10) == "", "a small model is mostly code"
