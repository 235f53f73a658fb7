"""A drill's report as a page for people (Markdown): the matrix first, then each attack with the clients' own words."""

from __future__ import annotations

from nwmctl.domain.drill import Cell, Client, DrillReport, Outcome, Threat

MARKS = {
    Outcome.REFUSED: "refused",
    Outcome.UNHARMED: "unharmed",
    Outcome.EXPOSED: "**exposed**",
    Outcome.NOT_APPLICABLE: "–",
    Outcome.NOT_RUN: "not run",
}


def page(report: DrillReport, key: str) -> str:
    """The whole page; ``key`` is the public key that signed the report."""
    cells = {(cell.attack, cell.client): cell for cell in report.cells}
    clients = [party.client for party in report.counterparties]
    lines = ["# Attack drill", "", f"nwmctl {report.nwmctl}; signed by `{key}`."]
    if report.development:
        lines.append("The key was made for trying out: the signature protects nothing.")
    lines += ["", "| client | version |", "|---|---|"]
    lines += [f"| {party.client} | {party.version or 'not run: ' + party.missing} |" for party in report.counterparties]
    lines += ["", f"| attack | {' | '.join(clients)} |", "|---|" + "---|" * len(clients)]
    for threat in report.threats:
        marks = [MARKS[cells[threat.name, client].outcome] for client in clients]
        lines.append(f"| {threat.title} | {' | '.join(marks)} |")
    lines += ["", *_counts(report, clients), ""]
    for threat in report.threats:
        lines += _details(threat, [cells[threat.name, client] for client in clients])
    return "\n".join(lines) + "\n"


def _counts(report: DrillReport, clients: list[Client]) -> list[str]:
    lines = []
    for client in clients:
        own = [cell.outcome for cell in report.cells if cell.client is client]
        told = [f"{own.count(outcome)} {outcome.replace('_', ' ')}" for outcome in Outcome if outcome in own]
        lines.append(f"- {client}: {', '.join(told)}")
    return lines


def _details(threat: Threat, cells: list[Cell]) -> list[str]:
    lines = [f"## {threat.title}", "", f"The attacker has {threat.holds}, and {threat.does}."]
    lines += [f"Stopped by: {threat.stopped_by}.", f"A client without that {threat.harm}.", ""]
    for cell in cells:
        words = cell.words.replace("\n", " ").replace("|", "\\|")
        error = f" `{cell.error}`" if cell.error else ""
        lines.append(f"- {cell.client}: {MARKS[cell.outcome]}{error}: {words}")
    return [*lines, ""]
