"""The certificate of a release: what it holds, what it is not drawn up for, the walk back from it, and forged ones.

All of it on one small deployment that was walked to its end (``walked``).
"""

from __future__ import annotations

import base64
import io
import json
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nwmctl.app.verify import _beside
from nwmctl.domain.certificate import (
    BundlePapers,
    BundleToCertify,
    Certificate,
    CertificationRequest,
    Dossier,
    LeafKind,
    LinkState,
    LinkTopic,
)
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.evidence import Check, Evidence
from nwmctl.domain.figure import Obtained
from nwmctl.domain.policy import Rule
from nwmctl.domain.release import Tighten
from nwmctl.errors import (
    ApprovalNeededError,
    BundleContentsError,
    CertificateUntrustedError,
    CertificationRefusedError,
    ChainBrokenError,
    ContentSignatureError,
    DossierFormatError,
    DossierMismatchError,
    LeafMissingError,
    LeafUnprovenError,
    NwmError,
    OtherReleaseError,
    PaperAlteredError,
    PayloadTypeError,
    SealError,
    UntrustedSignatureError,
    VerificationError,
)
from nwmctl.formats import canonical, cpio, documents
from nwmctl.formats.swu import DESCRIPTION_NAME, SIGNATURE_NAME
from nwmctl.storage.content import ContentStore
from nwmctl.trust.certificate import draw_up
from nwmctl.trust.certifier import _judged, certify, recheck, request_certificate
from nwmctl.trust.cms import sign_cms
from nwmctl.trust.dossier import by_name, expect_leaf, expect_release, open_certificate, read_dossier
from nwmctl.trust.keys import KeyRing, KeyRole, init_keys
from nwmctl.trust.seal import CERTIFICATE_TYPE, STATEMENT_TYPE, open_seal, sealer
from nwmctl.trust.walk import Anchors, Certified, walk
from tests.e2e.command import ROOT, refused
from tests.mutants import Hunting, mutants
from tests.project import MODEL_KEY, SAFETY_KEY, STRANGER
from tests.real import require_real
from tests.steps.conftest import Road
from tests.trust.conftest import real_now

PLACES = ("release/virtual", "return/virtual")


@pytest.fixture(scope="module")
def data(walked: Road) -> bytes:
    store = ContentStore(walked.place.workspace / "content")
    return store.read(walked.outcomes["certify"].outputs["dossier"])


@pytest.fixture(scope="module")
def dossier(data: bytes) -> Dossier:
    return read_dossier(data, "dossier")


@pytest.fixture(scope="module")
def anchors(keys: KeyRing) -> Anchors:
    return Anchors(keys.ca_pem(), real_now().now_us(), (SAFETY_KEY.public,), (MODEL_KEY.public,))


@pytest.fixture(scope="module")
def request_(walked: Road, keys: KeyRing) -> CertificationRequest:
    """What the road's own certificate was asked for with."""
    store = ContentStore(walked.place.workspace / "content")
    made = [walked.outcomes[f"sign/{place}"].outputs for place in PLACES]
    bundles = tuple(BundleToCertify(str(store.path(one["swu"])), str(store.path(one["papers"]))) for one in made)
    return CertificationRequest(
        "tiny-2", 20, ("virtual",), True, (SAFETY_KEY.public,), (MODEL_KEY.public,), Tighten(), bundles,
        str(keys.folder), real_now().now_us(),
    )  # fmt: skip


def opened(dossier: Dossier, anchors: Anchors) -> Certificate:
    return open_certificate(dossier, anchors.ca_pem, anchors.at_us)


# --- what is in it ------------------------------------------------------------------------------------------------


