"""The policy's braking, from the file that the safety role signs to the drives and to what vehicles are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.domain.chassis import ChassisAdaptation
from nwmctl.formats import cpio, documents
from tests.e2e.command import Place
from tests.project import SEQUENCE

BRAKING = {"value": 2.0, "unit": "m/s2", "source": "a cautious town", "confidence": "assumed"}


@pytest.mark.long
def test_what_drives_were_held_to_is_what_vehicles_are_held_to(tmp_path: Path, development_keys: Path) -> None:
    place = Place.new(tmp_path / "place", development_keys, driving=True)
    place.project.edit_policy(lambda policy: policy["virtual"].update(braking=BRAKING))
    place.project.edit_policy(lambda policy: policy.update(schema="nwmctl.policy/2"))
    place.run("publish", place.project.release).ok()
    (build,) = place.run("runs", "evidence", "--json").ok().json["builds"]
    (drive,) = [result for result in build["evidence"]["results"] if result["check"] == "closed_loop"]
    assert "braking held to 2 m/s2 (assumed)" in drive["summary"]
    (held,) = [figure for figure in drive["figures"] if figure["name"] == "braking_limit"]
    assert (held["value"], held["unit"], held["obtained"]) == (2.0, "m/s2", drive["obtained"])
    (bundle,) = (place.workspace / "mirrors" / "local" / "targets").glob(f"*-{SEQUENCE}.swu")
    with bundle.open("rb") as stream:
        files = {
            entry.name: b"".join(entry.chunks())
            for entry in cpio.unpack(stream.read)
            if entry.name.startswith("chassis-")
        }
    assert files
    for name, data in files.items():
        found = documents.decode(ChassisAdaptation, data, name)
        assert found.command(0.0, -9.0).acceleration == -2.0
        assert found.limits.deceleration.source == "the policy's braking: a cautious town"
