"""Operators that are not compiled, and the nearest form that is. A table and its look-up; imports no graph library.

What is refused: operators of other vendors' sets, operators whose result has no static shape, control flow, sequences
and chance. What an operator set has since a later version is refused under an older one. A compiler may refuse more.
"""

from __future__ import annotations

from collections.abc import Mapping

_FUSED: Mapping[str, str] = {
    "Attention": "MatMul, Softmax and MatMul with the projections as MatMul and Add",
    "MultiHeadAttention": "MatMul, Softmax and MatMul",
    "GroupQueryAttention": "MatMul, Softmax and MatMul over repeated keys and values",
    "BiasGelu": "Add and Gelu (opset 20)",
    "FastGelu": "Gelu with approximate='tanh' (opset 20)",
    "QuickGelu": "Sigmoid and Mul",
    "Gelu": "the standard Gelu (opset 20), or Div, Erf, Add and Mul",
    "FusedMatMul": "MatMul with Transpose and Mul",
    "FusedConv": "Conv and its activation",
    "FusedGemm": "Gemm and its activation",
    "SkipLayerNormalization": "Add and LayerNormalization (opset 17)",
    "EmbedLayerNormalization": "Gather, Add and LayerNormalization (opset 17)",
    "SimplifiedLayerNormalization": "RMSNormalization (opset 23), or Pow, ReduceMean, Sqrt and Div",
    "SkipSimplifiedLayerNormalization": "Add and RMSNormalization (opset 23)",
    "RotaryEmbedding": "Mul, Add, Slice and Concat with Cos and Sin tables",
    "MatMulNBits": "DequantizeLinear and MatMul",
    "DynamicQuantizeMatMul": "the float MatMul; a recipe's 'quantisation: dynamic' quantises it",
    "MatMulIntegerToFloat": "the float MatMul; a recipe's 'quantisation' quantises it",
    "QLinearAdd": "the float Add",
    "QAttention": "the float attention; a recipe's 'quantisation' quantises it",
    "NhwcConv": "Conv with channels first",
    "Rfft": "DFT (opset 17)",
    "Irfft": "DFT with inverse=1 (opset 17)",
}
_STANDARD: Mapping[str, str] = {
    "NonZero": "a mask and Where, or TopK with a fixed k: its result has as many rows as the data says",
    "Unique": "a fixed list of classes and Equal: its result has as many entries as the data says",
    "Compress": "Where with a mask: its result has as many rows as the data says",
    "NonMaxSuppression": "TopK with a fixed k inside the graph, and the suppression outside of it",
    "If": "both branches and Where; or export with the condition fixed",
    "Loop": "the unrolled body, a fixed number of times",
    "Scan": "the unrolled body, or a recurrence as MatMul with a triangular matrix",
    "RandomNormal": "an input that the caller fills: a driving model must give the same answer twice",
    "RandomNormalLike": "an input that the caller fills: a driving model must give the same answer twice",
    "RandomUniform": "an input that the caller fills: a driving model must give the same answer twice",
    "RandomUniformLike": "an input that the caller fills: a driving model must give the same answer twice",
    "Multinomial": "ArgMax: a driving model must give the same answer twice",
    "Bernoulli": "a threshold: a driving model must give the same answer twice",
    "StringNormalizer": "numbers: text is no input of a control step",
    "StringConcat": "numbers: text is no input of a control step",
    "StringSplit": "numbers: text is no input of a control step",
    "RegexFullMatch": "numbers: text is no input of a control step",
    "TfIdfVectorizer": "numbers: text is no input of a control step",
    "ImageDecoder": "the decoded image as input",
}
_SEQUENCES = "Concat, Split and Gather over tensors: sequences of tensors are not compiled"
_COMPILERS: Mapping[str, str] = {
    "Einsum": "Transpose, Reshape and MatMul",
    "GridSample": "Gather with computed indices and a weighted sum",
    "DeformConv": "GridSample and Conv",
    "RoiAlign": "GridSample over the region's grid",
    "Upsample": "Resize",
    "GRU": "its equations as MatMul, Sigmoid and Tanh, unrolled",
    "LSTM": "its equations as MatMul, Sigmoid and Tanh, unrolled",
    "RNN": "its equations as MatMul and Tanh, unrolled",
    "Col2Im": "ScatterND or ConvTranspose",
    "ScatterND": "Where with a mask, or Concat of slices",
    "ScatterElements": "Where with a mask, or Concat of slices",
    "CumSum": "MatMul with a triangular matrix of ones",
    "Det": "the determinant written out",
    "Gelu": "Div, Erf, Add and Mul (export with opset 17)",
    "LayerNormalization": "ReduceMean, Sub, Mul, Sqrt and Div (export with opset 16)",
    "Attention": "MatMul, Softmax and MatMul (export with opset 22 or older)",
    "RotaryEmbedding": "Mul, Add, Slice and Concat with Cos and Sin tables",
    "RMSNormalization": "Mul, ReduceMean, Sqrt and Div (export with opset 22 or older)",
    "HardSwish": "HardSigmoid and Mul",
    "Mish": "Softplus, Tanh and Mul",
    "Swish": "Sigmoid and Mul",
    "TopK": "ArgMax where k is 1",
}
"""What onnxruntime executes and another compiler may not know."""
_NOTHING = "operators of the standard set, with an export of a newer exporter or by hand"


def refused_everywhere(domain: str, operator: str) -> str:
    """Why no driver gets this operator; '' if the drivers may try."""
    if domain not in ("", "ai.onnx"):
        return f"'{operator}' belongs to the operator set '{domain}', which only its maker's tools know"
    if operator in _STANDARD:
        return f"'{operator}' cannot be compiled ahead of time for every chip"
    if "Sequence" in operator or operator.startswith("Optional"):
        return f"'{operator}' works on sequences and options, not on tensors"
    return ""


def nearest_rewrite(operator: str, domain: str = "") -> str:
    """What to write in place of an operator, as half a sentence: 'write it as ...'. Drivers whose compiler refuses an
    operator use this too."""
    if domain not in ("", "ai.onnx"):
        return f"write it as {_FUSED.get(operator, _NOTHING)}"
    if "Sequence" in operator or operator.startswith("Optional"):
        return f"write it as {_SEQUENCES}"
    return f"write it as {_STANDARD.get(operator) or _COMPILERS.get(operator) or _NOTHING}"
