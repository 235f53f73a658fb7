"""What a bundle asks for and what it brings: the proven version, unless the release says otherwise."""

from __future__ import annotations

import pytest

from nwmctl.bundling.terms import carried, required
from nwmctl.domain.artifact import RuntimeNeeds
from nwmctl.domain.bundle import BundleTerms
from nwmctl.domain.digest import digest_bytes
from nwmctl.domain.requires import ReleaseRequires, RuntimeFile, RuntimeWay, VersionRange

NEEDS = [("quad", RuntimeNeeds("iree", "3.12.0")), ("solo", RuntimeNeeds("iree", "3.12.0"))]
WHEEL = RuntimeFile("iree", "3.12.0", "iree.whl", digest_bytes(b"wheel"), "Apache-2.0")


def test_the_proven_version_is_asked_for_unless_the_release_names_a_range() -> None:
    (found,) = required(BundleTerms(), NEEDS).runtimes
    assert (found.name, found.versions, found.variants) == ("iree", VersionRange.only("3.12.0"), ("quad", "solo"))
    wide = BundleTerms(requires=ReleaseRequires({"iree": VersionRange("3.11", "3.13")}))
    assert required(wide, NEEDS).runtimes[0].versions == VersionRange("3.11", "3.13")


def test_a_range_without_the_proven_version_is_refused() -> None:
    with pytest.raises(ValueError, match="proven with 3"):
        required(BundleTerms(requires=ReleaseRequires({"iree": VersionRange("3.13")})), NEEDS)


def test_a_carried_runtime_is_not_asked_for() -> None:
    terms = BundleTerms(RuntimeWay.CARRY, (WHEEL,))
    assert required(terms, NEEDS).runtimes == ()
    (found,) = carried(terms, NEEDS, {"iree": 5})
    assert (found.filename, found.digest, found.size) == ("iree.whl", WHEEL.digest, 5)
    assert (found.version, found.licence, found.variants) == ("3.12.0", "Apache-2.0", ("quad", "solo"))
    assert carried(BundleTerms(), NEEDS, {}) == ()


def test_what_is_carried_must_be_what_was_proven() -> None:
    other = RuntimeFile("iree", "3.11.0", "iree.whl", WHEEL.digest, "Apache-2.0")
    with pytest.raises(ValueError, match="carries iree 3"):
        carried(BundleTerms(RuntimeWay.CARRY, (other,)), NEEDS, {"iree": 5})
    with pytest.raises(ValueError, match="needs one file of iree"):
        carried(BundleTerms(RuntimeWay.CARRY), NEEDS, {})
