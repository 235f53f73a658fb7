"""What every judge is: something that is asked about one artifact and answers with a signed envelope.

A judge that cannot be asked raises; one that answers is believed by nobody here: what its envelope is worth is decided
by ``trust.judgements``. The same question gives the same bytes, unless the judge itself says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nwmctl.domain.judge import JudgeRequest
from nwmctl.formats import documents

REQUEST, CARD, WEIGHTS, MANIFEST, PAYLOAD = (
    "request.json",
    "model-card.json",
    "model.onnx",
    "artifact.json",
    "artifact.bin",
)
"""The files that a judge is given, in its folder."""
ANSWER = "evidence.json"
"""The file that it leaves there: a DSSE envelope."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is judged, as files: model card, weights (ONNX), artifact manifest, and the artifact's own bytes."""

    card: Path
    weights: Path
    manifest: Path
    payload: Path

    @property
    def files(self) -> dict[str, Path]:
        """Every file under the name that a judge finds it by."""
        return {CARD: self.card, WEIGHTS: self.weights, MANIFEST: self.manifest, PAYLOAD: self.payload}


class Judge(Protocol):
    """Somebody who judges artifacts."""

    def fingerprint(self) -> str:
        """What decides the answer besides the question, as far as it can be seen from here."""
        ...

    def ask(self, request: JudgeRequest, material: Material) -> bytes:
        """The answer's envelope, unverified, at most one byte longer than what is read of it.

        Raises JudgeUnreachableError, JudgeTimeoutError, JudgeFailedError, and what a connection raises.
        """
        ...


def question(request: JudgeRequest) -> bytes:
    """The request as the judge finds it in ``request.json``."""
    return documents.encode(request)
