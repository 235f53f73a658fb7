"""The mirror over HTTP: whole, in parts, and nothing from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from nwmctl.gateway.files import file_routes, find_file

DATA = bytes(range(256)) * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "mirror"
    (root / "targets").mkdir(parents=True)
    (root / "targets" / "a b.swu").write_bytes(DATA)
    (root / "timestamp.json").write_bytes(b"{}")
    (root / ".secret").write_bytes(b"secret")
    (tmp_path / "outside").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "inner-link").symlink_to(root / "timestamp.json")
    return root


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(Starlette(routes=file_routes(root)))


def test_whole_files(client: TestClient) -> None:
    answer = client.get("/mirror/targets/a%20b.swu")
    assert (answer.status_code, answer.content) == (200, DATA)
    assert "immutable" in answer.headers["cache-control"]
    assert client.get("/mirror/timestamp.json").headers["cache-control"] == "no-cache"
    assert client.get("/mirror/inner-link").content == b"{}"


def test_head_has_no_body(client: TestClient) -> None:
    answer = client.head("/mirror/targets/a%20b.swu")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_download_can_be_resumed(client: TestClient) -> None:
    whole = client.get("/mirror/targets/a%20b.swu")
    headers = {"Range": "bytes=1000-", "If-Range": whole.headers["etag"]}
    answer = client.get("/mirror/targets/a%20b.swu", headers=headers)
    assert (answer.status_code, answer.content) == (206, DATA[1000:])
    assert answer.headers["content-range"] == f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"
    changed = client.get("/mirror/targets/a%20b.swu", headers={"Range": "bytes=1000-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, DATA)
    beyond = client.get("/mirror/targets/a%20b.swu", headers={"Range": f"bytes={len(DATA)}-"})
    assert beyond.status_code == 416


def test_several_ranges(client: TestClient) -> None:
    answer = client.get("/mirror/targets/a%20b.swu", headers={"Range": "bytes=0-9,100-109"})
    assert answer.status_code == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    assert DATA[100:110] in answer.content


@pytest.mark.parametrize(
    "asked",
    ["../outside", "targets/../../outside", "link", ".secret", "", "targets", "targets/", "no", "/etc/passwd", "..",
     "targets//a b.swu", "./timestamp.json", "timestamp.json\0", "a\\b", "x" * 5000],
)  # fmt: skip
def test_nothing_from_outside(root: Path, asked: str) -> None:
    assert find_file(root.resolve(), asked) is None


def test_encoded_traversal(client: TestClient) -> None:
    for path in ("/mirror/%2e%2e/outside", "/mirror/targets/%2e%2e%2f%2e%2e%2foutside", "/mirror/link", "/mirror/%00"):
        assert client.get(path).status_code == 404


def test_a_release_s_dossier_is_found_by_name_and_number(client: TestClient, root: Path) -> None:
    where = "/api/releases/nwm-2.5/250/dossier"
    assert client.get(where).status_code == 404
    kept = {"0" * 64: b"{}", "1" * 64: b'{"newer":1}'}
    for age, (digest, data) in enumerate(kept.items()):
        path = root / "targets" / f"{digest}.nwm-2.5-250.dossier.json"
        path.write_bytes(data)
        os.utime(path, (age, age))
    (root / "targets" / "nwm-2.5-250.dossier.json").write_bytes(b"no digest in front")
    (root / "targets" / f"{'2' * 64}.nwm-2.5-250.dossier.json").symlink_to(root.parent / "outside")
    answer = client.get(where)
    assert (answer.status_code, answer.content) == (200, b'{"newer":1}')
    assert 'filename="nwm-2.5-250.dossier.json"' in answer.headers["content-disposition"]
    assert client.head(where).content == b""
    others = ("nwm-2.5/251", "nwm-2/250", "nwmx2.5/250", "..%2f..%2foutside/250", "nwm-2.5/x", "%00/1", "nwm-2.5/-1")
    assert {client.get(f"/api/releases/{each}/dossier").status_code for each in others} == {404}
    assert client.post(where).status_code == 405
