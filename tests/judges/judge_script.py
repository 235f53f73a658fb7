"""A judge as its author writes it: standard library and one signature. Run in the folder that nwmctl lays out.

    judge_script.py KEY [OBTAINED]

Independent of nwmctl on purpose: what it writes is built from the documentation, not from the code under test.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key

TYPE = "application/vnd.nwmctl.judge-evidence+json"


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def main(key_file: str, obtained: str = "bench") -> None:
    request = json.loads(Path("request.json").read_bytes())
    payload = Path("artifact.bin").read_bytes()
    assert request["payload"] == "sha256:" + hashlib.sha256(payload).hexdigest()
    figure = {"name": "score_shift", "value": 0.01, "unit": "", "obtained": obtained, "low": 0.0, "high": 0.02}
    results = [
        {
            "check": check,
            "verdict": "passed",
            "obtained": obtained,
            "summary": "drove 400 laps",
            "figures": [figure],
            "seeds": [request["seed"]],
        }
        for check in request["checks"]
    ]
    evidence = canonical(
        {
            "schema": "nwmctl.judge-evidence/1",
            "judge": "rig",
            "version": "script 1",
            "case": request["case"],
            "results": results,
            "used": {"laps": "400"},
        }
    )
    key = load_pem_private_key(Path(key_file).read_bytes(), None)
    signed = b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), len(evidence), evidence)
    signature = key.sign(signed)  # type: ignore[union-attr, call-arg]
    envelope = {
        "payload": base64.b64encode(evidence).decode(),
        "payloadType": TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    Path("evidence.json").write_bytes(canonical(envelope))


if __name__ == "__main__":
    main(*sys.argv[1:])
