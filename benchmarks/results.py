"""The file of results: one section for each benchmark, each rewritten by its own command and by no other."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def write_section(title: str, command: str, text: str, path: Path = RESULTS) -> None:
    """Put a section into the results, in place of the one of that title."""
    old = path.read_text() if path.exists() else "# Results\n\nEach section names its command.\n"
    head, _, rest = old.partition(f"\n## {title}\n")
    after = rest.partition("\n## ")[2]
    tail = f"\n## {after.rstrip()}\n" if after else ""
    path.write_text(f"{head.rstrip()}\n\n## {title}\n`{command}`\n\n{text.strip()}\n{tail}")
