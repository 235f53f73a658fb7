"""What the five families mean is a promise: the released models were trained on these very outcomes.

A changed digest here means another simulator. If that is wanted, raise ``constants.REVISION`` and train again; a
faster way to compute the same thing must leave these lines alone.
"""

from __future__ import annotations

from nwmctl.driving import episode
from nwmctl.driving.scenarios import paired
from tests.driving.test_episode import follower

IDS = paired(60, 6_000_000)


def test_the_experts_outcomes_are_kept() -> None:
    assert episode.run_expert(IDS).digest() == "42e47b030b8b04a15771847124d9eb0803c1ea7dc235c9e20fde0ce780042b5a"


def test_a_plain_followers_outcomes_are_kept() -> None:
    assert episode.run(follower, IDS).digest() == "1b1e7fc8668acd301eafb5c4d1e3683e3b9121169794f4f0b268fd0d59403a20"
