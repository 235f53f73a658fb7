"""Evidence that was made elsewhere and lies in a file, such as the weekly run of a hardware-in-the-loop rig."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from nwmctl.domain.judge import JudgeRequest
from nwmctl.errors import JudgeUnreachableError
from nwmctl.trust.judgements import MAX_ENVELOPE
from nwmctl.validation.judges.protocol import Material

_PLACEHOLDER = re.compile(r"\{(model|artifact|platform|variant|build)\}")


@dataclass(frozen=True, slots=True)
class FileJudge:
    """Reads an envelope. ``path`` may hold the placeholders of ``JudgeSource``; relative ones start at ``base``."""

    name: str
    path: str
    base: Path

    def fingerprint(self) -> str:
        """Names and bytes of every file that the path may mean: one that arrives later is a new answer."""
        state = hashlib.sha256()
        for path in self._possible():
            state.update(str(path).encode("utf-8", "surrogateescape") + b"\0")
            with contextlib.suppress(OSError):
                state.update(_read(self.base / path) if (self.base / path).is_file() else b"")
        return state.hexdigest()

    def _possible(self) -> list[Path]:
        """The files that the path may mean, relative to ``base`` where it is relative."""
        pattern = _PLACEHOLDER.sub("*", glob.escape(self.path))
        return sorted(Path(found) for found in glob.glob(pattern, root_dir=self.base))

    def ask(self, request: JudgeRequest, material: Material) -> bytes:
        """See ``Judge.ask``. Raises JudgeUnreachableError."""
        case = request.case
        variant, _, build = case.build.partition("/")
        values = {
            "model": case.model.short,
            "artifact": case.artifact.short,
            "platform": case.platform,
            "variant": variant,
            "build": build,
        }
        place = _PLACEHOLDER.sub(lambda found: values[found[1]], self.path)
        try:
            if not (self.base / place).is_file():  # a pipe would never end
                raise FileNotFoundError(2, "no file lies there")
            return _read(self.base / place)
        except OSError as problem:
            raise JudgeUnreachableError(
                f"there is no evidence at '{place}'",
                why=problem.strerror or str(problem),
                next=f"have '{self.name}' answer what `nwmctl judge request` asks, and put its answer there",
            ) from problem


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_ENVELOPE + 1)
