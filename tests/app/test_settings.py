"""Settings: options before environment before defaults, and bad values named."""

from __future__ import annotations

from pathlib import Path

import pytest

from nwmctl.app.settings import COMPILE_TIMEOUT_S, load_settings
from nwmctl.errors import InputError
from nwmctl.storage.resources import platforms_folder

HOME = {"HOME": "/home/a", "USER": "a"}


def test_defaults() -> None:
    found = load_settings(environment=HOME)
    assert found.workspace == Path(".nwmctl")
    assert found.keys is None
    assert found.development_keys == Path("/home/a/.local/share/nwmctl/development-keys")
    assert found.platforms == platforms_folder()
    assert found.workers >= 2
    assert found.user == "a"
    assert found.compile_timeout_s == COMPILE_TIMEOUT_S


def test_the_environment_goes_before_defaults() -> None:
    told = {
        **HOME, "NWMCTL_WORKSPACE": "/w", "NWMCTL_KEYS": "/k", "NWMCTL_WORKERS": "7", "XDG_DATA_HOME": "/x",
        "NWMCTL_COMPILE_TIMEOUT": "1.5",
    }  # fmt: skip
    found = load_settings(environment=told)
    assert (found.workspace, found.keys, found.workers) == (Path("/w"), Path("/k"), 7)
    assert found.development_keys == Path("/x/nwmctl/development-keys")
    assert found.compile_timeout_s == 1.5


def test_options_go_before_the_environment() -> None:
    told = {**HOME, "NWMCTL_WORKSPACE": "/w", "NWMCTL_KEYS": "/k", "NWMCTL_WORKERS": "7"}
    found = load_settings(Path("/o"), Path("/ok"), Path("/p"), 3, environment=told)
    assert (found.workspace, found.keys, found.platforms, found.workers) == (
        Path("/o"), Path("/ok"), Path("/p"), 3,
    )  # fmt: skip


def test_an_empty_variable_is_as_good_as_none() -> None:
    empty = {**HOME, "NWMCTL_WORKSPACE": "", "NWMCTL_KEYS": "", "NWMCTL_WORKERS": "", "XDG_DATA_HOME": ""}
    assert load_settings(environment=empty) == load_settings(environment=HOME)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²", "٣"])
def test_a_bad_number_of_workers_is_named(text: str) -> None:
    with pytest.raises(InputError, match="NWMCTL_WORKERS") as caught:
        load_settings(environment={**HOME, "NWMCTL_WORKERS": text})
    assert caught.value.next


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_bad_timeout_is_named(text: str) -> None:
    with pytest.raises(InputError, match="NWMCTL_COMPILE_TIMEOUT"):
        load_settings(environment={**HOME, "NWMCTL_COMPILE_TIMEOUT": text})


def test_somebody_is_always_named_as_the_one_who_asked() -> None:
    assert load_settings(environment={"HOME": "/"}).user.startswith("uid ")
    assert load_settings(environment={"HOME": "/", "LOGNAME": "b"}).user == "b"


def test_a_workspace_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(InputError, match="cannot be used"):
        load_settings(file, environment=HOME).open()
    assert file.read_text() == "in the way"