def test_every_thing_of_the_release_is_a_leaf(walked: Road, dossier: Dossier, anchors: Anchors) -> None:
    certificate, leaves = opened(dossier, anchors), by_name(dossier.leaves)
    assert certificate.leaves == len(leaves)
    assert (certificate.status, certificate.virtual_only, certificate.development) == ("draft", True, True)
    kinds = {kind for kind, _ in leaves}
    assert kinds == set(LeafKind) - {LeafKind.JUDGE, LeafKind.APPROVAL}, "nobody was asked for these here"
    for place in PLACES:
        outputs = walked.outcomes[f"sign/{place}"].outputs
        assert outputs["swu"] in {digest for (kind, _), digest in leaves.items() if kind is LeafKind.BUNDLE}
        where = f"{place}/host/host"
        evidence = walked.outcomes[f"validate/{where}"].outputs["evidence"]
        assert leaves[LeafKind.EVIDENCE, where] == evidence
    pulled = walked.outcomes["pull/release"].outputs
    assert leaves[LeafKind.MODEL, "release"] == pulled["card"] == certificate.model
    assert leaves[LeafKind.MODEL_FILE, "release/weights"] == pulled["weights"]
    assert leaves[LeafKind.ORIGIN, "release"] == pulled["origin"]


def test_every_paper_is_the_text_behind_a_leaf(dossier: Dossier) -> None:
    digests = {str(one.leaf.digest) for one in dossier.leaves}
    assert dossier.papers.keys() <= digests
    without = {one.leaf.kind for one in dossier.leaves if str(one.leaf.digest) not in dossier.papers}
    assert without == {LeafKind.BUNDLE, LeafKind.PAYLOAD, LeafKind.MODEL_FILE}, "bytes that are no texts"


def statement(dossier: Dossier, kind: LeafKind, anchors: Anchors) -> dict[str, Any]:
    digest = by_name(dossier.leaves)[kind, "release/virtual/host/host"]
    envelope = dossier.papers[str(digest)].encode()
    return json.loads(open_seal(envelope, STATEMENT_TYPE, anchors.ca_pem, anchors.at_us))  # type: ignore[no-any-return]


