"""The live view: drawing and printing from several threads never wait for one another."""

from __future__ import annotations

import io
import threading

from rich.console import Console

from nwmctl.cli.live import LiveView
from nwmctl.domain.event import StepFailed, StepFinished, StepStarted
from nwmctl.domain.step import PlannedStep, StepState
from tests.fakes import FakeClock, some_digest


def test_many_threads_and_a_refresher_come_to_an_end() -> None:
    plan = [PlannedStep(f"compile/{n}", "compile", {}, {}, "") for n in range(8)]
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=200)
    key = some_digest("key")
    with LiveView(console, plan, "t", 7200.0, FakeClock()) as view:

        def work(step: str) -> None:
            for attempt in range(60):
                view.event(StepStarted(0, step, attempt, key))
                view.progress(step, "half", 0.5)
                view.event(StepFinished(0, step, attempt, key, StepState.DONE, 0.1, {}, {"size": 1000}, "a concern"))
                view.event(StepFailed(0, step, attempt, "X", "what [bold]", "why", "next"))

        threads = [threading.Thread(target=work, args=(step.id,), daemon=True) for step in plan]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads), "the view waits for itself"
    assert output.getvalue().count("a concern") == 60 * len(plan), "a line was lost"
