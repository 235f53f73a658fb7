"""A small reader of the reference dialect, written from its description and from nothing of the product.

It follows the director (root, targets) and the image repository (root, timestamp, snapshot, targets, delegations) and
says which file a computer should install, or raises ``Refused``.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Get = Callable[[str], bytes | None]


class Refused(Exception):
    """The client would not go on."""


def follow(get: Get, now: datetime, hardware: dict[str, str]) -> dict[str, str]:
    """serial -> sha256 of the file that it should install; checks director against image repository."""
    director = _root(get, "director")
    ordered = _read(get, "director/targets.json", "Targets", director["keys"], director["roles"]["targets"], now)
    image = _root(get, "repo")
    keys, roles = image["keys"], image["roles"]
    timestamp = _read(get, "repo/timestamp.json", "Timestamp", keys, roles["timestamp"], now)
    about = timestamp["meta"]["snapshot.json"]
    raw = _need(get, "repo/snapshot.json")
    if len(raw) != about["length"] or hashlib.sha256(raw).hexdigest() != about["hashes"]["sha256"]:
        raise Refused("snapshot")
    snapshot = _read(get, "repo/snapshot.json", "Snapshot", keys, roles["snapshot"], now)
    targets = _read(get, "repo/targets.json", "Targets", keys, roles["targets"], now)
    _same(targets["version"], snapshot["meta"]["targets.json"]["version"], "targets version")
    found = {}
    for name, wanted in ordered["targets"].items():
        listed = _find(get, name, targets, snapshot, now)
        _same(wanted["length"], listed["length"], "length")
        _same(wanted["hashes"], listed["hashes"], "hashes")
        for serial, ecu in wanted["custom"]["ecuIdentifiers"].items():
            if hardware.get(serial) != ecu["hardwareId"] or ecu["hardwareId"] not in listed["custom"]["hardwareIds"]:
                raise Refused("hardware")
            found[serial] = wanted["hashes"]["sha256"]
    return found


def _root(get: Get, repository: str) -> dict[str, Any]:
    root: dict[str, Any] = {}
    number = 1
    while (raw := get(f"{repository}/{number}.root.json")) is not None:
        signed = _verified(raw, "Root", *_keys_of(json.loads(raw)["signed"], "root"))
        if root:
            _verified(raw, "Root", *_keys_of(root, "root"))
        _same(signed["version"], number, "root version")
        root, number = signed, number + 1
    if not root:
        raise Refused("no root")
    return root


def _keys_of(root: dict[str, Any], role: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return root["keys"], root["roles"][role]


def _read(get: Get, path: str, kind: str, keys: dict[str, Any], role: dict[str, Any], now: datetime) -> dict[str, Any]:
    signed = _verified(_need(get, path), kind, keys, role)
    if datetime.strptime(signed["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) <= now:
        raise Refused(f"{path} expired")
    return signed


def _find(get: Get, name: str, targets: dict[str, Any], snapshot: dict[str, Any], now: datetime) -> dict[str, Any]:
    if name in targets["targets"]:
        return dict(targets["targets"][name])
    for role in targets.get("delegations", {}).get("roles", []):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in role["paths"]):
            path = f"repo/delegations/{role['name']}.json"
            more = _read(get, path, "Targets", targets["delegations"]["keys"], role, now)
            _same(more["version"], snapshot["meta"][f"{role['name']}.json"]["version"], path)
            if name in more["targets"]:
                return dict(more["targets"][name])
    raise Refused(f"{name} is not listed")


def _verified(raw: bytes, kind: str, keys: dict[str, Any], role: dict[str, Any]) -> dict[str, Any]:
    envelope = json.loads(raw)
    signed: dict[str, Any] = envelope["signed"]
    _same(signed["_type"], kind, "type")
    text = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    good = set()
    for row in envelope["signatures"]:
        _same(row["method"], "ed25519", "method")
        key = keys.get(row["keyid"])
        if key is None or row["keyid"] not in role["keyids"] or key["keytype"] != "ED25519":
            continue
        public = key["keyval"]["public"]
        _same(row["keyid"], hashlib.sha256(public.encode()).hexdigest(), "key id")
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(
                base64.b64decode(row["sig"], validate=True), text
            )
        except InvalidSignature:
            continue
        good.add(row["keyid"])
    if len(good) < role["threshold"]:
        raise Refused(f"{kind}: {len(good)} of {role['threshold']} signatures")
    return signed


def _need(get: Get, path: str) -> bytes:
    raw = get(path)
    if raw is None:
        raise Refused(f"{path} is missing")
    return raw


def _same(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise Refused(f"{what}: {found!r} is not {expected!r}")
