"""The picture of a replay: two drives of one scenario side by side, as a self-contained animated SVG.

Left the reference, right the candidate, each seen from above with its own ego in the middle and the other's as a
ghost, so that a difference is seen where it happens; below, what a person compares over time. What is drawn is what
was recorded. This module computes places, motions and texts; the design (layout, colours, light and dark) is in
``templates/replay.svg.j2``. It contains no scripts, fetches nothing, and plays by CSS; where animation is off it
shows the moment that matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from nwmctl.driving import constants as k
from nwmctl.driving.constants import BoolArray, FloatArray
from nwmctl.driving.guard import NONE
from nwmctl.driving.motion import Moving, Timeline
from nwmctl.driving.record import Recording
from nwmctl.driving.streets import Frame, Street, streets

WIDTH, PANEL, GAP = 936, 444, 16
"""User units: the whole, one panel (square), and the space around things."""
_HOLD_S: Final = 2.5
_EGO_DOWN: Final = 0.60
"""Share of the panel's height at which the ego stands."""
_PLANNED: Final = (1, 3, 5, 7, 9)
"""Planned poses that are drawn: every 0.4 s up to 2 s."""
_LINE: Final = 22.0
"""Height of a line of a read-out."""
_CHART_STEP, _CHART_W, _CHART_H = 296.0, 252.0, 84.0
_SECONDS: Final = k.EPISODE_STEPS * k.CONTROL_DT


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two: what it is called, how its figures were obtained, and its drive."""

    name: str
    how: str
    recording: Recording


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart, in its user units. ``end`` is where a failed drive ends, None where it did not fail."""

    who: str
    points: str
    end: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Chart:
    """A quantity over time. ``words`` are what the axis says and where, ``rules`` are horizontal lines."""

    title: str
    x: float
    words: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]
    rules: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]
    """Interventions of the guard: place and whose."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One drive from above. Places in m (up is where the ego heads at the start), ``camera`` moves the world."""

    who: str
    other: str
    x: float
    name: str
    how: str
    camera: Moving
    ego: Moving
    ghost: Moving
    trail: str
    trail_drawn: Moving
    ghost_trail: str
    ghost_drawn: Moving
    agents: tuple[tuple[Moving, bool], ...]
    """Motion of each other vehicle, and whether it is the one that is hit."""
    plan: tuple[Moving, ...]
    guarding: Moving | None
    blind: Moving | None
    mark: tuple[float, float] | None
    marked: Moving | None
    verdict: str
    figures: str
    speeds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the template places."""

    title: str
    trap: str
    note: str
    origin: str
    description: str
    total_s: float
    rules: tuple[str, ...]
    scale: float
    streets: tuple[Street, ...]
    route: str
    panels: tuple[Panel, Panel]
    times: tuple[str, ...]
    reel: Moving
    head: Moving
    charts: tuple[Chart, ...]
    guarded: bool


def scene(title: str, trap: str, note: str, origin: str, reference: Side, candidate: Side) -> Scene:
    """The picture's content; ``note`` and ``origin`` are a line each, below the title and at the foot.

    Both sides must have driven the same scenario.
    """
    sides = (reference, candidate)
    recordings = [side.recording for side in sides]
    frames = max(recording.decisions for recording in recordings) + 1
    timeline = Timeline(frames, k.CONTROL_DT, _HOLD_S, _telling(recordings, frames))
    frame = Frame(float(recordings[0].ego[0, 2]), recordings[0].ego[0, :2])
    tracks = [_in_scene(recording.ego[:, :3], frame) for recording in recordings]
    scenario = recordings[0].scenario
    reach = float(np.clip(2.2 * scenario.cruise + 20.0, 42.0, 80.0))
    panels = tuple(_panel(i, sides, tracks, frame, timeline) for i in (0, 1))
    seen = np.concatenate([track[:, :2] for track in tracks])
    return Scene(
        title=title,
        trap=trap,
        note=note,
        origin=origin,
        description="; ".join(f"{side.name}: {side.recording.verdict}" for side in sides),
        total_s=timeline.total_s,
        scale=PANEL / reach,
        streets=streets(scenario, frame, seen, reach),
        route=frame.line(scenario.route, seen, reach),
        panels=(panels[0], panels[1]),
        times=tuple(f"{i * k.CONTROL_DT:.1f} s" for i in range(frames)),
        reel=timeline.reel(_LINE),
        head=timeline.sweep(np.linspace(0.0, timeline.drive_s / _SECONDS * _CHART_W, frames)),
        charts=_charts(recordings),
        guarded=any(recording.interventions for recording in recordings),
        rules=tuple(timeline.rules),
    )


def render(content: Scene, template: str) -> str:
    """The SVG document. Every text is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    sizes = {
        "width": WIDTH, "panel": PANEL, "gap": GAP, "down": _EGO_DOWN * PANEL, "line": _LINE,
        "chart_w": _CHART_W, "chart_h": _CHART_H,
    }  # fmt: skip
    return environment.from_string(template).render(scene=content, **sizes)


