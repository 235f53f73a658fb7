"""A campaign that would bring a release to a market without an approval is refused, whoever asks for it and however."""

from __future__ import annotations

import pytest

from nwmctl.errors import ExitCode
from tests.e2e.command import Place, refused


def with_markets(place: Place, *markets: str) -> None:
    """Register the vehicles of the inventory in these markets."""
    head, *lines = place.project.fleet.read_text().split()
    rows = [f"{line},{market}" for line, market in zip(lines, markets, strict=True)]
    place.project.fleet.write_text("\n".join([f"{head},market", *rows, ""]))


def test_a_market_without_an_approval_refuses_the_rollout(published: Place) -> None:
    with_markets(published, "CN", "DE", "DE")
    ran = published.run("rollout", "start", published.project.release, "--no-follow", "--json")
    told = refused(ran, "MarketNotApprovedError", ExitCode.REFUSED)
    assert told["what"] == "release 'tiny-2' has no approval for DE"
    assert told["why"] == "the fleet 'yard' has vehicles in DE (2 vehicles); the release names CN"
    assert "under 'markets:'" in told["next"]
    for_people = published.run("rollout", "start", published.project.release, "--no-follow")
    assert (for_people.code, for_people.out) == (ExitCode.REFUSED, "")
    assert "has no approval for DE" in for_people.err
    status = published.run("rollout", "status", "--json")
    assert status.code != 0 or not status.json.get("states"), "nothing was assigned to anybody"


@pytest.mark.long
def test_with_approvals_for_all_of_its_markets_it_goes_out(published: Place) -> None:
    with_markets(published, "CN", "CN", "CN")
    done = published.run("rollout", "start", published.project.release, "--json").ok().json
    assert done["states"] == {"committed": 3}
