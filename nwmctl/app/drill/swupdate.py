"""The attacked client that installs without asking anybody: Debian's ``swupdate``, given a bundle.

It gets what a careful integrator gives it: the authority's certificate, the purpose, the vehicle's hardware and the
installed version against downgrades. Its verdict is taken from its log, since its exit code may be 1 after a success,
and from what lies in the slot's folder afterwards.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from nwmctl.app.drill.clients import Answer, Did, run_watched
from nwmctl.app.drill.house import Car
from nwmctl.app.drill.server import BUNDLE, Stand
from nwmctl.domain.drill import Client, Counterparty
from nwmctl.formats.swu import COPY_A, version_text
from nwmctl.trust.attacks.archives import take_apart
from nwmctl.trust.attacks.scene import Act, House
from nwmctl.trust.attacks.staging import OLDER

_TRIES = 6
_LOST = ("sw-description.sig cannot be opened", "sw-description.sig cannot be parsed")
"""swupdate loses its own unpacked signature now and then, and sometimes ends without having begun. Asking again settles
it; a signature that is really damaged says so every time."""
_SILENT = "it installed nothing and gave no reason"
_GOOD, _BAD = "SWUPDATE successful", "SWUPDATE failed"
_WORDS = re.compile(r"\[ERROR\] : (?:SWUPDATE failed \[\d\] )?(?:ERROR )?(?:\S+ : \S+ : \d+ : )?(.*)")


class SwupdateAdapter:
    """The installed swupdate."""

    def __init__(self, car: Car) -> None:
        self._car = car
        self._program = shutil.which("swupdate") or shutil.which("swupdate", path="/usr/sbin:/usr/bin:/sbin") or ""
        self._party = self._look()

    @property
    def party(self) -> Counterparty:
        """With the version that it prints."""
        return self._party

    def begin(self, house: House, folder: Path) -> SwupdateSession:
        """An installer on a vehicle with the oldest release."""
        authority = folder / "ca.pem"
        authority.write_bytes(house.ring.ca_pem())
        return SwupdateSession(self._program, self._car, folder, authority)

    def _look(self) -> Counterparty:
        if not self._program:
            return Counterparty(Client.SWUPDATE, "", "swupdate is not installed here (Debian: swupdate)")
        done = subprocess.run([self._program, "--version"], capture_output=True, timeout=20)
        found = re.search(rb"SWUpdate v?([0-9][^\s]*)", done.stdout + done.stderr)
        return Counterparty(Client.SWUPDATE, f"swupdate {found.group(1).decode() if found else _packaged()}")


def _packaged() -> str:
    """Debian's build does not know its own version; its package does."""
    asked = shutil.which("dpkg-query")
    if not asked:
        return "of unknown version"
    done = subprocess.run([asked, "-W", "-f", "${Version}", "swupdate"], capture_output=True, timeout=20)
    return done.stdout.decode(errors="replace").strip() or "of unknown version"


class SwupdateSession:
    """One installer; ``installed`` is the release sequence that it will not go below."""

    def __init__(self, program: str, car: Car, folder: Path, authority: Path) -> None:
        self._program = program
        self._car = car
        self._folder = folder
        self._authority = authority
        self._installed = OLDER

    def see(self, act: Act, stand: Stand) -> Answer:
        """One installation of what is served as the bundle."""
        slot = Path(self._car.profile.slots.a)
        body = act.world.bundle
        for _ in range(_TRIES):
            shutil.rmtree(slot, ignore_errors=True)
            answer, log = self._once(act, stand, body)
            if not isinstance(body, bytes) or (_decided(log) and not any(mark in log for mark in _LOST)):
                break
        if answer.did is not Did.ACCEPTED:
            return answer
        self._installed = act.world.offer.sequence
        if isinstance(body, bytes) and self._more_than_installed(body, slot):
            return Answer(Did.SKIPPED, "it installed the signed files and passed over the rest")
        return answer

    def _once(self, act: Act, stand: Stand, body: object) -> tuple[Answer, str]:
        # A folder per run: children of a run that has ended still tidy up in theirs while the next one unpacks. It has
        # a short path: swupdate makes sockets in it.
        with tempfile.TemporaryDirectory(prefix="nwd-", ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch)
            source = ["-d", f"-u {stand.url}{BUNDLE} -r 1"]
            if isinstance(body, bytes):
                bundle = folder / "bundle.swu"
                bundle.write_bytes(body)
                source = ["-i", str(bundle)]
            temporary = folder / "t" / "t"
            temporary.mkdir(parents=True)
            text, held = run_watched([*self._order(), *source], folder, {"TMPDIR": str(temporary)}, stand)
        if held:
            words = f"it was still downloading when it was ended, after {stand.sent[BUNDLE]} bytes"
            return Answer(Did.HELD, words), text
        return _verdict(text, stand, body), text

    def _order(self) -> list[str]:
        hardware = f"{self._car.record.board}:{self._car.record.revision}"
        return [
            self._program, "-l", "5", "-k", str(self._authority), "--cert-purpose", "codeSigning",
            "-e", f"{hardware.partition(':')[2]},{COPY_A}", "-H", hardware, "-N", version_text(self._installed),
        ]  # fmt: skip

    def _more_than_installed(self, body: bytes, slot: Path) -> bool:
        """Whether the bundle had entries that are neither its head nor in the slot."""
        names = {part.name for part in take_apart(body)[2:]}
        return bool(names - {path.name for path in slot.iterdir()})


def _decided(log: str) -> bool:
    return _GOOD in log or _BAD in log


def _verdict(log: str, stand: Stand, body: object) -> Answer:
    if _GOOD in log and _BAD not in log:
        return Answer(Did.ACCEPTED, "it installed the bundle: SWUPDATE successful")
    words = [found.group(1).strip() for line in log.splitlines() if (found := _WORDS.search(line))]
    said = next(
        (word for word in words if word and "Image invalid" not in word), "it installed nothing and gave no reason"
    )
    if not isinstance(body, bytes) and stand.sent[BUNDLE] >= getattr(body, "most", 1 << 62):
        return Answer(Did.HELD, f"it took all {stand.sent[BUNDLE]} bytes that were sent; then: {said[:200]}")
    return Answer(Did.REFUSED, said[:500])