def _telling(recordings: list[Recording], frames: int) -> int:
    """The frame that says most: where the first drive failed, else where the two are farthest apart."""
    ends = [recording.decisions for recording in recordings if recording.crashed or recording.off_road]
    if ends:
        return min(ends)
    apart = _apart(recordings)
    return int(apart.argmax()) if apart.max() > 1.0 else frames // 2


def _apart(recordings: list[Recording]) -> FloatArray:
    """[frames] metres between the two egos at equal times, while both drive."""
    together = min(recording.decisions for recording in recordings) + 1
    one, other = (recording.ego[:together, :2] for recording in recordings)
    return np.asarray(np.hypot(*(one - other).T))


def _in_scene(poses: FloatArray, frame: Frame) -> FloatArray:
    """World poses [T,3] as the picture has them: x right, y down, angle clockwise without jumps."""
    return np.concatenate([frame.points(poses[:, :2]), frame.angles(poses[:, 2])[:, None]], axis=1)


def _panel(index: int, sides: tuple[Side, Side], tracks: list[FloatArray], frame: Frame, timeline: Timeline) -> Panel:
    side, own, other = sides[index], tracks[index], tracks[1 - index]
    recording = side.recording
    failed = recording.crashed or recording.off_road
    frames = timeline.frames
    guarding = np.append(recording.reasons != NONE, False)
    return Panel(
        who=("reference", "candidate")[index],
        other=("candidate", "reference")[index],
        x=GAP + index * (PANEL + GAP),
        name=side.name,
        how=side.how,
        camera=timeline.place(-own[:, :2], 0.02),
        ego=timeline.pose(own, 0.02),
        ghost=timeline.pose(other, 0.02),
        trail=_text(own),
        trail_drawn=timeline.drawn(_share(own)),
        ghost_trail=_text(other),
        ghost_drawn=timeline.drawn(_share(other)),
        agents=_agents(recording, own, frame, timeline),
        plan=tuple(timeline.place(_planned(recording, frame, number), 0.08) for number in _PLANNED),
        guarding=timeline.shown(_padded(guarding, frames)) if guarding.any() else None,
        blind=timeline.shown(_padded(~recording.perceived, frames)) if not recording.perceived.all() else None,
        mark=_mark(recording, frame) if failed else None,
        marked=timeline.shown([i >= recording.decisions for i in range(frames)]) if failed else None,
        verdict=recording.verdict,
        figures=_figures(recording),
        speeds=tuple(f"{recording.ego[min(i, recording.decisions), 3]:.1f} m/s" for i in range(frames)),
    )


def _padded(values: BoolArray, frames: int) -> list[bool]:
    return [bool(values[min(i, len(values) - 1)]) for i in range(frames)]


def _agents(recording: Recording, own: FloatArray, frame: Frame, timeline: Timeline) -> tuple[tuple[Moving, bool], ...]:
    found = []
    for number in range(recording.agents.shape[1]):
        track = _in_scene(recording.agents[:, number, :3], frame)
        if np.hypot(*(track[:, :2] - own[:, :2]).T).min() < k.SIGHT + 20.0:
            found.append((timeline.pose(track), number == recording.hit))
    return tuple(found)


