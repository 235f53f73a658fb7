"""A gateway of a few lines for tests of the client: it says what the test wants and keeps what it hears."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import httpx

from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.fleet import AssignmentState
from nwmctl.formats import ddi

BASE = "http://gateway.test"


@dataclass
class FakeGateway:
    """``offers`` is open until a closed feedback arrives; ``bundle`` is what lies behind its link."""

    bundle: bytes = b""
    offers: ddi.Deployment | None = None
    cancels: int | None = None
    down: bool = False
    forgets: bool = False
    feedbacks: list[ddi.Feedback] = field(default_factory=list)
    cancel_feedbacks: list[ddi.Feedback] = field(default_factory=list)
    attributes: list[dict[str, str]] = field(default_factory=list)
    garbage: int = 0
    tokens: set[str | None] = field(default_factory=set)
    downloads: int = 0
    polls: int = 0

    def offer_bundle(self, action: int, sequence: int, bundle: bytes) -> None:
        self.bundle = bundle
        href = f"{BASE}/files/bundle.swu"
        artifact = ddi.DdiArtifact("bundle.swu", "0" * 40, digest_bytes(bundle).hex, len(bundle), href)
        self.offer(action, ddi.PART_BUNDLE, sequence, (artifact,))

    def offer(self, action: int, part: str, sequence: int, artifacts: tuple[ddi.DdiArtifact, ...] = ()) -> None:
        meta = {ddi.META_SEQUENCE: str(sequence), ddi.META_TUF_NAME: "bundle.swu"}
        self.offers = ddi.Deployment(action, (ddi.Chunk(part, "nwm", "1", artifacts, meta),))

    def retry(self, action: int) -> None:
        assert self.offers is not None
        self.offers = replace(self.offers, action=action)

    @property
    def closings(self) -> list[ddi.Feedback]:
        return [feedback for feedback in self.feedbacks if feedback.execution is ddi.Execution.CLOSED]

    @property
    def stages(self) -> list[AssignmentState | None]:
        return [feedback.stage for feedback in self.feedbacks]

    def facts(self) -> object:
        return ddi.slot_facts(self.attributes[-1])

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer), verify=False, trust_env=False)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("connection refused", request=request)
        self.tokens.add(request.headers.get("Authorization"))
        path = request.url.path
        if path.startswith("/files/"):
            self.downloads += 1
            start = int(request.headers.get("Range", "bytes=0-")[6:-1])
            place = {"Content-Range": f"bytes {start}-{len(self.bundle) - 1}/{len(self.bundle)}"} if start else {}
            return httpx.Response(206 if start else 200, stream=httpx.ByteStream(self.bundle[start:]), headers=place)
        if path.endswith("/feedback"):
            return self._hear(path, request.content)
        if path.endswith("/configData"):
            self.attributes.append(ddi.decode_config_data(request.content))
            return httpx.Response(200)
        if "/deploymentBase/" in path and self.offers is not None:
            return httpx.Response(200, content=ddi.encode_deployment(self.offers))
        if "/cancelAction/" in path and self.cancels is not None:
            return httpx.Response(200, content=ddi.encode_cancel(ddi.Cancel(self.cancels)))
        return self._poll(str(request.url))

    def _poll(self, base: str) -> httpx.Response:
        self.polls += 1
        polling = ddi.Polling(0.01)
        if self.cancels is not None:
            polling = replace(polling, cancel=f"{base}/cancelAction/{self.cancels}")
        elif self.offers is not None:
            polling = replace(polling, deployment=f"{base}/deploymentBase/{self.offers.action}")
        return httpx.Response(200, content=ddi.encode_polling(polling))

    def _hear(self, path: str, body: bytes) -> httpx.Response:
        try:
            feedback = ddi.decode_feedback(body)
        except Exception:
            self.garbage += 1
            return httpx.Response(400)
        if self.forgets:
            return httpx.Response(410)
        if "/cancelAction/" in path:
            self.cancel_feedbacks.append(feedback)
            self.cancels = self.offers = None
        else:
            self.feedbacks.append(feedback)
            if feedback.execution is ddi.Execution.CLOSED:
                self.offers = None
        return httpx.Response(200)
