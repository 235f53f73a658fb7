"""From a release's entry to the judge that it means."""

from __future__ import annotations

from pathlib import Path

from nwmctl.domain.judge import JudgeSource
from nwmctl.validation.judges.command import CommandJudge
from nwmctl.validation.judges.file import FileJudge
from nwmctl.validation.judges.protocol import Judge
from nwmctl.validation.judges.ssh import SshJudge


def outside_judge(source: JudgeSource, base: Path) -> Judge:
    """The judge behind an entry with ``file`` or ``command``; relative paths start at ``base``."""
    if source.ssh:
        return SshJudge(
            source.name,
            source.ssh,
            source.host_key,
            base / Path(source.identity).expanduser(),
            source.command,
            source.timeout_s,
            source.memory_mb,
        )
    if source.command:
        return CommandJudge(source.name, source.command, base, source.timeout_s, source.memory_mb)
    if not source.file:
        raise ValueError("a drive log is replayed, nobody is asked about it")
    return FileJudge(source.name, source.file, base)
