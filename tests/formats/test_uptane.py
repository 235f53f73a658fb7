"""Both dialects of director and repository metadata: golden vectors, and readers that know nothing of the writers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from nwmctl.errors import DdiFormatError
from nwmctl.formats import uptane_reports
from nwmctl.formats.uptane import Dialect, Directed, Ecu, director_template, ecu_identifiers, key_id, plain_name
from tests.formats import uptane_samples as samples
from tests.formats.reference_client import Refused, follow

GOLDEN = Path(__file__).parent / "golden" / "uptane"
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
HARDWARE = {ecu.serial: ecu.hardware for ecu in samples.ECUS}
PLAIN = st.text("abcXYZ019._:+@/=-", min_size=1, max_size=40).map(lambda text: f"a{text}")


def test_golden_vectors_are_what_the_serialisers_write() -> None:
    made = samples.golden()
    kept = {path.name: path.read_bytes() for path in GOLDEN.iterdir()}
    assert made == kept


def served(**changed: bytes) -> Callable[[str], bytes | None]:
    """The golden vectors under the paths of the reference client."""
    files = {path.name: path.read_bytes() for path in GOLDEN.iterdir()} | {
        name.replace("__", "-") + ".json": data for name, data in changed.items()
    }
    names = {
        "director/1.root.json": "reference-director-root.json",
        "director/targets.json": "reference-director-file.json",
        "repo/1.root.json": "reference-image-root.json",
        "repo/timestamp.json": "reference-image-timestamp.json",
        "repo/snapshot.json": "reference-image-snapshot.json",
        "repo/targets.json": "reference-image-targets.json",
        "repo/delegations/nt2.0.json": "reference-image-nt2.0.json",
    }
    return lambda path: files[names[path]] if path in names else None


def test_an_independent_reader_of_the_reference_dialect_accepts_the_vectors() -> None:
    found = follow(served(), BEFORE, HARDWARE)
    assert found == {ecu.serial: samples.BUNDLE.sha256 for ecu in samples.ECUS}


@pytest.mark.parametrize(
    "name",
    ["director-root", "director-file", "image-root", "image-timestamp", "image-snapshot", "image-targets"],
)
def test_the_independent_reader_refuses_a_changed_file(name: str) -> None:
    path = GOLDEN / f"reference-{name}.json"
    data = json.loads(path.read_bytes())
    data["signed"]["version"] += 1
    with pytest.raises(Refused):
        follow(served(**{f"reference__{name.replace('-', '__')}": json.dumps(data).encode()}), BEFORE, HARDWARE)
    with pytest.raises(Refused):
        follow(served(), datetime(2031, 1, 1, tzinfo=UTC), HARDWARE)
    with pytest.raises(Refused):
        follow(served(), BEFORE, dict.fromkeys(HARDWARE, "orin-x4:A0"))


def test_python_tuf_reads_and_verifies_the_tuf_dialect() -> None:
    from securesystemslib.signer import SSlibKey
    from tuf.api.metadata import Metadata, Targets

    key = SSlibKey.from_crypto(samples.DIRECTOR.key.public_key())
    assert key.keyid == key_id(Dialect.TUF, samples.DIRECTOR.public)
    for name in ("file", "slot", "nothing"):
        found = Metadata[Targets].from_bytes((GOLDEN / f"tuf-director-{name}.json").read_bytes())
        key.verify_signature(found.signatures[key.keyid], found.signed_bytes)
        assert found.signed.version == 7
    found = Metadata[Targets].from_bytes((GOLDEN / "tuf-director-file.json").read_bytes())
    file = found.signed.targets[samples.BUNDLE.name]
    assert (file.length, file.hashes) == (samples.BUNDLE.length, {"sha256": samples.BUNDLE.sha256})
    assert set(file.unrecognized_fields["custom"]["ecuIdentifiers"]) == set(HARDWARE)


@given(PLAIN, PLAIN, PLAIN, st.integers(0, 2**53), st.integers(1, 2**53))
def test_templates_write_the_canonical_form(name: str, serial: str, hardware: str, length: int, version: int) -> None:
    ecus = (Ecu(serial, hardware, samples.MAIN.public),)
    for dialect in Dialect:
        direction = Directed(name, length, "cd" * 32, 3)
        text = director_template(dialect, direction, samples.EXPIRES).signed(ecu_identifiers(ecus), version)
        assert encode_canonical(json.loads(text)) == text


@pytest.mark.parametrize("text", ["", 'a"b', "a\\b", "a\nb", "ä", "a" * 201, " a", "a\n"])
def test_names_that_two_canonical_forms_spell_differently_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        plain_name(text, "a name")


@pytest.mark.parametrize("dialect", list(Dialect))
def test_reports_and_registrations_are_read_in_both_dialects(dialect: Dialect) -> None:
    said = uptane_reports.decode_registration((GOLDEN / f"{dialect}-ecus.json").read_bytes())
    assert (said.dialect, said.primary, set(said.ecus)) == (dialect, samples.ECUS[0].serial, set(samples.ECUS))
    report = uptane_reports.decode_report((GOLDEN / f"{dialect}-report.json").read_bytes())
    assert (report.director, report.image) == ({"root": 1, "targets": 7}, {"timestamp": 4})
    assert {one.serial: one.counter for one in report.ecus} == {samples.ECUS[0].serial: 3, samples.ECUS[1].serial: 2}


def _edit(path: tuple[str, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def edit(table: dict[str, Any]) -> None:
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value

    return edit


MAIN = samples.ECUS[0].serial
ECU = ("signed", "ecu_version_manifests", MAIN)


@pytest.mark.parametrize(
    "edit",
    [
        _edit(("signatures",), []),
        _edit(("signatures",), [{"sig": "00"}] * 9),
        _edit(("signed", "primary_ecu_serial"), "nobody"),
        _edit(("signed", "ecu_version_manifests"), {}),
        _edit((*ECU, "signed", "ecu_serial"), "another"),
        _edit((*ECU, "signed", "report_counter"), -1),
        _edit((*ECU, "signed", "report_counter"), True),
        _edit((*ECU, "signed", "installed_image", "fileinfo", "length"), 1.5),
        _edit((*ECU, "signed", "installed_image", "fileinfo", "hashes"), {"sha256": "xy"}),
        _edit((*ECU, "signed", "custom"), {"metadataVersions": {"director": {"targets": "many"}}}),
        _edit((*ECU, "signatures"), [{"sig": "AA"}]),
        _edit((*ECU, "signed", "more"), float("inf")),
    ],
)
def test_garbled_reports_are_refused(edit: Callable[[dict[str, Any]], None]) -> None:
    table = json.loads((GOLDEN / "tuf-report.json").read_bytes())
    edit(table)
    with pytest.raises(DdiFormatError):
        uptane_reports.decode_report(json.dumps(table).encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_message_or_a_refusal(data: bytes) -> None:
    for decode in (
        uptane_reports.decode_report,
        uptane_reports.decode_registration,
        uptane_reports.decode_events,
        uptane_reports.decode_note,
    ):
        with contextlib.suppress(DdiFormatError):
            decode(data)


@given(st.data())
def test_mutated_reports_never_crash(data: st.DataObject) -> None:
    whole = bytearray((GOLDEN / f"{data.draw(st.sampled_from(list(Dialect)))}-report.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DdiFormatError):
        uptane_reports.decode_report(bytes(whole))
