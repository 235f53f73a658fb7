"""tuf-js, which shares no code with ours, verifies our repository over HTTP and refuses a spoilt one."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nwmctl.domain.keys import KeyRole
from nwmctl.trust.keyfiles import keep_root
from nwmctl.trust.keyfolder import Wish, revoke_key
from nwmctl.trust.keyfolder import rotate_keys as rotate_in_folder
from nwmctl.trust.keys import KeyRing, init_keys
from nwmctl.trust.repository import Publication, add_targets, create_repository, rotate_keys
from nwmctl.trust.roots import draft_root, finish_root, sign_root
from tests.real import require_program, require_real
from tests.trust.conftest import real_now
from tests.trust.test_repository import bundle, rings

__all__ = ["rings"]
HERE = Path(__file__).parent / "js"
CONTENT = b"bytes of a bundle" * 1000
NEW = bundle(content=CONTENT)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the loopback address that serves it."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write(folder: Path, publication: Publication) -> None:
    for path, data in {**publication.files, publication.timestamp_path: publication.timestamp}.items():
        place = folder / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)


def ask(base: str, root: bytes, scratch: Path, name: str) -> dict[str, object]:
    node = require_program("node", "nodejs")
    installed = (HERE / "node_modules" / "tuf-js").is_dir()
    require_real("tuf-js", installed, "npm ci --prefix tests/trust/js")
    scratch.mkdir(exist_ok=True)
    pinned = scratch / "pinned.json"
    pinned.write_bytes(root)
    done = subprocess.run(
        [node, str(HERE / "verify.cjs"), base, str(pinned), str(scratch), name], capture_output=True, timeout=60
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_tuf_js_verifies_ours_follows_a_rotation_and_refuses_damage(
    served: tuple[Path, str], rings: tuple[KeyRing, KeyRing], tmp_path: Path
) -> None:
    folder, base = served
    clock = real_now()
    first = create_repository(rings[0], clock)
    second = add_targets(first.state, [NEW, bundle("nt3.0")], rings[0], clock)
    write(folder, second)
    (folder / NEW.path).parent.mkdir()
    (folder / NEW.path).write_bytes(CONTENT)

    found = ask(base, first.state.roots[0], tmp_path / "car", NEW.name)
    assert found["ok"], found
    assert found["hashes"] == {"sha256": NEW.digest.hex}
    assert (found["length"], found["bytes"]) == (len(CONTENT), len(CONTENT))
    custom = found["custom"]
    assert isinstance(custom, dict)
    assert (custom["platform"], custom["sequence"], custom["kind"]) == ("nt2.0", 7, "release")

    rotated = rotate_keys(second.state, *rings, clock)
    write(folder, rotated)
    assert ask(base, first.state.roots[0], tmp_path / "car", NEW.name)["ok"]

    shutil.rmtree(folder / "metadata")
    write(folder, first)
    (folder / "metadata" / "2.root.json").write_bytes(rotated.state.roots[1])
    assert "signed by 0/1" in str(ask(base, first.state.roots[0], tmp_path / "car", NEW.name)["error"])

    shutil.rmtree(folder / "metadata")
    write(folder, second)
    assert ask(base, first.state.roots[0], tmp_path / "fresh", NEW.name)["ok"]
    write(folder, first)
    assert "version" in str(ask(base, first.state.roots[0], tmp_path / "fresh", NEW.name)["error"])
    write(folder, second)

    (folder / NEW.path).write_bytes(CONTENT[:-1] + b"!")
    assert "ash" in str(ask(base, first.state.roots[0], tmp_path / "other", NEW.name)["error"])
    stranger = create_repository(rings[1], clock)
    assert "sign" in str(ask(base, stranger.state.roots[0], tmp_path / "stranger", NEW.name)["error"]).lower()


def test_tuf_js_follows_platform_lists_bins_and_a_root_that_two_of_three_rotated(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, base = served
    clock = real_now()
    roles = [KeyRole.ROOT, KeyRole.TARGETS, KeyRole.SNAPSHOT, KeyRole.TIMESTAMP]
    ring = init_keys(tmp_path / "ring", clock, roles, development=True, platforms=["nt2.0", "nt3.0"])
    first = create_repository(ring, clock)
    (folder / "targets").mkdir()
    (folder / NEW.path).write_bytes(CONTENT)

    listed = add_targets(first.state, [NEW, bundle("nt3.0")], ring, clock)
    assert NEW.name in json.loads(listed.state.delegated["platform-nt2.0"])["signed"]["targets"]
    write(folder, listed)
    assert ask(base, first.state.roots[0], tmp_path / "car", NEW.name)["ok"]

    binned = add_targets(listed.state, [bundle("nt2.0", n) for n in range(20, 40)], ring, clock, bins_from=10)
    assert len(binned.state.delegated) == 2 + 16
    write(folder, binned)
    for scratch in ("car", "fresh"):
        found = ask(base, first.state.roots[0], tmp_path / scratch, NEW.name)
        assert found["ok"], found

    # One root key is lost, the timestamp key replaced; two of three old holders sign, and two of the new three.
    changed = revoke_key(ring, clock, ring.publics(KeyRole.ROOT)[0])
    changed = rotate_in_folder(changed, clock, Wish(KeyRole.ROOT, count=3, threshold=2))
    changed = rotate_in_folder(changed, clock, Wish(KeyRole.TIMESTAMP))
    changed = rotate_in_folder(changed, clock, Wish(KeyRole.TARGETS, "nt2.0", count=3, threshold=2))
    old = first.state.roots[0]
    draft = draft_root(changed.document, old, clock.now_us())
    signers = [*changed.signers(KeyRole.ROOT), *changed.signers_of(ring.publics(KeyRole.ROOT), 2, "root")]
    assert len(signers) == 4
    keep_root(changed, finish_root(draft, [sign_root(draft, one, old) for one in signers], old), 2)
    rotated = add_targets(binned.state, [], changed, clock)
    assert [len(json.loads(root)["signatures"]) for root in rotated.state.roots] == [2, 4]
    write(folder, rotated)
    for scratch in ("car", "new"):
        found = ask(base, old, tmp_path / scratch, NEW.name)
        assert found["ok"], found

    # A root that too few of the old keys have signed is not followed.
    short = json.loads(rotated.state.roots[1])
    new_keys = set(short["signed"]["roles"]["root"]["keyids"])
    short["signatures"] = [one for one in short["signatures"] if one["keyid"] in new_keys]
    (folder / "metadata" / "2.root.json").write_text(json.dumps(short))
    assert "signed by" in str(ask(base, old, tmp_path / "late", NEW.name)["error"])
