"""What arithmetic this machine's processor has, out of what the kernel says about it.

Decides which number formats a runtime of this machine can be asked for. A processor that cannot be read counts as one
without any extension: then a format is refused that might have worked, and none is promised that does not.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from nwmctl.domain.artifact import Precision

_SAID = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 10, "M": 20}
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_FP16 = frozenset({"avx512_fp16", "amx_fp16", "fphp"})
_DOTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp"})
_NAMED = ("avx2", "avx512f", "neon", "asimd")


@lru_cache(maxsize=1)
def processor() -> frozenset[str]:
    """The extensions of the first core, by the kernel's names; none where the kernel does not say."""
    try:
        return extensions(_SAID.read_text("utf-8"))
    except OSError:
        return frozenset()


@lru_cache(maxsize=1)
def cache_bytes() -> int | None:
    """The largest cache of the first core; None where the kernel does not say."""
    sizes = []
    for path in _CACHES.glob("index*/size"):
        told = path.read_text("utf-8").strip()
        if told[:-1].isdigit() and told[-1] in _UNITS:
            sizes.append(int(told[:-1]) << _UNITS[told[-1]])
    return max(sizes, default=None)


def extensions(cpuinfo: str) -> frozenset[str]:
    """The extensions of the first core in the text of ``/proc/cpuinfo``."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def computes(precision: Precision, has: frozenset[str]) -> bool:
    """Whether arithmetic in this format is the processor's own (fp32 and int8 always are, in some way)."""
    match precision:
        case Precision.BF16:
            return bool(has & _BF16)
        case Precision.FP16:
            return bool(has & _FP16)
        case _:
            return True


def has_dot_products(has: frozenset[str]) -> bool:
    """Whether four products of bytes are added in 32 bits at once (VNNI, sdot). Without, x86 adds two in 16 bits,
    which saturates with 8-bit weights, and integers are at most twice as fast as fp32."""
    return bool(has & _DOTS)


def named(has: frozenset[str]) -> str:
    """The extensions that decide what a runtime executes, for a manifest or a fingerprint."""
    kept = sorted(has & (_BF16 | _FP16 | _DOTS | frozenset(_NAMED)))
    return " ".join(kept) or "no known extension"