def test_the_provenance_is_slsa_s(dossier: Dossier, anchors: Anchors) -> None:
    told, leaves = statement(dossier, LeafKind.PROVENANCE, anchors), by_name(dossier.leaves)
    assert (told["_type"], told["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    payload = leaves[LeafKind.PAYLOAD, "release/virtual/host/host"]
    assert [one["digest"]["sha256"] for one in told["subject"]] == [payload.hex]
    definition, details = told["predicate"]["buildDefinition"], told["predicate"]["runDetails"]
    assert {"buildType", "externalParameters", "resolvedDependencies"} <= definition.keys()
    inputs = {one.get("digest", {}).get("sha256") for one in definition["resolvedDependencies"]}
    for leaf in ((LeafKind.MODEL, "release"), (LeafKind.MODEL_FILE, "release/weights")):
        assert leaves[leaf].hex in inputs
    assert all("digest" in one or "uri" in one for one in definition["resolvedDependencies"])
    assert details["builder"]["id"].startswith("urn:")
    assert {one["name"] for one in details["byproducts"]} == {"artifact manifest", "evidence"}


def test_the_checks_are_told_with_how_they_were_obtained(dossier: Dossier, anchors: Anchors) -> None:
    told, leaves = statement(dossier, LeafKind.CHECKS, anchors)["predicate"], by_name(dossier.leaves)
    digest = leaves[LeafKind.EVIDENCE, "release/virtual/host/host"]
    pack = documents.decode(Evidence, dossier.papers[str(digest)].encode(), "evidence")
    assert told["policy"]["digest"]["sha256"] == leaves[LeafKind.POLICY, "policy"].hex
    assert [one["check"] for one in told["results"]] == [one.check for one in pack.results]
    for said, result in zip(told["results"], pack.results, strict=True):
        assert (said["verdict"], said["obtained"]) == (result.verdict, result.obtained)
        assert all(figure["obtained"] for figure in said["figures"])
    assert (told["status"], told["virtualOnly"]) == ("draft", True)


def bill(dossier: Dossier) -> dict[str, Any]:
    digest = by_name(dossier.leaves)[LeafKind.BILL, "release"]
    return json.loads(dossier.papers[str(digest)])  # type: ignore[no-any-return]


def test_the_bill_of_materials_tells_what_was_not_run(dossier: Dossier) -> None:
    told = bill(dossier)
    properties = {one["name"]: one["value"] for one in told["metadata"]["properties"]}
    assert (properties["nwmctl:status"], properties["nwmctl:virtual_only"]) == ("draft", "true")
    models = [one for one in told["components"] if one["bom-ref"].startswith("model/")]
    artifacts = [one for one in told["components"] if one["bom-ref"].startswith("artifact/")]
    assert len(models) == 2
    assert len(artifacts) == 2
    assert all(one["modelCard"]["modelParameters"]["datasets"] for one in models)
    for one in artifacts:
        assert all(
            "obtained: " in each["slice"] for each in one["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        )
        unrun = [each for each in one["properties"] if each["name"].startswith("nwmctl:not_run:")]
        digest = next(each["value"] for each in one["properties"] if each["name"] == "nwmctl:evidence")
        pack = documents.decode(Evidence, dossier.papers[digest].encode(), "evidence")
        assert len(unrun) == sum(result.verdict == "not_run" for result in pack.results)


def test_the_bill_of_materials_is_cyclonedx_1_6(dossier: Dossier) -> None:
    install = "pip install 'cyclonedx-python-lib[json-validation]'"
    require_real("cyclonedx-python-lib", find_spec("cyclonedx") is not None, install)
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    digest = by_name(dossier.leaves)[LeafKind.BILL, "release"]
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(dossier.papers[str(digest)]) is None
    spoilt = dossier.papers[str(digest)].replace('"performanceMetrics"', '"performance"')
    assert validator.validate_str(spoilt) is not None, "the schema does look at model cards"


# --- what it is not drawn up for ----------------------------------------------------------------------------------


def test_the_same_release_has_the_same_dossier(request_: CertificationRequest, data: bytes) -> None:
    assert documents.encode(request_certificate(request_)) == data


def respell(tmp_path: Path, request: CertificationRequest, change: Callable[[BundlePapers], BundlePapers]) -> Any:
    """The request with one bundle's papers changed."""
    first, *others = request.bundles
    papers = documents.decode(BundlePapers, Path(first.papers).read_bytes(), "papers")
    place = tmp_path / f"{secrets.token_hex(4)}.json"
    place.write_bytes(documents.encode(change(papers)))
    return replace(request, bundles=(replace(first, papers=str(place)), *others))


def test_a_certificate_is_refused_for(
    request_: CertificationRequest, keys: KeyRing, walked: Road, tmp_path: Path
) -> None:
    first, second = request_.bundles
    other = init_keys(tmp_path / "other", real_now(), [KeyRole.RELEASE], development=True)
    papers = documents.decode(BundlePapers, Path(second.papers).read_bytes(), "papers")
    cut = tmp_path / "cut.swu"
    cut.write_bytes(Path(first.swu).read_bytes()[:-2000])
    cases: list[tuple[CertificationRequest, type[NwmError]]] = [
        (replace(request_, bundles=(first,)), CertificationRefusedError),
        (replace(request_, bundles=(first, second, second)), CertificationRefusedError),
        (replace(request_, bundles=(replace(first, papers=second.papers), second)), CertificationRefusedError),
        (replace(request_, bundles=(replace(first, swu=str(cut)), second)), NwmError),
        (replace(request_, sequence=21), OtherReleaseError),
        (replace(request_, release="tiny-3"), OtherReleaseError),
        (replace(request_, platforms=("virtual", "nt2.0")), CertificationRefusedError),
        (replace(request_, safety_keys=(STRANGER.public,)), UntrustedSignatureError),
        (replace(request_, model_keys=(STRANGER.public,)), UntrustedSignatureError),
        (replace(request_, tighten=Tighten(approvals=1)), ApprovalNeededError),
        (replace(request_, keys=str(other.folder)), CertificateUntrustedError),
        (respell(tmp_path, request_, lambda one: replace(one, evidence=papers.evidence)), VerificationError),
        (
            respell(tmp_path, request_, lambda one: replace(one, description=papers.description)),
            CertificationRefusedError,
        ),
    ]  # fmt: skip
    for request, error in cases:
        with pytest.raises(error):
            certify(request)
    profile = papers.profile.replace('"name":"virtual"', '"name":"nt9"')
    strange = respell(tmp_path, request_, lambda one: replace(one, profile=profile))
    with pytest.raises(CertificationRefusedError, match="profile"):
        certify(strange)
    origin = papers.origin.replace("model-card", "openssf")
    lied = respell(tmp_path, request_, lambda one: replace(one, origin=origin))
    with pytest.raises(CertificationRefusedError, match="origin"):
        certify(lied)


def test_what_a_file_unpacks_to_is_proven_and_not_read_off_a_description(
    request_: CertificationRequest, keys: KeyRing, tmp_path: Path
) -> None:
    """A description that is signed and lies about the plain bytes: their packed ones are right."""
    first, *others = request_.bundles
    entries = {entry.name: entry.read(1 << 30) for entry in cpio.unpack(io.BytesIO(Path(first.swu).read_bytes()).read)}
    description = entries[DESCRIPTION_NAME]
    plain = re.findall(rb'"nwm-plain-sha256":"([0-9a-f]{64})"', description)[0]
    lie = description.replace(plain, digest_bytes(b"other bytes").hex.encode())
    entries |= {DESCRIPTION_NAME: lie, SIGNATURE_NAME: sign_cms(lie, keys)}
    swu = tmp_path / "lie.swu"
    swu.write_bytes(b"".join(cpio.pack(cpio.Member(name, len(data), [data]) for name, data in entries.items())))
    papers = respell(tmp_path, request_, lambda one: replace(one, description=lie.decode())).bundles[0].papers
    with pytest.raises(BundleContentsError, match="contradicts") as refusal:
        certify(replace(request_, bundles=(BundleToCertify(str(swu), papers), *others)))
    assert "unpacks to" in refusal.value.why


def test_staging_refuses_a_dossier_of_other_bundles(road: Road, dossier: Dossier, keys: KeyRing) -> None:
    leaves = tuple(one for one in dossier.leaves if one.leaf.kind is not LeafKind.BUNDLE)
    store = ContentStore(road.place.workspace / "content")
    with road.session() as session:
        step = next(step for step in session.plan() if step.id == "stage")
        for spoilt, error in (
            (replace(dossier, leaves=leaves), LeafMissingError),
            (replace(dossier, leaves=(*dossier.leaves[1:], replace(dossier.leaves[0], index=1))), LeafUnprovenError),
        ):
            outputs = {"dossier": store.put_bytes(documents.encode(spoilt))}
            road.outcomes["certify"] = replace(road.outcomes["certify"], outputs=outputs)
            with pytest.raises(error):
                road.run(session, step)


# --- a dossier from elsewhere, held against the bundles here ------------------------------------------------------


def sealed_otherwise(request: CertificationRequest, keys: KeyRing, change: Callable[[bytes, str], bytes]) -> Dossier:
    """What a certifying host leaves that holds the release key and seals something else than it found."""
    judged = _judged(request, keys)
    seal = sealer(keys)
    return draw_up(judged, request, lambda data, kind: seal(change(data, kind), kind), development=True)


def test_a_dossier_is_rechecked_without_the_release_key(
    request_: CertificationRequest, dossier: Dossier, keys: KeyRing, anchors: Anchors, tmp_path: Path
) -> None:
    shutil.copytree(keys.folder, tmp_path / "keys")
    (tmp_path / "keys" / "release.pem").unlink()
    request = replace(request_, keys=str(tmp_path / "keys"))
    assert recheck(request, dossier) == opened(dossier, anchors)
    with pytest.raises(OtherReleaseError):
        recheck(replace(request, sequence=21), dossier)
    with pytest.raises(CertificationRefusedError):
        recheck(replace(request, bundles=request.bundles[:1]), dossier)
    with pytest.raises(DossierMismatchError, match="not the one"):
        recheck(replace(request, tighten=Tighten(TIGHTER)), dossier)


TIGHTER: dict[str, dict[str, Rule]] = {"*": {Check.PARITY: Rule(Obtained.PROXY)}}


def test_what_the_release_key_sealed_is_not_believed_for_that(
    request_: CertificationRequest, dossier: Dossier, keys: KeyRing, anchors: Anchors
) -> None:
    def better_checks(data: bytes, kind: str) -> bytes:
        return data.replace(b'"verdict":"not_run"', b'"verdict":"passed"')

    def for_real_fleets(data: bytes, kind: str) -> bytes:
        return data.replace(b'"virtual_only":true', b'"virtual_only":false') if kind == CERTIFICATE_TYPE else data

    for change, told in ((better_checks, "'checks' release/virtual/host/host"), (for_real_fleets, "its certificate")):
        forged = sealed_otherwise(request_, keys, change)
        opened(forged, anchors)
        with pytest.raises(DossierMismatchError) as refusal:
            recheck(request_, forged)
        assert told in refusal.value.why
    stranger = "a paper that no leaf names"
    padded = replace(dossier, papers={**dossier.papers, str(digest_bytes(stranger.encode())): stranger})
    opened(padded, anchors)
    with pytest.raises(DossierMismatchError, match="not the one"):
        recheck(request_, padded)


# --- the walk -----------------------------------------------------------------------------------------------------


def certified(dossier: Dossier, anchors: Anchors) -> Certified:
    return Certified.of(dossier, opened(dossier, anchors))


def test_the_walk_reaches_the_weights_and_says_what_is_open(dossier: Dossier, anchors: Anchors) -> None:
    known = certified(dossier, anchors)
    weights = known.digest(LeafKind.MODEL_FILE, "release/weights")
    links = list(
        walk(known.manifests["release/virtual"], known, replace(anchors, weights={"release/weights": weights}))
    )
    settled = {link.topic for link in links if link.state is LinkState.ESTABLISHED}
    assert settled == set(LinkTopic) - {LinkTopic.BUNDLE, LinkTopic.FITNESS, LinkTopic.JUDGE}
    assert {link.topic for link in links if link.state is LinkState.OPEN} <= {LinkTopic.EVIDENCE, LinkTopic.FITNESS}
    assert any("fit for a real fleet: NO" in link.text for link in links)
    bare = list(walk(known.manifests["return/virtual"], known, Anchors(anchors.ca_pem, anchors.at_us)))
    left = {link.topic for link in bare if link.state is LinkState.OPEN}
    assert {LinkTopic.POLICY, LinkTopic.MODEL, LinkTopic.WEIGHTS} <= left


def test_a_contradiction_ends_the_walk(dossier: Dossier, anchors: Anchors) -> None:
    known = certified(dossier, anchors)
    manifest = known.manifests["release/virtual"]
    digest = digest_bytes(b"other weights")
    for order in (
        lambda: walk(manifest, known, replace(anchors, weights={"release/weights": digest})),
        lambda: walk(replace(manifest, sequence=22), known, anchors),
    ):
        with pytest.raises(ChainBrokenError):
            list(order())
    for key in ("safety_keys", "model_keys"):
        with pytest.raises(UntrustedSignatureError):
            list(walk(manifest, known, replace(anchors, **{key: (STRANGER.public,)})))
    with pytest.raises(LeafMissingError):
        list(walk(replace(manifest, platform="nt2.0"), known, anchors))
    papers = {name: text for name, text in dossier.papers.items() if name != str(manifest.policy)}
    with pytest.raises(LeafMissingError, match="lacks the text"):
        list(walk(manifest, replace(known, dossier=replace(dossier, papers=papers)), anchors))


# --- forged dossiers ----------------------------------------------------------------------------------------------


def test_every_forged_part_is_refused_by_its_class(dossier: Dossier, anchors: Anchors, keys: KeyRing) -> None:
    one, two = dossier.leaves[:2]
    forged = replace(one, leaf=replace(one.leaf, digest=digest_bytes(b"other")))
    name, text = next(iter(dossier.papers.items()))
    unsigned = canonical.decode(dossier.certificate.encode(), "certificate")
    assert isinstance(unsigned, dict)
    payload = base64.b64decode(str(unsigned["payload"]))
    lie = base64.b64encode(payload.replace(b'"sequence":20', b'"sequence":30')).decode()
    seal = sealer(keys)
    cases: list[tuple[Dossier, type[NwmError]]] = [
        (replace(dossier, leaves=(forged, *dossier.leaves[1:])), LeafUnprovenError),
        (replace(dossier, leaves=(replace(one, path=two.path, index=two.index),)), LeafUnprovenError),
        (replace(dossier, leaves=(replace(one, path=one.path[1:]),)), LeafUnprovenError),
        (replace(dossier, leaves=(one, one)), DossierFormatError),
        (replace(dossier, papers={name: f"{text} "}), PaperAlteredError),
        (replace(dossier, certificate=canonical.encode({**unsigned, "payload": lie}).decode()), ContentSignatureError),
        (replace(dossier, certificate="{}"), SealError),
        (replace(dossier, certificate=f"{dossier.certificate} "), SealError),
        (replace(dossier, certificate=seal(payload, STATEMENT_TYPE).decode()), PayloadTypeError),
        (replace(dossier, certificate=seal(b"{}", CERTIFICATE_TYPE).decode()), NwmError),
    ]
    for spoilt, error in cases:
        with pytest.raises(error):
            opened(spoilt, anchors)
    part = replace(dossier, leaves=(one,), papers={})
    assert opened(part, anchors) == opened(dossier, anchors), "a part of a dossier is as good as its leaves"
    with pytest.raises(OtherReleaseError):
        expect_release(opened(part, anchors), "tiny-2", 21)
    with pytest.raises(LeafMissingError):
        expect_leaf(by_name(part.leaves), two.leaf.kind, two.leaf.name, two.leaf.digest)
    with pytest.raises(LeafUnprovenError):
        expect_leaf(by_name(part.leaves), one.leaf.kind, one.leaf.name, digest_bytes(b"other"))


@pytest.mark.parametrize(
    "garbage", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"schema":"nwmctl.dossier/9"}', b'{"a":' * 50_000]
)
def test_what_is_no_dossier(garbage: bytes) -> None:
    with pytest.raises(DossierFormatError):
        read_dossier(garbage, "x")


def test_another_authority_s_certificate(dossier: Dossier, anchors: Anchors, tmp_path: Path) -> None:
    other = init_keys(tmp_path / "other", real_now(), [KeyRole.RELEASE], development=True)
    with pytest.raises(CertificateUntrustedError):
        open_certificate(dossier, other.ca_pem(), anchors.at_us)
    with pytest.raises(VerificationError):
        open_certificate(dossier, anchors.ca_pem, anchors.at_us + 40 * 366 * 86_400_000_000)


def hunt_dossiers(data: bytes, anchors: Anchors, hunting: Hunting, count: int) -> None:
    with hunting("dossiers") as hunt:
        for way, bad in mutants(data, hunt.seed, count):
            hunt.show(way, lambda bad=bad: opened(read_dossier(bad, "mutant"), anchors))


def hunt_envelopes(dossier: Dossier, anchors: Anchors, hunting: Hunting, count: int) -> None:
    with hunting("sealed envelopes") as hunt:
        for way, bad in mutants(dossier.certificate.encode(), hunt.seed, count):
            hunt.show(way, lambda bad=bad: open_seal(bad, CERTIFICATE_TYPE, anchors.ca_pem, anchors.at_us))


def test_no_mutant_is_accepted(data: bytes, dossier: Dossier, anchors: Anchors, hunting: Hunting) -> None:
    hunt_dossiers(data, anchors, hunting, 40)
    hunt_envelopes(dossier, anchors, hunting, 300)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_mutant_of_many_is_accepted(data: bytes, dossier: Dossier, anchors: Anchors, hunting: Hunting) -> None:
    hunt_dossiers(data, anchors, hunting, 4000)
    hunt_envelopes(dossier, anchors, hunting, 30_000)


# --- the commands -------------------------------------------------------------------------------------------------


def test_verify_walks_a_staged_release(walked: Road, tmp_path: Path) -> None:
    place = walked.place
    release = place.project.release
    mirror = place.workspace / "mirrors" / "local" / "targets"
    models = [
        word
        for path in (place.project.folder / "model", place.project.folder / "previous")
        for word in ("--model", path)
    ]
    whole = place.run("verify", release, *models, "--json").ok().json
    assert not any("no bytes given" in line for line in whole["open"])
    assert whole["certificate"]["key"].startswith("rsa3072:")
    assert whole["certificate"]["status"] == "draft"
    assert any("the trained bytes are these" in line for line in whole["established"])
    assert any("its evidence satisfies the rules of virtual fleets" in line for line in whole["established"])
    bundle = next(one for one in mirror.glob("*.swu") if "return" not in one.name)
    told = place.run("verify", bundle, "--json").ok().json
    assert any("no safety key given" in line for line in told["open"])
    assert any("lead to it" in line for line in told["established"]), "the dossier beside the bundle was found"
    alone = tmp_path / "alone.swu"
    shutil.copy(bundle, alone)
    assert any("no dossier was given" in line for line in place.run("verify", alone, "--json").ok().json["open"])
    refused(place.run("verify", alone, "--complete", "--json"), "ChainOpenError", 7, "no dossier was given")
    model = place.project.folder / "model"
    assert place.run("verify", bundle, "--model", model, "--release", release, "--json").ok()
    refused(place.run("verify", tmp_path, "--json", "--dossier", tmp_path / "none.json"), "FileUnreadableError", 3)
    refused(place.run("verify", tmp_path / "nothing", "--json"), "BundleFileError", 3)
    assert "nothing contradicts" in place.run("verify", release).ok().out


def test_a_dossier_is_found_by_its_name_among_others(tmp_path: Path) -> None:
    mark = "0" * 64
    names = [f"{mark}.nwm-2.5-250", f"{mark}.nwm-2.5-252", f"{mark}.nwm-2-250", "other"]
    for name in names:
        (tmp_path / f"{name}.dossier.json").write_text("")
    cases = [
        ("nwm-2.5-nt2.0-250", names[0]), ("nwm-2.5-nt2.0-251-return", names[0]), ("nwm-2.5-nt2.0-253-return", names[1]),
        ("nwm-2-nt3.0-250", names[2]), (f"{mark}.nwm-2.5-nt2.0-252", names[1]), ("nwm-3-nt2.0-250", None),
    ]  # fmt: skip
    for bundle, dossier in cases:
        found = _beside(tmp_path / f"{bundle}.swu")
        assert (found and found.name) == (f"{dossier}.dossier.json" if dossier else None)
    assert _beside(tmp_path / "nowhere" / "x.swu") is None


def test_evidence_writes_every_paper_as_a_file(walked: Road, tmp_path: Path) -> None:
    place, out = walked.place, tmp_path / "papers"
    told = place.run("evidence", place.project.release, "--out", out, "--json").ok().json
    assert told["status"] == "draft"
    index = json.loads((out / "index.json").read_bytes())
    assert index["status"] == "draft"
    for leaf in index["leaves"]:
        if leaf["file"]:
            assert str(digest_bytes((out / leaf["file"]).read_bytes())) == leaf["digest"]
    assert json.loads((out / "bill" / "release.cdx.json").read_bytes())["bomFormat"] == "CycloneDX"
    refused(place.run("evidence", place.project.release, "--out", out, "--json"), "OutputUnwritableError", 3)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(place.run("evidence", empty, "--out", tmp_path / "x", "--json"), "DossierMissingError", 3)


def audited(dossier: Path, authority: Path) -> subprocess.CompletedProcess[str]:
    """The program that docs/certificate.md gives to auditors, in a Python that cannot see nwmctl."""
    page = (ROOT / "docs" / "certificate.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    command = [sys.executable, "-I", "-c", program, str(dossier), str(authority)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_an_auditor_needs_no_nwmctl(data: bytes, dossier: Dossier, keys: KeyRing, tmp_path: Path) -> None:
    require_real("openssl", shutil.which("openssl") is not None, "apt-get install openssl")
    whole, authority = tmp_path / "dossier.json", keys.folder / "release-ca.crt"
    whole.write_bytes(data)
    done = audited(whole, authority)
    assert done.returncode == 0, done.stderr
    told = [" ".join((one.leaf.kind, one.leaf.name, str(one.leaf.digest))) for one in dossier.leaves]
    assert done.stdout.splitlines() == told
    other = init_keys(tmp_path / "other", real_now(), [KeyRole.RELEASE], development=True)
    assert audited(whole, other.folder / "release-ca.crt").returncode != 0
    name = dossier.leaves[3].leaf.name.encode()
    for old, new in ((b'"name":"%s"' % name, b'"name":"%sx"' % name), (b"draft", b"final")):
        assert old in data
        whole.write_bytes(data.replace(old, new, 1))
        assert audited(whole, authority).returncode != 0, old