def _planned(recording: Recording, frame: Frame, number: int) -> FloatArray:
    """One pose of the plan over time, [T+1,2]; after the end there is no plan: it lies under the ego."""
    places = np.concatenate([recording.plans[:, number], recording.ego[-1:, :2]])
    return frame.points(places)


def _mark(recording: Recording, frame: Frame) -> tuple[float, float]:
    where = recording.ego[-1, :2]
    if recording.hit is not None:
        where = (where + recording.agents[-1, recording.hit, :2]) / 2.0
    x, y = frame.points(where[None])[0]
    return round(float(x), 2), round(float(y), 2)


def _text(track: FloatArray) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in track[:, :2])


def _share(track: FloatArray) -> FloatArray:
    """[T] share of the whole way that has been made."""
    made = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(track[:, :2], axis=0).T))])
    return np.asarray(made / made[-1] if made[-1] > 0 else made)


def _figures(recording: Recording) -> str:
    found = recording.outcomes
    parts = [
        f"score {found.score[0]:.2f}", f"progress {found.progress[0]:.2f}", f"jerk {found.jerk[0]:.1f} m/s³"
    ]  # fmt: skip
    if recording.interventions:
        parts.append(f"guard {recording.interventions}×")
    return " · ".join(parts)


def _charts(recordings: list[Recording]) -> tuple[Chart, ...]:
    speeds = [recording.ego[:, 3] for recording in recordings]
    offsets = [recording.lateral for recording in recordings]
    apart = _apart(recordings)
    top, far = max(float(max(s.max() for s in speeds)), 5.0), max(float(apart.max()), 2.0)
    aside = max(max(float(np.abs(o).max()) for o in offsets), k.OFF_ROAD) * 1.1
    ticks = tuple(
        (round(_CHART_W * step * k.CONTROL_DT / _SECONDS, 1), who)
        for recording, who in zip(recordings, ("reference", "candidate"), strict=True)
        for step in np.nonzero(recording.reasons != NONE)[0]
    )
    edges = tuple((_height(edge, -aside, aside), word) for edge, word in ((k.OFF_ROAD, "+2.5"), (-k.OFF_ROAD, "−2.5")))
    fastest = ((_height(top, 0.0, top * 1.08), f"{top:.0f}"), (_CHART_H, "0"))
    farthest = ((_height(far, 0.0, far * 1.08), f"{far:.0f}"), (_CHART_H, "0"))
    lines = tuple(place for place, _ in edges)
    return (
        _chart("speed, m/s", 0, recordings, speeds, (0.0, top * 1.08), fastest, (), ticks),
        _chart("beside the route, m (up is left)", 1, recordings, offsets, (-aside, aside), edges, lines),
        _chart("between the two, m", 2, recordings[:1], [apart], (0.0, far * 1.08), farthest),
    )


def _chart(
    title: str,
    column: int,
    recordings: list[Recording],
    values: list[FloatArray],
    span: tuple[float, float],
    words: tuple[tuple[float, str], ...],
    rules: tuple[float, ...] = (),
    ticks: tuple[tuple[float, str], ...] = (),
) -> Chart:
    who = ("reference", "candidate") if len(values) == 2 else ("both",)
    curves = []
    for name, recording, row in zip(who, recordings, values, strict=True):
        across = np.arange(len(row)) * k.CONTROL_DT / _SECONDS * _CHART_W
        down = [_height(float(value), *span) for value in row]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
        failed = name != "both" and (recording.crashed or recording.off_road)
        curves.append(Curve(name, points, (round(float(across[-1]), 1), down[-1]) if failed else None))
    return Chart(title, GAP + column * _CHART_STEP, words, tuple(curves), rules, ticks)


def _height(value: float, low: float, high: float) -> float:
    return round(_CHART_H * (high - value) / (high - low), 1)
