"""bundle and sign alone: the same papers give the same bytes, every paper counts, and only good papers are signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nwmctl.bundling.pack import PackingOrder
from nwmctl.bundling.read import read_bundle
from nwmctl.domain.artifact import ArtifactManifest
from nwmctl.domain.bundle import BundleKind, BundleManifest
from nwmctl.domain.digest import Digest, digest_bytes
from nwmctl.domain.evidence import Evidence
from nwmctl.domain.packing import Compression
from nwmctl.domain.step import Outcome
from nwmctl.domain.work import BundleWork, FleetRulesWork, SignWork
from nwmctl.errors import BundlePlanError, NwmError
from nwmctl.formats import documents
from nwmctl.formats.codec import to_plain
from nwmctl.formats.scripts import JOIN_TEMPLATE_NAME
from nwmctl.formats.swu import parse_description
from nwmctl.steps.bundle import bundle_step
from nwmctl.steps.sign import sign_step
from nwmctl.storage.content import ContentStore
from nwmctl.trust.cms import verify_cms
from nwmctl.trust.keys import KeyRing, KeyRole, init_keys
from nwmctl.trust.payload_key import PayloadKey
from tests.bundling import samples
from tests.project import STRANGER
from tests.steps.conftest import quiet
from tests.steps.papers import SIGN_WORK, WORK, bundle_inputs, sign_inputs
from tests.trust.conftest import real_now
from tests.trust.papers import BAD, BENCH, POLICY


def bundled(store: ContentStore, inputs: dict[str, Digest], work: BundleWork = WORK) -> Outcome:
    return bundle_step(store).run(to_plain(work), inputs, quiet)


def signed(store: ContentStore, keys: KeyRing, inputs: dict[str, Digest], work: SignWork = SIGN_WORK) -> Outcome:
    papers = sign_inputs(store, inputs, bundled(store, inputs, work.bundle).outputs)
    return sign_step(store, keys, None, (), real_now()).run(to_plain(work), papers, quiet)


def manifest(store: ContentStore, outcome: Outcome) -> BundleManifest:
    return documents.decode(BundleManifest, store.read(outcome.outputs["bundle"]), "bundle")


# --- bundle -------------------------------------------------------------------------------------------------------


def test_a_bundle_holds_every_build_and_every_vehicle_model(store: ContentStore) -> None:
    outcome = bundled(store, bundle_inputs(store))
    made = manifest(store, outcome)
    assert {(payload.variant, payload.build) for payload in made.payloads} == {
        ("big", "gpu"), ("big", "cpu"), ("small", "cpu"),
    }  # fmt: skip
    assert {file.vehicle_model for file in made.chassis} == {"v1", "v2"}
    plain = len(samples.GPU) + len(samples.CPU)
    summary = dict(outcome.summary)
    packed = summary.pop("packed_bytes")
    assert summary == {
        "payloads": 2, "payload_bytes": plain, "chassis_adaptations": 2, "virtual_fleets_only": True,
    }  # fmt: skip
    assert isinstance(packed, int)
    assert 0 < packed < plain / 5


def test_only_the_revisions_that_execute_a_payload_are_offered_it(store: ContentStore) -> None:
    made = bundled(store, bundle_inputs(store))
    described = parse_description(store.read(made.outputs["description"]))
    offered = {
        revision: {file.filename for file in described.files_of(revision) if file.filename.startswith("payload-")}
        for revision in described.revisions
    }
    gpu, cpu = (f"payload-{digest_bytes(data).hex[:16]}.vmfb" for data in (samples.GPU, samples.CPU))
    assert offered == {"r1": {gpu, cpu}, "r2": {cpu}}


def test_a_key_a_codec_and_a_template_are_in_the_key_of_the_step(store: ContentStore) -> None:
    orders = [
        PackingOrder(),
        PackingOrder(Compression.NONE),
        PackingOrder(key=PayloadKey(bytes(32))),
        PackingOrder(key=PayloadKey(b"1" * 32)),
    ]
    steps = [bundle_step(store, order) for order in orders] + [bundle_step(store, join_template="#!")]
    assert len({step.key(to_plain(WORK), {}) for step in steps}) == len(steps)
    assert not any("1" * 32 in step.fingerprint(WORK) for step in steps)


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_a_large_payload_is_signed_in_parts(store: ContentStore, keys: KeyRing, key: bytes | None) -> None:
    order = PackingOrder(Compression.ZSTD, PayloadKey(key) if key else None, part_bytes=500)
    inputs = bundle_inputs(store)
    made = bundle_step(store, order, (samples.ROOT / "templates" / JOIN_TEMPLATE_NAME).read_text())
    outputs = made.run(to_plain(WORK), inputs, quiet).outputs
    step = sign_step(store, keys, None, (), real_now())
    outcome = step.run(to_plain(SIGN_WORK), sign_inputs(store, inputs, outputs), quiet)
    path = store.path(outcome.outputs["swu"])
    contents = read_bundle(path, lambda data, signature: None, key)
    assert sorted(size for name, size in contents.sizes.items() if name.startswith("payload-")) == sorted(
        [len(samples.GPU), len(samples.CPU)]
    )
    assert contents.sealed == ()
    without = read_bundle(path, lambda data, signature: None)
    assert len(without.sealed) == (2 if key else 0)


def test_the_same_papers_give_the_same_bundle_elsewhere(store: ContentStore, tmp_path: Path) -> None:
    other = ContentStore(tmp_path / "elsewhere")
    assert bundled(store, bundle_inputs(store)) == bundled(other, bundle_inputs(other))


@pytest.mark.parametrize(
    "work", [replace(WORK, sequence=8), replace(WORK, release="nwm-y"), replace(WORK, kind=BundleKind.RETURN)]
)
def test_sequence_release_and_kind_are_in_the_bundle(store: ContentStore, work: BundleWork) -> None:
    inputs = bundle_inputs(store)
    assert bundled(store, inputs, work).outputs["bundle"] != bundled(store, inputs).outputs["bundle"]


def test_evidence_that_would_do_for_a_real_fleet_is_not_marked_virtual(store: ContentStore) -> None:
    inputs = bundle_inputs(store)
    policy = POLICY.replace(b"latency: {weakest: bench}", b"latency: {weakest: bench, required: false}")
    inputs["policy"] = store.put_bytes(policy)
    for name in [name for name in inputs if name.startswith("evidence:")]:
        pack = documents.decode(Evidence, store.read(inputs[name]), name)
        inputs[name] = store.put_bytes(documents.encode(replace(pack, results=(BENCH,))))
    assert manifest(store, bundled(store, inputs)).virtual_only is False


@pytest.mark.parametrize("jit", [False, True])
def test_what_a_driver_compiles_further_is_virtual_until_a_bench_has_seen_it(store: ContentStore, jit: bool) -> None:
    inputs = bundle_inputs(store)
    policy = POLICY.replace(b"parity: {weakest: bench", b"parity: {weakest: proxy")
    policy = policy.replace(b"latency: {weakest: bench}", b"latency: {weakest: estimated, required: false}")
    inputs["policy"] = store.put_bytes(policy)
    made = documents.decode(ArtifactManifest, store.read(inputs["manifest:big/gpu"]), "manifest")
    inputs["manifest:big/gpu"] = store.put_bytes(documents.encode(replace(made, jit_in_vehicle=jit)))
    pack = documents.decode(Evidence, store.read(inputs["evidence:big/gpu"]), "evidence")
    pack = replace(pack, artifact=inputs["manifest:big/gpu"])
    inputs["evidence:big/gpu"] = store.put_bytes(documents.encode(pack))
    assert manifest(store, bundled(store, inputs)).virtual_only is jit


def test_an_artifact_of_another_model_is_refused(store: ContentStore) -> None:
    inputs = bundle_inputs(store)
    stray = replace(samples.manifest(samples.GPU, "gpu"), model=samples.POLICY)
    inputs["manifest:big/gpu"] = store.put_bytes(documents.encode(stray))
    with pytest.raises(BundlePlanError, match="cannot be put together"):
        bundled(store, inputs)


# --- sign ---------------------------------------------------------------------------------------------------------


def test_a_signed_bundle_is_whole_and_verifies(store: ContentStore, keys: KeyRing) -> None:
    outcome = signed(store, keys, bundle_inputs(store))
    path = store.path(outcome.outputs["swu"])
    now = real_now().now_us()
    contents = read_bundle(path, lambda data, signature: verify_cms(data, signature, keys.ca_pem(), now))
    assert contents.manifest.sequence == 7
    assert outcome.summary["_file"] == contents.manifest.filename
    assert outcome.summary["size"] == path.stat().st_size
    assert outcome.summary["development_key"] is True


def test_signing_again_gives_the_same_bytes_signature_included(
    store: ContentStore, keys: KeyRing, tmp_path: Path
) -> None:
    other = ContentStore(tmp_path / "elsewhere")
    assert signed(store, keys, bundle_inputs(store)) == signed(other, keys, bundle_inputs(other))


def test_the_key_of_the_step_names_the_key_that_signs(store: ContentStore, keys: KeyRing, tmp_path: Path) -> None:
    other = init_keys(tmp_path / "keys", real_now(), [KeyRole.RELEASE], development=True)
    step, another = (sign_step(store, ring, None, (), real_now()) for ring in (keys, other))
    assert step.key(to_plain(SIGN_WORK), {}) != another.key(to_plain(SIGN_WORK), {})
    later = sign_step(store, keys, "secret", (tmp_path / "approval",), real_now())
    assert later.key(to_plain(SIGN_WORK), {}) == step.key(to_plain(SIGN_WORK), {}), "what only opens the door"


def _failed_evidence(store: ContentStore, inputs: dict[str, Digest]) -> SignWork:
    pack = documents.decode(Evidence, store.read(inputs["evidence:big/gpu"]), "evidence")
    inputs["evidence:big/gpu"] = store.put_bytes(documents.encode(replace(pack, results=(BAD,))))
    return SIGN_WORK


def _real_fleet(store: ContentStore, inputs: dict[str, Digest]) -> SignWork:
    return replace(SIGN_WORK, rules=FleetRulesWork(False))


def _strangers_policy(store: ContentStore, inputs: dict[str, Digest]) -> SignWork:
    return replace(SIGN_WORK, safety_keys=(STRANGER.public,))


@pytest.mark.parametrize(("spoil", "code"), [(_failed_evidence, 5), (_real_fleet, 5), (_strangers_policy, 4)])
def test_bad_papers_are_not_signed_and_leave_no_bundle(
    store: ContentStore, keys: KeyRing, spoil: Any, code: int
) -> None:
    inputs = bundle_inputs(store)
    work = spoil(store, inputs)
    with pytest.raises(NwmError) as caught:
        signed(store, keys, inputs, work)
    assert caught.value.exit_code == code, caught.value
    kept = [path for path in store.path(inputs["card"]).parents[1].rglob("*") if path.is_file()]
    assert not [path for path in kept if path.read_bytes().startswith(b"070702")], "no .swu is in the store"
