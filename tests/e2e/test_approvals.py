"""A run that lacks nothing but approvals waits for persons, and goes on with them."""

from __future__ import annotations

import re
from pathlib import Path

from nwmctl.domain.keys import KeyRole
from nwmctl.errors import ExitCode
from nwmctl.trust.keys import load_keyring
from tests.e2e.command import Place, refused


def person(place: Place, name: str) -> tuple[Path, str]:
    """A key folder of a person who approves, and its public key."""
    folder = place.folder / name
    place.run("keys", "init", folder, "--role", "approver", "--development").ok()
    return folder, load_keyring(folder).public(KeyRole.APPROVER)


def test_it_waits_names_the_bundles_and_goes_on(place: Place) -> None:
    people = [person(place, name) for name in ("first", "second")]
    keys = [public for _, public in people]
    place.project.edit_release(lambda release: release["trust"].update(approver_keys=keys))
    place.project.edit_policy(lambda policy: policy["virtual"].update(approvals=2))

    waiting = refused(place.deploy("--json"), "ApprovalNeededError", ExitCode.PERSON, "keys approve", "--approval")
    assert "0 of 2" in waiting["what"]
    run = place.run("runs", "list", "--json").json["runs"][-1]
    assert run["state"] == "waiting"

    told = place.run("runs", "show", "--json").ok().out
    bundles = sorted(set(re.findall(r"to approve (sha256:[0-9a-f]{64})", told)))
    approvals: list[str | Path] = []
    for index, (folder, _) in enumerate(people):
        for bundle in bundles:
            out = place.folder / f"approval-{index}-{bundle[7:15]}.json"
            place.run("keys", "approve", bundle, "--keys", folder, "--out", out, "--note", "looked at it").ok()
            approvals += ["--approval", out]

    # One person's yes twice is one yes.
    half = approvals[: len(approvals) // 2]
    again = refused(
        place.run("deploy", "--resume", run["run"], *half, "--json"), "ApprovalNeededError", ExitCode.PERSON
    )
    assert "1 of 2" in again["what"]

    told = place.run("deploy", "--resume", run["run"], *approvals).ok()
    assert "3" in told.out
    status = place.run("rollout", "status", "--json").json
    assert status["state"] == "completed"
