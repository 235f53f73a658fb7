"""The attacked client that shares no code with ours: tuf-js, run by node.

It verifies the image repository and downloads the named file. What it makes of a bundle, a director or a vehicle is
nothing, since it knows none of them. Needs node and an npm folder that has tuf-js; downloads neither.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nwmctl.app.drill.clients import Answer, Did, run_watched
from nwmctl.app.drill.server import IMAGE, Stand
from nwmctl.domain.drill import Client, Counterparty
from nwmctl.storage.resources import templates_folder
from nwmctl.trust.attacks.scene import Act, House

_SCRIPT = "drill/tuf-client.cjs"


class TufJsAdapter:
    """tuf-js below ``folder/node_modules``, or wherever node finds it if there is no folder."""

    def __init__(self, folder: Path | None) -> None:
        self._node = shutil.which("node") or ""
        self._modules = (folder / "node_modules").resolve() if folder else None
        self._party = self._look()

    @property
    def party(self) -> Counterparty:
        """With the version that its package names."""
        return self._party

    def begin(self, house: House, folder: Path) -> TufJsSession:
        """A client with the house's first root and nothing else."""
        root = folder / "root.json"
        root.write_bytes(house.factory.state.roots[0])
        return TufJsSession(self._node, self._modules, folder, root)

    def _look(self) -> Counterparty:
        if not self._node:
            return Counterparty(Client.TUF_JS, "", "node is not installed here (Debian: nodejs)")
        package = self._modules / "tuf-js" / "package.json" if self._modules else None
        if package is None or not package.is_file():
            hint = "tuf-js is not here: `npm install --prefix FOLDER tuf-js@5`, then --tuf-js FOLDER"
            return Counterparty(Client.TUF_JS, "", hint)
        version = str(json.loads(package.read_bytes()).get("version", "?"))
        return Counterparty(Client.TUF_JS, f"tuf-js {version}")


class TufJsSession:
    """One client; what it trusts lies in its folder between two runs."""

    def __init__(self, node: str, modules: Path | None, folder: Path, root: Path) -> None:
        self._node = node
        self._modules = modules
        self._folder = folder
        self._root = root

    def see(self, act: Act, stand: Stand) -> Answer:
        """One update to the offered file."""
        script = str(templates_folder() / _SCRIPT)
        place = [f"{stand.url}{IMAGE}", str(self._root), str(self._folder), act.world.offer.name]
        order = [self._node, script, *place, str(act.ahead_us // 1000)]
        said, held = run_watched(order, self._folder, {"NODE_PATH": str(self._modules)}, stand)
        if held:
            return Answer(Did.HELD, f"it was still waiting when it was ended, after {sum(stand.sent.values())} bytes")
        lines = said.strip().splitlines() or ["it said nothing"]
        try:
            found = json.loads(lines[-1])
        except ValueError:
            return Answer(Did.REFUSED, f"it ended without an answer: {lines[-1][:300]}")
        if found.get("ok"):
            return Answer(Did.ACCEPTED, f"it verified and kept '{act.world.offer.name}', {found['bytes']} bytes")
        return Answer(Did.REFUSED, str(found.get("error", ""))[:500])
