"""A judge in plain Python: what a rig's computer has to do, from the question to the signed answer.

    braking_rig.py KEY          # in the folder with request.json and artifact.bin; writes evidence.json

It knows nothing of nwmctl: JSON, one hash, one ed25519 signature (package ``cryptography``). What it measures here is
only how long the artifact's bytes are, so that it runs anywhere; put your rig where ``measure`` is.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

TYPE = "application/vnd.nwmctl.judge-evidence+json"


def measure(payload: bytes, limit: float | None) -> tuple[str, float]:
    """Verdict and figure. A real judge drives, brakes and times here."""
    megabytes = len(payload) / 1e6
    return ("passed" if limit is None or megabytes <= limit else "failed"), megabytes


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def main(key_file: str) -> None:
    request = json.loads(Path("request.json").read_bytes())
    payload = Path("artifact.bin").read_bytes()
    if request["payload"] != f"sha256:{hashlib.sha256(payload).hexdigest()}":
        sys.exit("these are not the bytes that I am asked about")
    results = []
    for check in request["checks"]:
        verdict, size = measure(payload, request.get("margins", {}).get(check, {}).get("payload_mb"))
        figure = {"name": "payload_mb", "value": size, "unit": "MB", "obtained": "estimated"}
        summary = f"the payload has {size:.1f} MB"
        results.append(
            {"check": check, "verdict": verdict, "obtained": "estimated", "summary": summary, "figures": [figure]}
        )
    evidence = {
        "schema": "nwmctl.judge-evidence/1",
        "judge": "braking-rig",
        "version": "example 1",
        "case": request["case"],
        "results": results,
        "used": {"rig": "none: an example"},
    }
    body = canonical(evidence)
    key = load_pem_private_key(Path(key_file).read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    signature = key.sign(b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), len(body), body))
    envelope = {
        "payload": base64.b64encode(body).decode(),
        "payloadType": TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    Path("evidence.json").write_bytes(canonical(envelope))


if __name__ == "__main__":
    main(sys.argv[1])
