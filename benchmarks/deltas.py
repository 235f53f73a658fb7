"""Deltas of fine-tuned weights against peers and against a bound, on one real model in five precisions.

``python -m benchmarks.deltas --folder DIR`` trains what is not there yet, measures what was not measured yet and prints
the table; ``--write`` puts it into RESULTS-trust.md. Findings are kept in the folder one by one, so an interrupted run
goes on; ``--quick`` leaves the peers out that take minutes for each pair; what was not measured is ``not_run``.
Sizes do not depend on the machine; speeds are bytes of the new file for each CPU-second (ours on fp16: best of three).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.delta_bound import bound_bytes
from benchmarks.delta_pairs import BASE, COURSES, Kind, Tune, scales_of, store, trained
from benchmarks.delta_peers import BYTE_LEVEL, OURS, PEERS, QUICK, Measured, measure
from benchmarks.results import write_section

RESULTS = Path(__file__).with_name("RESULTS-trust.md")
NEAR, LIGHT, MEDIUM = 1.05, 1.2, 1.15
ENCODE, DECODE = 100.0, 200.0
WHOLE = "bound with low bits whole"
Found = dict[str, dict[str, Measured]]


def files(folder: Path, kind: Kind, tune: Tune) -> tuple[Path, Path]:
    """The old and the new artifact of a pair."""
    model, weights = trained(folder)
    base = weights["base"]
    old_scales = scales_of(base)
    old, new = (folder / f"{kind}-{name}.onnx".replace(" ", "-") for name in ("base", tune.value))
    if not old.exists():
        store(model, base, kind, old_scales, old)
    if not new.exists():
        own = old_scales if kind is Kind.INT8_SAME else scales_of(weights[tune])
        store(model, weights[tune], kind, own, new)
    return old, new


def run(folder: Path, peers: Sequence[str], pairs: str, limit_s: int, again: bool) -> None:
    """Measure what was not measured yet."""
    kept = folder / "findings.json"
    for tune in Tune:
        for kind in Kind:
            if pairs not in f"{kind} {tune}":
                continue
            old, new = files(folder, kind, tune)
            for peer in ("bound", WHOLE, *peers):
                name = f"{kind} {tune}"
                if peer in _known(kept).get(name, {}) and not (again and peer == OURS):
                    continue
                found: object
                if peer in ("bound", WHOLE):
                    found = bound_bytes(old, new, low_bits_whole=peer == WHOLE)
                else:
                    times = 3 if peer == OURS and kind is Kind.FP16 else 1
                    with tempfile.TemporaryDirectory(dir=folder) as scratch:
                        found = asdict(measure(peer, old, new, kind.value, Path(scratch), limit_s, times))
                print(f"{name} {peer}: {found}", flush=True)
                # Read again: another process may measure other peers meanwhile.
                known = _known(kept)
                known.setdefault(name, {"new": new.stat().st_size})[peer] = found
                kept.write_text(json.dumps(known, indent=1))


def _known(kept: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(kept.read_text()) if kept.exists() else {}
    return found


def render(folder: Path) -> str:
    """The section."""
    known = _known(folder / "findings.json")
    courses = "; ".join(f"{tune}: {c.steps} steps at {c.rate:g}, seed {c.seed}" for tune, c in COURSES.items())
    about = (
        f"A driving transformer of 22.7 million parameters, trained from generated weights ({BASE.steps} steps of "
        f"AdamW at {BASE.rate:g}, seed {BASE.seed}), then tuned on drives with other habits ({courses}), stored as "
        "ONNX files. Size: share of the new file. **Bound**: order-0 entropy of the ordered-integer difference given "
        "the old exponent, without tables: an estimate, computed here; as counted, and with low bits whole (values of "
        "32 bits hardly repeat, so that their counted entropy is too low: see `delta_bound.py`). Ours goes below "
        "where the biases of columns and rows, a better model, gain more than coding costs. Best byte-level peer: of "
        "those that came to an end; in brackets how many times smaller ours is. `not_run`: not measured for this pair."
    )
    others = " | ".join(peer for peer in PEERS if peer != OURS)
    lines = [
        about,
        "",
        f"| pair | bound | low bits whole | ours | ours/bound | ours/whole | {others} | best byte-level peer |",
        "|---" * (len(PEERS) + 6) + "|",
    ]
    for name, found in known.items():
        lines.append(_row(name, found))
    lines += ["", *_speeds(known), "", *_goals(known), ""]
    system = f"{platform.machine()}, Python {platform.python_version()}"
    lines.append(f"{datetime.now(UTC):%Y-%m-%d}, measured on a shared machine ({system}); CPU time, one thread.")
    return "\n".join(lines)


def _row(name: str, found: dict[str, object]) -> str:
    new, bound, ours = _number(found["new"]), _number(found["bound"]), _size(found, OURS)
    whole = found.get(WHOLE)
    cells = []
    for peer in PEERS:
        if peer != OURS:
            size = _size(found, peer)
            cells.append(_note(found, peer) if size is None else f"{size / new:.1%}")
    best = _best(found)
    told = "-" if best is None or ours is None else f"{best[0]} ({best[1] / ours:.2f})"
    mine = ["-", "-", "-"]
    if ours is not None:
        mine = [
            f"**{ours / new:.2%}**",
            f"{ours / bound:.3f}",
            "-" if whole is None else f"{ours / _number(whole):.3f}",
        ]
    bounds = [f"{bound / new:.2%}", "not_run" if whole is None else f"{_number(whole) / new:.2%}"]
    return f"| {name} | {' | '.join([*bounds, *mine, *cells])} | {told} |"


def _speeds(known: dict[str, dict[str, object]]) -> list[str]:
    lines = ["MB of the new file for each CPU-second, encode / decode:", ""]
    lines += [f"| pair | {' | '.join(PEERS)} |", "|---" * (len(PEERS) + 1) + "|"]
    for name, found in known.items():
        cells = []
        for peer in PEERS:
            one = found.get(peer)
            rates = [_rate(found, peer, way) for way in ("encode_s", "decode_s")] if one else []
            cells.append(" / ".join("-" if rate is None else f"{rate:.3g}" for rate in rates) or "not_run")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _goals(known: dict[str, dict[str, object]]) -> list[str]:
    lines = ["Goals:"]
    for bound, told in (("bound", "bound as counted"), (WHOLE, WHOLE)):
        held = {name: found for name, found in known.items() if bound in found}
        far = [n for n, f in held.items() if (ours := _size(f, OURS)) is None or ours > NEAR * _number(f[bound])]
        lines.append(_judged(f"at most {NEAR} x the {told} on every pair", far, len(held)))
    for tune, factor in ((Tune.LIGHT, LIGHT), (Tune.MEDIUM, MEDIUM)):
        mine = {n: f for n, f in known.items() if n.endswith(f" {tune}")}
        short = [n for n, f in mine.items() if _best(f) is not None and not _beats(f, factor)]
        unknown = [n for n, f in mine.items() if n not in short and any(p not in f for p in BYTE_LEVEL)]
        goal = f"{factor} x smaller than the best byte-level peer, {tune} fine-tunes"
        lines.append(_judged(goal, short, len(mine), unknown))
    for way, least in (("encode_s", ENCODE), ("decode_s", DECODE)):
        rates = {n: _rate(f, OURS, way) for n, f in known.items() if n.startswith("fp16 ")}
        slow = [f"{n} ({rate:.0f})" for n, rate in rates.items() if rate is not None and rate < least]
        lines.append(
            _judged(f"{way.removesuffix('_s')} at least {least:g} MB for each CPU-second, fp16", slow, len(rates))
        )
    return lines


def _judged(goal: str, failed: Sequence[str], among: int, unknown: Sequence[str] = ()) -> str:
    if not among:
        return f"- {goal}: not_run"
    said = "**reached**" if not failed else f"**missed** on {', '.join(failed)}"
    if unknown and not failed:
        said = "**open**: so far on every pair"
    return f"- {goal}: {said}" + (f"; some peers were not measured on {', '.join(unknown)}" if unknown else "")


def _beats(found: dict[str, object], factor: float) -> bool:
    best, ours = _best(found), _size(found, OURS)
    return best is not None and ours is not None and best[1] >= factor * ours


def _best(found: dict[str, object]) -> tuple[str, float] | None:
    sizes = [(size, peer) for peer in BYTE_LEVEL if (size := _size(found, peer)) is not None]
    return (min(sizes)[1], min(sizes)[0]) if sizes else None


def _size(found: dict[str, object], peer: str) -> float | None:
    one = found.get(peer)
    size = one.get("size") if isinstance(one, dict) else None
    return None if size is None else float(size)


def _rate(found: dict[str, object], peer: str, way: str) -> float | None:
    one = found.get(peer)
    seconds = one.get(way) if isinstance(one, dict) else None
    return None if not seconds else _number(found["new"]) / 1e6 / float(seconds)


def _note(found: dict[str, object], peer: str) -> str:
    one = found.get(peer)
    return str(one.get("note")) if isinstance(one, dict) else "not_run"


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where weights, artifacts and findings are kept")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--limit", type=int, default=120, help="CPU-seconds for each run of a peer")
    parser.add_argument("--again", action="store_true", help="measure our own codec anew")
    parser.add_argument("--only", default="", help="a text that a peer's name holds")
    parser.add_argument("--pairs", default="", help="a text that a pair's name holds, as 'fp16 light'")
    parser.add_argument("--write", action="store_true", help=f"put the section into {RESULTS.name}")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    peers = [peer for peer in (QUICK if asked.quick else PEERS) if asked.only in peer]
    run(asked.folder, peers, asked.pairs, asked.limit, asked.again)
    text = render(asked.folder)
    print(text)
    if asked.write:
        write_section("Deltas of fine-tuned weights", "python -m benchmarks.deltas --folder DIR --write", text, RESULTS)


if __name__ == "__main__":
    main()
