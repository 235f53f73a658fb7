"""Models that are not what they should be: caught before they are used, or by the checks, and never signed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nwmctl.domain.model import CARD_NAME, SIGNATURE_NAME
from nwmctl.errors import ExitCode
from tests.e2e.command import Place, refused, served, tree
from tests.project import STRANGER, Fault, Network


def nothing(place: Place) -> bool:
    """Whether nobody outside can notice anything, and nothing unfinished lies in the store."""
    return not any(served(place).values()) and not tree(place.workspace / "content" / "tmp")


def signed(place: Place) -> list[str]:
    """The steps that signed something, in the latest run."""
    events = place.run("runs", "show", "--json").ok().json["events"]
    return [e["step"] for e in events if e["event"] == "StepFinished" and e["step"].startswith("sign/")]


def _other_digest(place: Place) -> None:
    place.project.edit_release(lambda release: release["model"].update(digest="sha256:" + "0" * 64))


def _file_changed(place: Place) -> None:
    file = place.project.folder / "model" / "model.onnx"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _file_longer(place: Place) -> None:
    with (place.project.folder / "model" / "golden.npz").open("ab") as file:
        file.write(b"more")


def _file_missing(place: Place) -> None:
    (place.project.folder / "model" / "model.onnx").unlink()


def _signed_by_a_stranger(place: Place) -> None:
    place.project.put_model("model", Network(seed=2), signer=STRANGER)


def _signature_of_the_other_model(place: Place) -> None:
    other = place.project.folder / "previous" / SIGNATURE_NAME
    (place.project.folder / "model" / SIGNATURE_NAME).write_bytes(other.read_bytes())


def _signature_missing(place: Place) -> None:
    (place.project.folder / "model" / SIGNATURE_NAME).unlink()


def _card_is_noise(place: Place) -> None:
    (place.project.folder / "model" / CARD_NAME).write_bytes(b"{]")


def _no_folder(place: Place) -> None:
    place.project.edit_release(lambda release: release["model"].update(uri="elsewhere"))


def _output_missing(place: Place) -> None:
    place.project.put_model("model", Network(fault=Fault.MISSING_OUTPUT))


def _wrong_shape(place: Place) -> None:
    place.project.put_model("model", Network(fault=Fault.WRONG_SHAPE))


MODELS: list[tuple[Callable[[Place], None], str, ExitCode, tuple[str, ...]]] = [
    (_other_digest, "DigestMismatchError", ExitCode.VERIFICATION, ("the release names 000000000000",)),
    (_file_changed, "DigestMismatchError", ExitCode.VERIFICATION, ("model.onnx",)),
    (_file_longer, "SizeMismatchError", ExitCode.VERIFICATION, ("golden.npz",)),
    (_file_missing, "SourceUnavailableError", ExitCode.REMOTE, ("model.onnx",)),
    (_signed_by_a_stranger, "SignatureUnknownError", ExitCode.VERIFICATION, ("trust",)),
    (_signature_of_the_other_model, "SignatureOfOtherCardError", ExitCode.VERIFICATION, ("another card",)),
    (_signature_missing, "SourceUnavailableError", ExitCode.REMOTE, (SIGNATURE_NAME,)),
    (_card_is_noise, "DigestMismatchError", ExitCode.VERIFICATION, ("the model card is not the one",)),
    (_no_folder, "SourceUnavailableError", ExitCode.REMOTE, ("elsewhere",)),
    (_output_missing, "ContractBrokenError", ExitCode.INPUT, ("output 'control' is missing",)),
    (_wrong_shape, "ContractBrokenError", ExitCode.INPUT, ("control", "[B,9,2]", "[B,10,2]")),
]


@pytest.mark.parametrize(
    ("harm", "error", "code", "words"),
    # What is not there is asked for again after a while, in case that it comes.
    [pytest.param(*row, marks=pytest.mark.long if row[2] is ExitCode.REMOTE else ()) for row in MODELS],
    ids=[row[0].__name__[1:] for row in MODELS],
)
def test_a_model_that_is_not_what_was_promised_is_refused(
    place: Place, harm: Callable[[Place], None], error: str, code: ExitCode, words: tuple[str, ...]
) -> None:
    harm(place)
    refused(place.run("pull", place.project.release, "--json"), error, code, *words)
    assert nothing(place)
    # The refused model is nowhere in the store either; the good one may be.
    found = {path.name for path in (place.workspace / "incoming").rglob("*") if path.is_file()}
    assert not found & {"model.onnx"}, found


def test_a_model_that_answers_with_nan_is_caught_and_not_signed(place: Place) -> None:
    place.project.put_model("model", Network(fault=Fault.NAN_AT_SPEED))
    checked = place.run("validate", place.project.release, "--junit", place.folder / "checks.xml", "--json")
    document = refused(checked, "ChecksRefusedError", 5, "contract", "not finite")
    assert "failed" in str(document["result"])  # the checks are in the same document
    assert "not finite" in (place.folder / "checks.xml").read_text()
    refused(place.deploy("--json"), "SigningRefusedError", 5, "contract", "not finite")
    assert nothing(place)
    assert not [step for step in signed(place) if step.startswith("sign/release/")]
    story = place.run("runs", "show").ok().out
    assert "no-alternative" in story


@pytest.mark.long
def test_a_model_that_drifts_from_its_golden_data_is_not_signed(place: Place) -> None:
    place.project.put_model("model", Network(seed=2, fault=Fault.BIAS))
    refused(place.deploy("--json"), "SigningRefusedError", 5, "parity", "steer.max_abs")
    assert nothing(place)


def test_one_sequence_never_stands_for_two_contents(deployed: Place) -> None:
    before = served(deployed)
    deployed.project.put_model("model", Network(seed=9))
    for command in ("deploy", "stage", "publish"):
        ran = deployed.run(command, deployed.project.release, "--json")
        refused(ran, "SequenceTakenError", 8, "20", "higher sequence")
    assert served(deployed) == before
    status = deployed.run("rollout", "status", "--json").ok().json
    assert status["state"] == "completed"


def test_the_number_of_the_way_back_is_taken_too(deployed: Place) -> None:
    before = served(deployed)
    deployed.project.edit_release(lambda release: release.update(sequence=21, name="tiny-3"))
    refused(deployed.deploy("--json"), "SequenceTakenError", 8, "21")
    assert served(deployed) == before
