"""What a recipe promises at the least, held against what was found in the payload. Pure.

Compilers accept a flag, exit 0 and change nothing: the payload is then that of another recipe under this one's name.
So a recipe that asks for a number format, for weights as integers or for machine code must have left some of it in the
payload. *Some* is all that is asked here; whether the code is of the format throughout is the instruction-set check's
to say. Where nothing was read out of a payload, nothing is said.
"""

from __future__ import annotations

import re

from nwmctl.domain.artifact import ArtifactManifest, Precision, Quantisation

_SIGNS = {
    Precision.INT8: re.compile(
        r"int8|\b[isu]8|(?<!bf)dot|(?<!bf)mmla|[su]mlal|imma|dp[24]a|vpdp|vpmadd|Integer|Quantize|QLinear", re.I
    ),
    Precision.FP16: re.compile(r"(?<!b)float16|(?<!b)f16|fp16|\.[48]h|fmlal|hmma|hfma|vcvtph", re.I),
    Precision.BF16: re.compile(r"bf16|bfloat16|^bf|bf16ps", re.I),
}
"""Names of instructions and operators that are of a number format."""
_WEIGHTS_SHARE = 0.75
_HALVES_SHARE = 0.45
"""Half-precision weights alone would be half of the model."""
_LARGE = 4 << 20
"""From so many bytes on weights are most of a payload."""


def broken_promise(manifest: ArtifactManifest, model_bytes: int) -> str:
    """What the recipe asks for and the payload has nothing of; '' where it kept its promise.

    ``model_bytes``: size of the weights as given, fp32.
    """
    recipe = manifest.recipe
    if recipe.options.get("quantisation") == Quantisation.WEIGHTS:
        # The arithmetic stays floating-point; what can be seen is that the weights have become small.
        halves = recipe.options.get("rest") in ("fp16", "bf16") and not recipe.options.get("keep")
        share = _HALVES_SHARE if halves else _WEIGHTS_SHARE
        if model_bytes >= _LARGE and manifest.size > share * model_bytes:
            return f"int8 weights are asked for, and {manifest.size} bytes of payload for {model_bytes} bytes of model"
        return ""
    if not manifest.found or manifest.found_precision is recipe.precision or recipe.precision not in _SIGNS:
        return ""
    if any(count and _SIGNS[recipe.precision].search(name) for name, count in manifest.found.items()):
        return ""
    most = ", ".join(name for name, _ in sorted(manifest.found.items(), key=lambda item: -item[1])[:4])
    return f"{recipe.precision} is asked for, and nothing of it is in the payload, which has {most}"
