"""The committed learning curves: the picture is drawn from the committed figures, and they say what the README says."""

from __future__ import annotations

import csv

from examples.training import learning


def test_the_committed_picture_is_drawn_from_the_committed_figures() -> None:
    assert (learning.FOLDER / learning.PICTURE).read_text() == learning.draw()


def test_each_stage_scores_above_the_one_before_and_the_last_above_the_expert() -> None:
    with (learning.FOLDER / learning.HELD_OUT).open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    stages = sorted(name for name in rows if name[0].isdigit())
    scores = [float(rows[name]["score"]) for name in stages]
    assert scores == sorted(set(scores))
    assert scores[-1] > float(rows["expert"]["score"])
    assert float(rows[stages[-1]]["failed_high"]) <= 0.10
    assert {row["scenarios"] for row in rows.values()} == {"250"}
