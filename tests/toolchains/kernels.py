"""Small PTX kernels, each around one known instruction, for tests that have ptxas assemble them."""

from __future__ import annotations

from collections.abc import Mapping

_HEAD = ".version 8.0\n.target {chip}\n.address_size 64\n.shared .align 16 .b8 room[4096];\n"
_WORDS, _RESULTS, _DOUBLES = 14, 8, 4


def source(bodies: Mapping[str, str], chip: str = "sm_87") -> str:
    """PTX text with a kernel for each body, by name."""
    return _HEAD.format(chip=chip) + "".join(_kernel(name, body) for name, body in bodies.items())


def _kernel(name: str, body: str) -> str:
    """A kernel that loads %r0.. (32 bits) and %d0.. (64 bits), runs ``body``, and stores %o0.. and %e0..: nothing that
    the body computes can be left out."""
    loads = [f"ld.global.b32 %r{i},[%p+{4 * i}];" for i in range(_WORDS)]
    loads += [f"ld.global.b64 %d{i},[%p+{64 + 8 * i}];" for i in range(_DOUBLES)]
    copies = [f"mov.b32 %o{i},%r{i};" for i in range(_RESULTS)] + [f"mov.b64 %e{i},%d{i};" for i in range(_DOUBLES)]
    stores = [f"st.global.b32 [%q+{4 * i}],%o{i};" for i in range(_RESULTS)]
    stores += [f"st.global.b64 [%q+{64 + 8 * i}],%e{i};" for i in range(_DOUBLES)]
    lines = [
        f".visible .entry {name}(.param .u64 a,.param .u64 b){{",
        f".reg .b64 %p,%q,%d<{_DOUBLES}>,%e<{_DOUBLES}>;",
        f".reg .b32 %r<{_WORDS}>,%o<{_RESULTS}>;",
        ".reg .b16 %h<8>;",
        ".reg .pred %c<4>;",
        "ld.param.u64 %p,[a];ld.param.u64 %q,[b];",
        *loads,
        *copies,
        body,
        *stores,
        "ret;}",
    ]
    return "\n".join(lines) + "\n"


def mma(kind: str, a: int, b: int, c: int) -> str:
    """One tensor-core instruction; the counts are registers of the operands (result and sum have ``c``)."""
    sets = (("o", 0, c), ("r", 0, a), ("r", 4, b), ("r", 6, c))
    operands = ",".join("{" + ",".join(f"%{kind}{at + i}" for i in range(n)) + "}" for kind, at, n in sets)
    return f"mma.sync.aligned.{kind} {operands};"


HALVES = "mov.b32 {%h0,%h1},%r0;mov.b32 {%h2,%h3},%r1;"
TENSOR = {
    "HMMA.16816.F32": mma("m16n8k16.row.col.f32.f16.f16.f32", 4, 2, 4),
    "HMMA.16816.F16": mma("m16n8k16.row.col.f16.f16.f16.f16", 4, 2, 2),
    "HMMA.1688.F32": mma("m16n8k8.row.col.f32.f16.f16.f32", 2, 1, 4),
    "HMMA.1688.F16": mma("m16n8k8.row.col.f16.f16.f16.f16", 2, 1, 2),
    "HMMA.16816.F32.BF16": mma("m16n8k16.row.col.f32.bf16.bf16.f32", 4, 2, 4),
    "HMMA.1688.F32.BF16": mma("m16n8k8.row.col.f32.bf16.bf16.f32", 2, 1, 4),
    "HMMA.1688.F32.TF32": mma("m16n8k8.row.col.f32.tf32.tf32.f32", 4, 2, 4),
    "HMMA.1684.F32.TF32": mma("m16n8k4.row.col.f32.tf32.tf32.f32", 2, 1, 4),
    "IMMA.16832.S8.S8": mma("m16n8k32.row.col.s32.s8.s8.s32", 4, 2, 4),
    "IMMA.16832.U8.S8": mma("m16n8k32.row.col.s32.u8.s8.s32", 4, 2, 4),
    "IMMA.16832.S8.U8": mma("m16n8k32.row.col.s32.s8.u8.s32", 4, 2, 4),
    "IMMA.16832.U8.U8": mma("m16n8k32.row.col.s32.u8.u8.s32", 4, 2, 4),
    "IMMA.16816.S8.S8": mma("m16n8k16.row.col.s32.s8.s8.s32", 2, 1, 4),
    "IMMA.8816.S8.S8": mma("m8n8k16.row.col.s32.s8.s8.s32", 1, 1, 2),
}
"""Every tensor-core instruction that says something about a precision, by the name that an inspection gives it."""

FOREIGN = {
    "IMMA.?.S4.S4": mma("m16n8k64.row.col.s32.s4.s4.s32", 4, 2, 4),
    "BMMA": mma("m16n8k256.row.col.s32.b1.b1.s32.and.popc", 4, 2, 4),
    "DMMA": "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%e0,%e1},{%d0},{%d1},{%d2,%d3};",
}
"""Tensor-core instructions of precisions that no recipe asks for."""

PLAIN = {
    "FFMA": "fma.rn.f32 %o0,%r0,%r1,%r2;",
    "HFMA2": "fma.rn.f16x2 %o0,%r0,%r1,%r2;",
    "HMUL2": "mul.rn.f16x2 %o0,%r0,%r1;mul.rn.f16x2 %o1,%r2,%r3;",
    "HFMA2.BF16": "fma.rn.bf16x2 %o0,%r0,%r1,%r2;",
    "DFMA": "fma.rn.f64 %e0,%d0,%d1,%d2;",
    "IDP.4A": "dp4a.s32.s32 %o0,%r0,%r1,%r2;",
    "IDP.2A": "dp2a.lo.s32.s32 %o0,%r0,%r1,%r2;",
    "IMAD": "mad.lo.s32 %o0,%r0,%r1,%r2;",
    "HADD2.F32": "{" + HALVES + "cvt.f32.f16 %o0,%h0;}",
    "LDGSTS": "cp.async.cg.shared.global [room],[%p],16;cp.async.wait_all;bar.sync 0;ld.shared.b32 %o0,[room+64];",
    "LDSM": "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%o0,%o1,%o2,%o3},[room];",
    "MUFU": "ex2.approx.f32 %o0,%r0;",
    "FADD": "add.rn.f32 %o0,%r0,%r1;",
    "FMUL": "mul.rn.f32 %o0,%r0,%r1;",
    "BAR": "bar.sync 0;",
}
"""One ordinary instruction each."""
