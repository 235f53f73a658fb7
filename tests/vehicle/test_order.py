"""Whatever a gateway sends, it is an order of a known kind or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nwmctl.errors import GatewayAnswerError
from nwmctl.formats import ddi
from nwmctl.vehicle.order import BundleOrder, SlotOrder, read_order

ARTIFACTS = st.builds(
    ddi.DdiArtifact, st.text(max_size=5), st.just("0" * 40), st.just("a" * 64), st.integers(0, 9), st.just("http://x/")
)
CHUNKS = st.builds(
    ddi.Chunk,
    st.sampled_from([ddi.PART_BUNDLE, ddi.PART_SLOT, "other", ""]),
    st.text(max_size=3),
    st.text(max_size=3),
    st.lists(ARTIFACTS, max_size=2).map(tuple),
    st.dictionaries(
        st.sampled_from([ddi.META_SEQUENCE, ddi.META_TUF_NAME]), st.sampled_from(["", "7", "-1", "x", "٣", "9" * 30])
    ),
)
DEPLOYMENTS = st.builds(ddi.Deployment, st.integers(0, 99), st.lists(CHUNKS, max_size=2).map(tuple))


@given(DEPLOYMENTS)
def test_an_order_or_a_refusal(deployment: ddi.Deployment) -> None:
    try:
        order = read_order(deployment)
    except GatewayAnswerError:
        return
    (chunk,) = deployment.chunks
    assert order.action == deployment.action
    assert order.sequence == int(chunk.metadata.get(ddi.META_SEQUENCE) or 0)
    match order:
        case BundleOrder():
            assert chunk.part == ddi.PART_BUNDLE
            assert order.sha256 == chunk.artifacts[0].sha256
        case SlotOrder():
            assert chunk.part == ddi.PART_SLOT


def test_a_slot_order_needs_a_sequence() -> None:
    deployment = ddi.Deployment(1, (ddi.Chunk(ddi.PART_SLOT, "n", "1", (), {}),))
    with pytest.raises(GatewayAnswerError) as caught:
        read_order(deployment)
    assert "which sequence" in caught.value.why
