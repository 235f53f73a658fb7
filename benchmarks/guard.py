"""What the trajectory guard does for good and for broken artifacts: ``python -m benchmarks.guard``.

Drives the example models, and broken artifacts that the battery builds from the released one, with and without the
guard on the same scenarios, and prints a Markdown table. ``--seed`` and ``--scenarios`` choose the scenarios; the
guard's constants were chosen on the seeds 6,100,000 to 6,100,049 and on no others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from benchmarks.battery.broken_inputs import kilometres_per_hour
from benchmarks.battery.broken_outputs import bias, sign_swapped, weak_brakes
from benchmarks.battery.broken_weights import feed_forward_zeroed
from benchmarks.battery.shop import Artifact, open_artifact, shop
from nwmctl.app.drives import policy_of
from nwmctl.driving import episode, metrics
from nwmctl.driving.guarded import run_guarded
from nwmctl.driving.scenarios import paired

KINDS: dict[str, Callable[[], Artifact]] = {
    "nwm-2.5": lambda: Artifact(shop().base.bytes()),
    "nwm-2.0": lambda: Artifact(shop().previous.bytes()),
    "steer sign swapped": lambda: sign_swapped(shop(), np.random.default_rng(0)),
    "a feed-forward layer zeroed": lambda: feed_forward_zeroed(shop(), np.random.default_rng(0)),
    "weak brakes": lambda: weak_brakes(shop(), np.random.default_rng(0)),
    "km/h as m/s": lambda: kilometres_per_hour(shop(), np.random.default_rng(0)),
    "steer bias 0.02 rad": lambda: bias(0, 0.02)(shop(), np.random.default_rng(0)),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=6_700_000)
    parser.add_argument("--scenarios", type=int, default=250)
    chosen = parser.parse_args()
    ids = paired(chosen.scenarios, chosen.seed)
    print(f"{chosen.scenarios} scenarios from seed {chosen.seed}; without → with the guard\n")
    print("| artifact | crash % | off road % | progress | jerk m/s3 | score | guard per km | scenarios with it % |")
    print("|---|---|---|---|---|---|---|---|")
    for name, build in KINDS.items():
        session = open_artifact(build())
        policy = policy_of(session, shop().card.contract)
        alone = metrics.summarise(episode.run(lambda seen, policy=policy: policy(seen).control, ids))
        outcomes, found = run_guarded(policy, ids)
        with_guard = metrics.summarise(outcomes)
        cells = [
            f"{100 * alone.crash_rate:.1f} → {100 * with_guard.crash_rate:.1f}",
            f"{100 * alone.off_road_rate:.1f} → {100 * with_guard.off_road_rate:.1f}",
            f"{alone.progress:.2f} → {with_guard.progress:.2f}",
            f"{alone.jerk:.2f} → {with_guard.jerk:.2f}",
            f"{alone.score:.3f} → {with_guard.score:.3f}",
            f"{found.per_km():.1f}",
            f"{100 * float(found.episodes.mean()):.0f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
