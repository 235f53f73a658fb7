"""Model packages from folders, file URLs and fsspec; what is proven before what; what remains after a refusal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.model import CARD_NAME, SIGNATURE_NAME, FileEntry, ModelReference
from nwmctl.errors import (
    CardContentError,
    DestinationError,
    DigestMismatchError,
    EnvelopeError,
    NwmError,
    PayloadTypeError,
    SchemaError,
    SignatureOfOtherCardError,
    SignatureUnknownError,
    SizeMismatchError,
    SourceBackendMissingError,
    SourceUnavailableError,
    SourceUriError,
)
from nwmctl.sources.fetch import ModelPackage, fetch_model
from nwmctl.trust.dsse import MODEL_CARD_TYPE, POLICY_TYPE, sign_dsse
from tests.sources.package import BIG, KEY, OTHER, TRUSTED, Made, assert_whole, make_package


def fetch(made: Made, into: Path, trusted: tuple[str, ...] = TRUSTED) -> ModelPackage:
    into.parent.mkdir(exist_ok=True)
    return fetch_model(made.reference, trusted, into, base=Path("/"), sleep=lambda s: None)


def nothing_left(into: Path) -> bool:
    return list(into.parent.iterdir()) == []


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_package(tmp_path / "published")


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "work" / "model"


# --- places -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{0}", "file://{0}", "file:{0}", "file://localhost{0}", "local://{0}"])
def test_a_folder(tmp_path: Path, into: Path, form: str) -> None:
    made = make_package(tmp_path / "published", form.format(tmp_path / "published"))
    package = fetch(made, into)
    assert package.card == made.card
    assert package.key == KEY.public
    assert package.file("weights").read_bytes() == made.contents[BIG]
    assert_whole(made, into)


def test_a_relative_path_starts_at_the_base(tmp_path: Path, into: Path) -> None:
    made = make_package(tmp_path / "models" / "a")
    into.parent.mkdir()
    (tmp_path / "release").mkdir()
    reference = ModelReference("../models/a", made.reference.digest)
    fetch_model(reference, TRUSTED, into, base=tmp_path / "release", sleep=lambda s: None)
    assert_whole(made, into)


def test_an_escaped_file_url(tmp_path: Path, into: Path) -> None:
    made = make_package(tmp_path / "a b", f"file://{tmp_path}/a%20b")
    fetch(made, into)
    assert_whole(made, into)


def test_fsspec_memory(tmp_path: Path, into: Path) -> None:
    import fsspec

    made = make_package(tmp_path / "published", "memory://models/nwm")
    memory = fsspec.filesystem("memory")
    memory.put(str(made.folder), "/models/nwm", recursive=True)
    try:
        fetch(made, into)
    finally:
        memory.rm("/models", recursive=True)
    assert_whole(made, into)


def test_a_scheme_whose_package_is_missing(tmp_path: Path, made: Made, into: Path) -> None:
    pytest.importorskip("fsspec")
    try:
        import s3fs  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        reference = ModelReference("s3://bucket/model", made.reference.digest)
        with pytest.raises(SourceBackendMissingError, match="needs a package") as caught:
            fetch_model(reference, TRUSTED, into, base=tmp_path, sleep=lambda s: None)
        assert "s3fs" in caught.value.next
        assert caught.value.exit_code == 7
    else:
        pytest.skip("s3fs is installed here")


@pytest.mark.parametrize("uri", ["", "nonsense://x/y", "file://otherhost/x", "http://", "http://[::1", "a\0b"])
def test_uris_that_are_refused(tmp_path: Path, made: Made, into: Path, uri: str) -> None:
    into.parent.mkdir()
    with pytest.raises(SourceUriError):
        fetch_model(ModelReference(uri, made.reference.digest), TRUSTED, into, base=tmp_path, sleep=lambda s: None)
    assert nothing_left(into)


def test_nothing_there(tmp_path: Path, made: Made, into: Path) -> None:
    into.parent.mkdir()
    for uri in (str(tmp_path / "none"), "memory://none"):
        with pytest.raises(SourceUnavailableError, match=r"'model-card\.json' cannot be fetched"):
            fetch_model(ModelReference(uri, made.reference.digest), TRUSTED, into, base=tmp_path, sleep=lambda s: None)
    assert not into.exists()


def test_progress(made: Made, into: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    into.parent.mkdir()
    fetch_model(
        made.reference, TRUSTED, into, base=Path("/"), sleep=lambda s: None, progress=lambda *args: seen.append(args)
    )
    counts = [done for name, done, _ in seen if name == BIG]
    assert counts == sorted(counts)
    assert len(counts) > 2
    assert (BIG, 600_000, 600_000) in seen


# --- what is proven -----------------------------------------------------------------------------------------------


def test_a_package_that_is_there_is_proven_again(made: Made, into: Path) -> None:
    fetch(made, into)
    (made.folder / BIG).unlink()
    assert fetch(made, into).card == made.card, "nothing is fetched"
    (into / BIG).write_bytes(b"x" * 600_000)
    with pytest.raises(DigestMismatchError):
        fetch(made, into)


def test_a_destination_that_is_something_else(made: Made, into: Path) -> None:
    into.mkdir(parents=True)
    (into / "notes.txt").write_text("mine")
    with pytest.raises(DestinationError, match="not a model package"):
        fetch(made, into)
    assert (into / "notes.txt").read_text() == "mine"


def test_another_card_than_the_release_names(made: Made, into: Path) -> None:
    (made.folder / BIG).unlink()  # so that fetching it would be another error
    (made.folder / CARD_NAME).write_bytes((made.folder / CARD_NAME).read_bytes().replace(b"a test", b"a tesT"))
    with pytest.raises(DigestMismatchError, match="not the one that the release names"):
        fetch(made, into)
    assert nothing_left(into)


def test_a_key_that_is_not_trusted(made: Made, into: Path) -> None:
    for trusted in ((), (OTHER.public,)):
        with pytest.raises(SignatureUnknownError, match="not signed by a key that the release trusts") as caught:
            fetch(made, into, trusted)
        assert caught.value.exit_code == 4
        assert nothing_left(into)


def test_a_signature_that_was_changed(made: Made, into: Path) -> None:
    path = made.folder / SIGNATURE_NAME
    good = path.read_bytes()
    at = good.index(b'"sig":"') + 20
    path.write_bytes(good[:at] + (b"A" if good[at : at + 1] != b"A" else b"B") + good[at + 1 :])
    with pytest.raises(SignatureUnknownError):
        fetch(made, into)
    path.write_bytes(b"not an envelope")
    with pytest.raises(EnvelopeError):
        fetch(made, into)
    path.write_bytes(sign_dsse((made.folder / CARD_NAME).read_bytes(), POLICY_TYPE, KEY))
    with pytest.raises(PayloadTypeError):
        fetch(made, into)
    path.write_bytes(sign_dsse(b"another card", MODEL_CARD_TYPE, KEY))
    with pytest.raises(SignatureOfOtherCardError):
        fetch(made, into)
    path.unlink()
    with pytest.raises(SourceUnavailableError, match=r"model-card\.json\.sig"):
        fetch(made, into)
    assert not into.exists()


def test_the_card_is_proven_before_any_other_file_is_touched(made: Made, into: Path, monkeypatch: object) -> None:
    opened: list[str] = []
    import nwmctl.sources.places as places

    real = places.FolderPlace.fetch

    def spy(self: places.FolderPlace, name: str, *args: object, **named: object) -> None:
        opened.append(name)
        real(self, name, *args, **named)  # type: ignore[arg-type]

    assert isinstance(monkeypatch, pytest.MonkeyPatch)
    monkeypatch.setattr(places.FolderPlace, "fetch", spy)
    with pytest.raises(SignatureUnknownError):
        fetch(made, into, (OTHER.public,))
    assert opened == [CARD_NAME, SIGNATURE_NAME]


@pytest.mark.parametrize(
    ("damage", "error"),
    [(lambda d: d[:-1], SizeMismatchError), (lambda d: d + b"x", SizeMismatchError),
     (lambda d: b"X" + d[1:], DigestMismatchError)],
    ids=["shorter", "longer", "changed"],
)  # fmt: skip
def test_a_file_that_is_not_the_listed_one(made: Made, into: Path, damage: object, error: type[NwmError]) -> None:
    assert callable(damage)
    (made.folder / BIG).write_bytes(damage(made.contents[BIG]))
    with pytest.raises(error, match=r"weights/model\.onnx"):
        fetch(made, into)
    assert nothing_left(into), "a package that fails verification leaves nothing"


def test_a_pipe_and_a_device_do_not_hang(made: Made, into: Path) -> None:
    (made.folder / BIG).unlink()
    os.mkfifo(made.folder / BIG)
    with pytest.raises(SourceUnavailableError, match=BIG):
        fetch(made, into)
    (made.folder / BIG).unlink()
    (made.folder / BIG).symlink_to("/dev/zero")
    with pytest.raises(SourceUnavailableError, match=BIG):
        fetch(made, into)


def entry(path: str, size: int = 1) -> FileEntry:
    return FileEntry(path, digest_bytes(b"x"), size)


@pytest.mark.parametrize(
    "files",
    [
        {"weights": entry("../outside")},
        {"weights": entry("/etc/passwd")},
        {"weights": entry("a/../../b")},
        {"weights": entry("a//b")},
        {"weights": entry("")},
        {"weights": entry(".")},
        {"weights": entry("a\\b")},
        {"weights": entry("a\nb")},
        {"weights": entry(CARD_NAME)},
        {"weights": entry(SIGNATURE_NAME)},
        {"weights": entry("a", -1)},
        {"weights": entry("a"), "golden": entry("a", 2)},
        {"weights": entry("a"), "golden": entry("a/b")},
    ],
    ids=lambda files: "+".join(repr(f.path) for f in files.values()),
)
def test_a_card_with_impossible_files(tmp_path: Path, into: Path, files: dict[str, FileEntry]) -> None:
    made = make_package(tmp_path / "published", files=files)
    with pytest.raises((CardContentError, SchemaError)):
        fetch(made, into)
    assert nothing_left(into)


def test_an_interrupted_fetch_of_another_model_leaves_no_file_in_this_one(tmp_path: Path, into: Path) -> None:
    first = make_package(tmp_path / "first", seed=1)
    (first.folder / BIG).unlink()
    with pytest.raises(SourceUnavailableError):
        fetch(first, into)  # its small files have arrived and wait
    golden = make_package(tmp_path / "x").card.files["golden"]
    second = make_package(tmp_path / "second", seed=2, files={"weights": golden})
    (second.folder / golden.path).write_bytes((tmp_path / "x" / golden.path).read_bytes())
    fetch(second, into)
    assert {p.name for p in into.rglob("*") if p.is_file()} == {CARD_NAME, SIGNATURE_NAME, "golden set.npz"}


def test_a_destination_that_cannot_be_written(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DestinationError, match="cannot be stored"):
        fetch_model(made.reference, TRUSTED, tmp_path / "file" / "model", base=Path("/"), sleep=lambda s: None)
