"""What a full disk is called: the operating system's word for it as one refusal of ours. Writes nothing."""

from __future__ import annotations

import errno

from nwmctl.errors import DiskFullError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def refuse_full_disk(problem: Exception, during: str) -> DiskFullError | None:
    """The refusal, if there was no room for what had to be written; None for any other problem."""
    if not isinstance(problem, OSError) or problem.errno not in FULL:
        return None
    return DiskFullError(
        f"the disk became full during '{during}'",
        why=problem.strerror or str(problem),
        next="free some space and resume the run, or run the command again; what was finished is kept",
    )
