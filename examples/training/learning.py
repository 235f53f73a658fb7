"""Learning curves: ``python -m examples.training.learning [--work DIR]`` writes ``curves/*.csv`` and ``curves/*.svg``.

With ``--work`` the figures are gathered from a training's folder first: the loss of every stage (``losses.csv``), what
every iterate of reinforcement learning scored on the validation scenarios (``reinforce.csv``), and the stages on the
held-out scenarios (``held_out.csv``). The drawing reads these three files only, so the committed picture can be redrawn
from the committed figures. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.training.files import write

FOLDER: Final = Path(__file__).parent / "curves"
LOSSES: Final = "losses.csv"
REINFORCE: Final = "reinforce.csv"
HELD_OUT: Final = "held_out.csv"
PICTURE: Final = "learning.svg"

_COLOURS: Final = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#e45756")
_WIDTH, _HEIGHT = 300, 200
_LEFT, _TOP, _APART = 52, 40, 80

Table = list[dict[str, str]]


def gather(work: Path, folder: Path = FOLDER) -> None:
    """Write the three tables from a finished training's folder."""
    losses = [
        {"stage": path.stem.removeprefix("curve-"), "step": step, "loss": loss}
        for path in sorted(work.glob("curve-*.json"))
        for step, loss in json.loads(path.read_text())["points"]
    ]
    iterates = [
        {"iterate": int(path.stem)}
        | {k.removeprefix("closed_loop_"): v for k, v in json.loads(path.read_text()).items()}
        for path in sorted(work.glob("[0-9]-reinforce/*.json"))
    ]
    compared = json.loads((work / "compared.json").read_text())
    folder.mkdir(exist_ok=True)
    _write(folder / LOSSES, losses)
    _write(folder / REINFORCE, iterates)
    _write(folder / HELD_OUT, compared["rows"])


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({n: round(v, 5) if isinstance(v, float) else v for n, v in row.items()} for row in rows)
    write(path, text.getvalue().encode())


def _read(path: Path) -> Table:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: where it lies, and the ranges of its axes. ``y0`` to ``y1`` upwards."""

    number: int
    title: str
    below: str
    x0: float
    x1: float
    y0: float
    y1: float

    @property
    def left(self) -> float:
        return _LEFT + self.number * (_WIDTH + _APART)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a value in the picture."""
        across = (x - self.x0) / (self.x1 - self.x0)
        up = (min(max(y, self.y0), self.y1) - self.y0) / (self.y1 - self.y0)
        return self.left + across * _WIDTH, _TOP + (1 - up) * _HEIGHT

    def frame(self, marks: int = 4) -> str:
        """Axes, marks and titles."""
        bottom, right = _TOP + _HEIGHT, self.left + _WIDTH
        out = [_text(self.left, _TOP - 18, self.title, weight="bold")]
        out.append(f'<path d="M{self.left} {_TOP}V{bottom}H{right}" fill="none" stroke="#333"/>')
        for i in range(marks + 1):
            y = self.y0 + (self.y1 - self.y0) * i / marks
            _, height = self.at(self.x0, y)
            out.append(f'<path d="M{self.left} {height:.1f}h{_WIDTH}" stroke="#ddd"/>')
            out.append(_text(self.left - 6, height + 4, f"{y:.2f}", anchor="end"))
        out.append(_text(self.left + _WIDTH / 2, bottom + 34, self.below, anchor="middle"))
        return "".join(out)

    def line(self, points: list[tuple[float, float]], colour: str) -> str:
        """A polyline."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">{words}</text>'


def _losses(rows: Table) -> str:
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    last = {stage: max(int(row["step"]) for row in rows if row["stage"] == stage) for stage in stages}
    panel = Panel(0, "training loss (mean of 100 steps)", "step", 0, sum(last.values()), 0.0, 0.5)
    out, before = [panel.frame()], 0
    for i, stage in enumerate(stages):
        points = [(before + int(row["step"]), float(row["loss"])) for row in rows if row["stage"] == stage]
        out.append(panel.line([(float(x), y) for x, y in points], _COLOURS[i]))
        out.append(_text(panel.left + _WIDTH - 90, _TOP + 12 + 14 * i, stage, colour=_COLOURS[i]))
        before += last[stage]
    out.append(_text(panel.left + _WIDTH, _TOP + _HEIGHT + 16, str(before), anchor="end"))
    return "".join(out)


def _iterates(rows: Table) -> str:
    last = int(rows[-1]["iterate"])
    panel = Panel(1, "reinforcement learning, validation scenarios", "iterate", 0, last, 0.0, 0.8)
    out = [panel.frame()]
    for i, name in enumerate(("score", "progress", "crash_rate")):
        out.append(panel.line([(int(row["iterate"]), float(row[name])) for row in rows], _COLOURS[i]))
        x, y = panel.at(last, float(rows[-1][name]))
        out.append(_text(x, y + (14 if name == "score" else -6), name.replace("_", " "), "end", colour=_COLOURS[i]))
    for i in range(0, last + 1, 2):
        out.append(_text(panel.at(i, 0)[0], _TOP + _HEIGHT + 16, str(i), anchor="middle"))
    return "".join(out)


def _stages(rows: Table) -> str:
    shown = [row for row in rows if row["name"] != "idle"]
    panel = Panel(2, f"score on {rows[0]['scenarios']} held-out scenarios, 95 %", "", 0, len(shown), 0.0, 0.8)
    out = [panel.frame()]
    for i, row in enumerate(shown):
        (x, low), (_, high) = panel.at(i + 0.5, float(row["score_low"])), panel.at(i + 0.5, float(row["score_high"]))
        _, middle = panel.at(i + 0.5, float(row["score"]))
        colour = "#333" if row["name"] == "expert" else _COLOURS[i % len(_COLOURS)]
        out.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4" fill="{colour}"/>')
        out.append(_text(x, _TOP + _HEIGHT + (16 if i % 2 == 0 else 32), row["name"], "middle", colour=colour))
    return "".join(out)


def draw(folder: Path = FOLDER) -> str:
    """The picture of the three tables in ``folder``, as SVG."""
    width, height = _LEFT + 3 * (_WIDTH + _APART), _TOP + _HEIGHT + 52
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = _losses(_read(folder / LOSSES)) + _iterates(_read(folder / REINFORCE)) + _stages(_read(folder / HELD_OUT))
    paper = f'<rect width="{width}" height="{height}" fill="white"/>'
    return f'{head} font-family="sans-serif" font-size="11">{paper}{body}</svg>\n'.replace("><", ">\n<")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="a finished training's folder to gather from")
    given = parser.parse_args()
    if given.work:
        gather(given.work)
    write(FOLDER / PICTURE, draw().encode())


if __name__ == "__main__":
    main()
